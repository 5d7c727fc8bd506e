"""Low resolution: means of what a scanned pixel covers, enlarged again, on one grid for all."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from agedphoto.synth.scan import LowResolution, low_resolution
from agedphoto.synth.scene import Scene


def scene(
    batch: int = 3, size: tuple[int, int] = (60, 70), severity: float = 1.0, **where
) -> Scene:
    keys = torch.tensor([3, -4, 2**62, 5])[:batch]
    return Scene(keys=keys, op=1, size=size, severity=torch.full((batch,), severity), **where)


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def scanned(x: torch.Tensor, factor: float, *, nearest: bool = False) -> torch.Tensor:
    B = len(x)
    return low_resolution(
        x,
        factor=torch.full((B,), factor),
        nearest=torch.full((B,), nearest),
        most_factor=math.ceil(factor) + 0.5,
    )


def along_one_axis(line: np.ndarray, factor: float, *, nearest: bool) -> np.ndarray:
    """Scan one line, pixel by pixel."""
    length = len(line)
    count = math.ceil(length / factor)
    means = []
    for i in range(count):
        begin, end = i * factor, min((i + 1) * factor, length)
        overlap = [max(0.0, min(j + 1, end) - max(j, begin)) for j in range(length)]
        means.append(np.dot(overlap, line) / sum(overlap))
    result = []
    for i in range(length):
        place = (i + 0.5) / factor - 0.5
        low, share = math.floor(place), place - math.floor(place)
        if nearest:
            share = float(share >= 0.5)
        a, b = (means[min(max(k, 0), count - 1)] for k in (low, low + 1))
        result.append(a + share * (b - a))
    return np.array(result)


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 2.75, 4.0])
@pytest.mark.parametrize("nearest", [False, True])
def test_it_is_what_a_scan_line_by_line_gives(factor, nearest):
    x = pictures(1, 2, 11, 14)
    expected = x.double().numpy()
    for axis in (2, 3):
        expected = np.apply_along_axis(along_one_axis, axis, expected, factor, nearest=nearest)
    assert np.allclose(scanned(x, factor, nearest=nearest).numpy(), expected, atol=1e-5)


def test_whole_factors_are_area_and_bilinear_interpolation():
    x = pictures(2, 3, 24, 36)
    for factor in (2, 3, 4):
        small = F.avg_pool2d(x, factor)
        smooth = F.interpolate(small, scale_factor=float(factor), mode="bilinear")
        square = F.interpolate(small, scale_factor=float(factor), mode="nearest")
        assert torch.allclose(scanned(x, float(factor)), smooth, atol=1e-5)
        assert torch.allclose(scanned(x, float(factor), nearest=True), square, atol=1e-5)


def test_factor_1_and_no_severity_are_identity():
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        x, here = pictures(3, 3, 9, 11).to(dtype), scene(severity=0.0)
        aged, mask = LowResolution().apply(x, LowResolution().sample(here), here)
        assert torch.equal(aged, x)
        assert aged.dtype == dtype
        assert mask is None


def test_flat_pictures_stay_flat():
    x = torch.full((1, 1, 23, 31), 0.3)
    for factor in (1.7, 3.3):
        assert torch.allclose(scanned(x, factor), x, atol=1e-6)


@pytest.mark.parametrize("size", [(120, 144), (3000, 2000)])
def test_a_window_is_scanned_as_the_whole(size):
    defect, here = LowResolution(nearest=0.5), scene(size=size)
    params, reach = defect.sample(here), defect.reach_px(size)
    top, left = size[0] // 2, size[1] // 3
    # A part of the whole that is larger than any window to be looked at.
    field = pictures(3, 1, 40 + 4 * reach, 50 + 4 * reach)

    def window(more: int) -> torch.Tensor:
        rows = slice(max(0, 2 * reach - more), 2 * reach + 40 + more)
        columns = slice(max(0, 2 * reach - more), 2 * reach + 50 + more)
        where = replace(here, top=top - more, left=left - more)
        aged = defect.apply(field[..., rows, columns], params, where)[0]
        return aged[..., more:-more, more:-more]

    assert torch.allclose(window(reach), window(2 * reach), atol=1e-4)


def test_a_corner_of_the_picture_is_scanned_as_the_whole():
    defect, here, x = LowResolution(), scene(size=(50, 44)), pictures(3, 1, 50, 44)
    params, reach = defect.sample(here), defect.reach_px((50, 44))
    whole = defect.apply(x, params, here)[0]
    near = defect.apply(x[..., : 16 + reach, : 16 + reach], params, here)[0]
    assert torch.allclose(near[..., :16, :16], whole[..., :16, :16], atol=1e-5)
    far = defect.apply(
        x[..., 34 - reach :, 28 - reach :], params, replace(here, top=34 - reach, left=28 - reach)
    )[0]
    assert torch.allclose(far[..., -16:, -16:], whole[..., -16:, -16:], atol=1e-5)


def test_a_photograph_does_not_depend_on_the_others():
    x, here = pictures(3, 3, 13, 15), scene()
    aged = LowResolution().apply(x, LowResolution().sample(here), here)[0]
    few = replace(here, keys=here.keys[[2, 0]], severity=here.severity[[2, 0]])
    again = LowResolution().apply(x[[2, 0]], LowResolution().sample(few), few)[0]
    assert torch.equal(again, aged[[2, 0]])


def test_severity_moves_the_factor_within_its_range():
    keys = torch.arange(300)
    for severity in (0.0, 0.5, 1.0, 4.0):
        each = replace(scene(), keys=keys, severity=torch.full((300,), severity))
        factor = LowResolution(factor=(1.5, 4.0)).sample(each)["factor"]
        assert factor.min() >= 1 + min(severity, 1) * 0.5
        assert factor.max() <= min(1 + 3 * severity, 4.0)


def test_memory_format_is_kept():
    here, x = scene(), pictures(3, 3, 20, 22)
    params = LowResolution().sample(here)
    plain = LowResolution().apply(x, params, here)[0]
    laid = x.contiguous(memory_format=torch.channels_last)
    last = LowResolution().apply(laid, params, here)[0]
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1)])
def test_tiny_pictures_are_scanned_too(size):
    x = pictures(3, 1, *size)
    aged = LowResolution().apply(x, LowResolution().sample(scene(size=size)), scene(size=size))[0]
    assert aged.shape == x.shape
    assert aged.isfinite().all()


def test_wrong_fields_are_refused_by_name():
    with pytest.raises(ValueError, match="factor must be a pair"):
        LowResolution(factor=(0.5, 2.0))
    with pytest.raises(ValueError, match="nearest must be a share"):
        LowResolution(nearest=1.5)
