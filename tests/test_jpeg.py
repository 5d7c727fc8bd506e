"""JPEG: what libjpeg makes of a picture at the same quality, up to a rounding here and there."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import photo_like
from PIL import Image
from scipy.fft import dctn

from agedphoto.synth.jpeg import CHROMA_TABLE, LUMA_TABLE, Jpeg, jpeg
from agedphoto.synth.scene import Scene


def scene(
    batch: int = 3, size: tuple[int, int] = (60, 70), severity: float = 1.0, **where
) -> Scene:
    keys = torch.tensor([3, -4, 2**62, 5])[:batch]
    return Scene(keys=keys, op=1, size=size, severity=torch.full((batch,), severity), **where)


def photo(height: int, width: int, *, channels: int = 3) -> np.ndarray:
    picture = photo_like(height, width, seed=1)
    if channels == 1:
        return np.asarray(Image.fromarray(picture).convert("L"))[:, :, None]
    return picture


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def by_pillow(picture: np.ndarray, quality: int) -> np.ndarray:
    coded = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(coded, "jpeg", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(coded)).reshape(picture.shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95])
@pytest.mark.parametrize("size", [(96, 112), (61, 83)])
def test_it_is_what_pillow_makes(channels, quality, size):
    picture = photo(*size, channels=channels)
    ours = jpeg(tensor(picture), quality=torch.tensor([float(quality)]))
    difference = (ours - tensor(by_pillow(picture, quality))).abs() * 255
    # A rounding of the result is 0.25 on average; those of colours before add to it.
    assert difference.mean() < (0.45 if channels == 1 else 1.0)
    lost = (tensor(picture) - tensor(by_pillow(picture, quality))).abs().mean() * 255
    assert difference.mean() < 0.5 * lost or quality == 95


@pytest.mark.parametrize("quality", [10, 50, 80])
def test_coefficients_are_multiples_of_their_steps(quality):
    gray = tensor(photo(32, 40, channels=1)) * 0.5 + 0.25
    coded = jpeg(gray, quality=torch.tensor([float(quality)]))[0, 0].double().numpy() * 255 - 128
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.array(LUMA_TABLE) * scale + 50) // 100, 1, 255)
    for row, column in [(0, 0), (8, 16), (24, 32)]:
        block = dctn(coded[row : row + 8, column : column + 8], norm="ortho") / steps
        assert np.abs(block - block.round()).max() < 2e-3


def test_pillow_has_the_same_tables():
    coded = io.BytesIO()
    Image.fromarray(photo(16, 16)).save(coded, "jpeg", quality=50)
    tables = getattr(Image.open(coded), "quantization")  # noqa: B009 - only JPEG files have it
    assert [np.reshape(tables[i], (8, 8)).tolist() for i in (0, 1)] == [
        [list(row) for row in table] for table in (LUMA_TABLE, CHROMA_TABLE)
    ]


def test_every_photograph_has_its_own_quality():
    x = tensor(photo(48, 48)).expand(3, -1, -1, -1)
    aged = jpeg(x, quality=torch.tensor([20.0, 60.0, 90.0]))
    for i, quality in enumerate((20.0, 60.0, 90.0)):
        assert torch.equal(aged[i : i + 1], jpeg(x[:1], quality=torch.tensor([quality])))
    losses = (aged - x).abs().mean((1, 2, 3))
    assert losses[0] > losses[1] > losses[2] > 0


def test_quality_100_and_no_severity_are_identity():
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for channels in (1, 3):
            x = tensor(photo(20, 27, channels=channels)).expand(3, -1, -1, -1).to(dtype)
            here = scene(severity=0.0)
            aged, mask = Jpeg().apply(x, Jpeg().sample(here), here)
            assert torch.equal(aged, x)
            assert aged.dtype == dtype
            assert mask is None


def test_what_is_flat_stays_so_and_gray_stays_gray():
    flat = torch.full((1, 3, 32, 32), 100 / 255)
    assert (jpeg(flat, quality=torch.tensor([60.0])) - flat).abs().max() < 4 / 255
    gray = tensor(photo(32, 32, channels=1)).expand(-1, 3, -1, -1)
    aged = jpeg(gray, quality=torch.tensor([30.0]))
    assert (aged.amax(1) - aged.amin(1)).max() < 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_coded_as_the_whole(channels):
    x, here = tensor(photo(90, 101, channels=channels)).expand(3, -1, -1, -1), scene(size=(90, 101))
    params, reach = Jpeg().sample(here), Jpeg().reach_px((90, 101))
    whole = Jpeg().apply(x, params, here)[0]
    for top, left, bottom, right in [(32, 48, 66, 71), (33, 50, 60, 80), (50, 64, 90, 101)]:
        rows = slice(top - reach, min(bottom + reach, 90))
        columns = slice(left - reach, min(right + reach, 101))
        part = replace(here, top=top - reach, left=left - reach)
        aged = Jpeg().apply(x[..., rows, columns], params, part)[0]
        aged = aged[..., reach : reach + bottom - top, reach : reach + right - left]
        assert torch.allclose(aged, whole[..., top:bottom, left:right], atol=1e-5)


def test_severity_takes_what_quality_lacks_of_100():
    keys = torch.arange(300)
    for severity, low, high in [(0.0, 100, 100), (0.5, 65, 98), (1.0, 30, 95), (4.0, 1, 80)]:
        each = replace(scene(), keys=keys, severity=torch.full((300,), severity))
        quality = Jpeg().sample(each)["quality"]
        assert quality.min() >= low
        assert quality.max() <= high
        assert torch.equal(quality, quality.round())


def test_memory_format_is_kept():
    here, x = scene(), tensor(photo(20, 22)).expand(3, -1, -1, -1)
    params = Jpeg().sample(here)
    laid = x.contiguous(memory_format=torch.channels_last)
    last = Jpeg().apply(laid, params, here)[0]
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(Jpeg().apply(x.contiguous(), params, here)[0], last, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1)])
def test_tiny_pictures_are_coded_too(size):
    x = tensor(photo(*size)).expand(3, -1, -1, -1)
    aged = Jpeg().apply(x, Jpeg().sample(scene()), scene(size=size))[0]
    assert aged.shape == x.shape
    assert (aged - x).abs().max() < 0.2


@pytest.mark.gpu
def test_a_gpu_rounds_as_the_cpu_does():
    x = tensor(photo(240, 320)).expand(3, -1, -1, -1)
    quality = torch.tensor([10.0, 50.0, 90.0])
    theirs = jpeg(x.cuda(), quality=quality.cuda()).cpu()
    assert ((theirs - jpeg(x, quality=quality)).abs() < 1e-5).float().mean() > 0.999


def test_a_wrong_range_is_refused_by_name():
    with pytest.raises(ValueError, match="quality must be a pair"):
        Jpeg(quality=(0.0, 50.0))
