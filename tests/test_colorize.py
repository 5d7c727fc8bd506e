"""Colouring: mirrored, gray, any size, within the gamut; the guided filter against NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torch.utils._python_dispatch import TorchDispatchMode

from agedphoto.restore.colorize import (
    box_mean,
    clip_chroma,
    colorize,
    guided_coefficients,
)
from agedphoto.train.ab_bins import decode, nearest_bins, num_bins
from agedphoto.train.color_metrics import lab_to_linear, lightness
from agedphoto.train.colornet import ColorNet, ColorNetConfig

SMALL = ColorNetConfig(widths=(4, 8, 8, 16), blocks=(1, 1, 1, 1), attention_blocks=1, heads=2)


@pytest.fixture(scope="module")
def net() -> ColorNet:
    """A network with strong opinions."""
    torch.manual_seed(0)
    made = ColorNet(SMALL)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        made.head.weight.mul_(3)
        made.prior.copy_(torch.randn_like(made.prior).softmax(0))
    return made.eval()


def picture(height: int, width: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    """Return smooth random luma with a few edges."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 6, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return (0.7 * smooth + 0.3 * (smooth > 0.5)).clamp(0, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (64, 64), (300, 41), (90, 700)])
def test_pictures_of_any_size_are_coloured(net, size):
    luma = picture(*size)
    ab = colorize(net, luma)
    assert ab.shape == (1, 2, *size)
    assert ab.dtype == torch.float32
    assert torch.isfinite(ab).all()


def test_the_mirrored_picture_gets_the_mirrored_colors(net):
    luma = picture(270, 390)
    ab, mirrored = colorize(net, luma), colorize(net, luma.flip(-1)).flip(-1)
    assert ab.abs().max() > 5
    assert (ab - mirrored).abs().max() < 0.05


def test_saturation_zero_is_gray_and_more_is_more(net):
    luma = picture(80, 120)
    usual = colorize(net, luma)
    half = colorize(net, luma, saturation=0.5)
    assert colorize(net, luma, saturation=0.0).abs().max() == 0
    clipped = torch.linalg.vector_norm(colorize(net, luma, saturation=3.0), dim=1)
    assert clipped.mean() > torch.linalg.vector_norm(usual, dim=1).mean()
    # What is not clipped at full strength is half of it.
    within = torch.linalg.vector_norm(colorize(net, luma, saturation=1.01), dim=1) > 1.005 * (
        torch.linalg.vector_norm(usual, dim=1)
    )
    assert within.float().mean() > 0.2
    assert torch.allclose((2 * half - usual).abs().amax(1)[within], torch.zeros(()), atol=1e-3)


def test_lower_temperatures_are_more_vivid(net):
    luma = picture(80, 120)
    cold, warm = (colorize(net, luma, temperature=value) for value in (0.1, 1.0))
    assert cold.square().sum(1).sqrt().mean() > warm.square().sum(1).sqrt().mean()


def test_srgb_has_all_colors(net):
    luma = picture(80, 120)
    ab = colorize(net, luma, saturation=4.0)
    linear = lab_to_linear(torch.cat((lightness(luma), ab), 1))
    assert linear.min() > -0.02
    assert linear.max() < 1.02


def test_black_and_white_have_no_colour(net):
    ends = torch.cat((torch.zeros(1, 1, 64, 32), torch.ones(1, 1, 64, 32)), 3)
    assert colorize(net, ends).abs().max() < 1


def test_clipping_leaves_the_colors_of_srgb_alone():
    rgb = np.random.default_rng(0).random((1, 3000, 3))
    lab = torch.from_numpy(rgb2lab(rgb)[None].transpose(0, 3, 1, 2)).float()
    clipped = clip_chroma(lab[:, 1:], lab[:, :1])
    apart = torch.linalg.vector_norm(clipped - lab[:, 1:], dim=1)
    # The table is interpolated, and the gamut has corners.
    assert apart.max() < 1.5
    assert apart.mean() < 0.01


def test_clipping_keeps_the_hue_and_reaches_the_gamut():
    generator = torch.Generator().manual_seed(1)
    ab = 250 * (torch.rand(1, 2, 1, 3000, generator=generator) - 0.5)
    L = 100 * torch.rand(1, 1, 1, 3000, generator=generator)
    clipped = clip_chroma(ab, L)
    cross = clipped[:, 0] * ab[:, 1] - clipped[:, 1] * ab[:, 0]
    dot = (clipped * ab).sum(1)
    assert (cross.abs() <= 1e-4 * dot + 1e-2).all()
    linear = lab_to_linear(torch.cat((L, clipped), 1))
    assert linear.min() > -0.02
    assert linear.max() < 1.02


def test_pictures_of_a_batch_do_not_mix(net):
    luma = picture(70, 90, count=3)
    together = colorize(net, luma)
    alone = torch.cat([colorize(net, luma[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-2)


def test_strips_leave_no_seam(net, monkeypatch):
    luma = picture(150, 90)
    whole = colorize(net, luma)
    monkeypatch.setattr("agedphoto.restore.colorize._STRIP_PX", 90 * 7)
    assert torch.allclose(colorize(net, luma), whole, atol=1e-4)


class TwoColors(ColorNet):
    """Knows what is red and what is blue: what is light, what is dark."""

    def forward(self, luma, *, inside=None, dropout=None):
        light = (F.avg_pool2d(luma, 4) - 0.5) * 40
        logits = torch.full_like(light, -20).repeat(1, num_bins(), 1, 1)
        red, blue = nearest_bins(torch.tensor([[30.0, 20.0], [0.0, -30.0]]).T[None, :, None])[0, 0]
        logits[:, red], logits[:, blue] = light[:, 0], -light[:, 0]
        return logits


class LargeTensors(TorchDispatchMode):
    """Counts the storages of more than so many bytes that operations return."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        self.num_bytes = num_bytes
        self.found: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.nbytes() > self.num_bytes:
                    self.found.add(storage.data_ptr())
        return result


def test_only_the_colors_are_as_large_as_the_picture(net, monkeypatch):
    monkeypatch.setattr("agedphoto.restore.colorize._STRIP_PX", 1 << 13)
    luma = picture(600, 800)
    clip_chroma(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, 1))  # Makes the table of the gamut.
    with LargeTensors(luma.nbytes // 2) as large:
        ab = colorize(net, luma, sizes_px=(32,))
    assert large.found - {luma.data_ptr()} == {ab.data_ptr()}


def test_colors_end_where_the_luma_does():
    # The edge is in the middle of a pixel of the thumbnail, and of one of the answer.
    luma = torch.full((1, 1, 600, 600), 0.25)
    luma[..., 303:] = 0.75
    net = TwoColors(SMALL).eval()
    ab = colorize(net, luma, sizes_px=(256,))
    thumbnail = F.interpolate(luma, size=256, mode="area")
    answer = decode(net(thumbnail), net.rebalance_weights())
    bilinear = F.interpolate(answer, size=600, mode="bilinear")
    within_3_px = [(each[..., 304] - each[..., 301])[:, 1].min() for each in (ab, bilinear)]
    assert within_3_px[0] > 0.6 * 50
    assert within_3_px[1] < 0.4 * 50
    # And far from the edge they are what they were.
    assert (ab[..., 330:] - bilinear[..., 330:]).abs().max() < 1
    assert (ab[..., :276] - bilinear[..., :276]).abs().max() < 1


def test_box_means_are_those_of_the_part_within():
    x = torch.rand(1, 2, 7, 5, generator=torch.Generator().manual_seed(2))
    made = box_mean(x, 2)
    for row in range(7):
        for column in range(5):
            window = x[..., max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            assert torch.allclose(made[..., row, column], window.mean((2, 3)))


def test_the_guided_filter_keeps_what_follows_the_guide_and_smooths_the_rest():
    guide = torch.zeros(1, 1, 40, 40)
    guide[..., 20:] = 1
    noise = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    slope, offset = guided_coefficients(guide, 5 * guide + noise, radius=4, eps=1e-4)
    smooth = slope * guide + offset
    assert (smooth - 5 * guide).std() < 0.3
    slope, offset = guided_coefficients(guide, 3 * guide - 1, radius=4, eps=1e-8)
    assert torch.allclose(slope * guide + offset, 3 * guide - 1, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes_px": ()}, "sizes_px must be"),
        ({"sizes_px": (8,)}, "sizes_px must be"),
        ({"sizes_px": (256, 1024)}, "sizes_px must be"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"saturation": -1.0}, "saturation must be at least 0"),
        ({"saturation": float("inf")}, "saturation must be at least 0"),
    ],
)
def test_impossible_options_are_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        colorize(net, picture(20, 20), **options)


def test_what_is_no_gray_picture_is_refused(net):
    for wrong in (torch.rand(3, 8, 8), torch.rand(1, 3, 8, 8), torch.rand(1, 1, 0, 8)):
        with pytest.raises(ValueError, match="luma must be"):
            colorize(net, wrong)


def test_networks_in_training_are_refused():
    with pytest.raises(ValueError, match="eval"):
        colorize(ColorNet(SMALL), picture(20, 20))
