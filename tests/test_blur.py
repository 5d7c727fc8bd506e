"""Blur: Gaussians as SciPy has them, lines of the length and angle asked for, any picture size."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy import ndimage

from agedphoto.synth.blur import (
    FFT_PX,
    Defocus,
    MotionBlur,
    defocus,
    line_kernel,
    motion_blur,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_blur_returns_the_picture(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    zero = torch.zeros(2, device=device)
    assert torch.equal(defocus(x, sigma_px=zero, kernel_px=9), x)
    for kernel_px in (9, FFT_PX + 2):
        made = motion_blur(x, length_px=zero, angle_deg=zero, kernel_px=kernel_px)
        assert torch.equal(made, x)
        assert made.dtype == dtype


def test_each_photograph_has_its_own_gaussian(device):
    x, sigma = torch.rand(3, 3, 21, 30), numbers(0.6, 1.3, 2.0)
    made = defocus(x.to(device), sigma_px=sigma.to(device), kernel_px=17).cpu()
    for photo in range(3):
        for channel in range(3):
            expected = ndimage.gaussian_filter(
                x[photo, channel].double().numpy(), float(sigma[photo]), mode="nearest", radius=8
            )
            assert np.allclose(made[photo, channel], expected, rtol=0, atol=1e-5)


def test_a_line_has_the_length_and_the_direction_asked_for():
    lengths, angles = numbers(0.0, 4.0, 9.0, 12.0, 12.0), numbers(0.0, 0.0, 30.0, 90.0, 135.0)
    kernels = line_kernel(length_px=lengths, angle_deg=angles, kernel_px=17).double().numpy()
    y, x = -(np.mgrid[:17, :17] - 8.0) * np.array([1.0, -1.0])[:, None, None]
    for kernel, length, angle in zip(kernels, lengths.tolist(), angles.tolist(), strict=True):
        assert kernel.sum() == pytest.approx(1, abs=1e-6)
        # Its middle is that of the picture, so nothing moves.
        assert (kernel * x).sum() == pytest.approx(0, abs=1e-6)
        assert (kernel * y).sum() == pytest.approx(0, abs=1e-6)
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        along, across = (kernel * (x * c + y * s) ** 2).sum(), (kernel * (y * c - x * s) ** 2).sum()
        # An even line has a variance of length**2 / 12; pixels add a little both ways.
        assert along == pytest.approx(((length + 0.5) ** 2) / 12, abs=1.2)
        assert across < 0.3
    assert kernels[0, 8, 8] == pytest.approx(1)


def test_angles_run_anti_clockwise():
    kernel = line_kernel(length_px=numbers(6.0), angle_deg=numbers(45.0), kernel_px=9)[0]
    assert kernel[2, 6] > 0
    assert kernel[6, 2] > 0
    assert kernel[2, 2] == 0


def test_motion_agrees_with_scipy(device):
    x = torch.rand(3, 2, 19, 26)[:, :1]
    length, angle = numbers(3.0, 7.5, 10.0), numbers(10.0, 100.0, 60.0)
    made = motion_blur(
        x.to(device), length_px=length.to(device), angle_deg=angle.to(device), kernel_px=15
    ).cpu()
    kernels = line_kernel(length_px=length, angle_deg=angle, kernel_px=15).double().numpy()
    for photo in range(3):
        expected = ndimage.correlate(x[photo, 0].double().numpy(), kernels[photo], mode="nearest")
        assert np.allclose(made[photo, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 50), (5, 3), (1, 1)])
def test_by_fft_it_is_the_same(size, device):
    x = torch.rand(2, 3, *size).to(device)
    length, angle = numbers(5.0, 11.0).to(device), numbers(20.0, 120.0).to(device)
    direct = motion_blur(x, length_px=length, angle_deg=angle, kernel_px=FFT_PX)
    by_fft = motion_blur(x, length_px=length, angle_deg=angle, kernel_px=FFT_PX + 2)
    assert torch.allclose(direct, by_fft, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", [Defocus, MotionBlur])
def test_flat_pictures_stay_flat_and_others_keep_their_mean(kind):
    there = scene(torch.arange(4), size=(40, 50))
    drawn = kind().sample(there)
    flat = torch.full((4, 3, 40, 50), 0.37)
    assert torch.allclose(kind().apply(flat, drawn, there)[0], flat, rtol=0, atol=1e-6)
    spot = torch.zeros(4, 1, 40, 50)
    spot[:, :, 20, 25] = 1
    made, mask = kind().apply(spot, drawn, there)
    assert mask is None
    assert made.sum((1, 2, 3)).tolist() == pytest.approx([1.0] * 4, abs=1e-5)


@pytest.mark.parametrize("kind", [Defocus, MotionBlur])
@pytest.mark.parametrize("size", [(300, 400), (1500, 2048)])
def test_nothing_matters_beyond_the_reach(kind, size):
    defect, keys = kind(), torch.arange(6)
    there = scene(keys, size=size, top=100, left=120, severity=4.0)
    reach = defect.reach_px(size)
    side = 2 * reach + 3
    spot = torch.zeros(6, 1, side, side)
    spot[:, :, reach + 1, reach + 1] = 1
    made, _ = defect.apply(spot, defect.sample(there), there)
    rim = torch.ones(side, side)
    rim[1:-1, 1:-1] = 0
    assert (made[:, 0] * rim).max() < 1e-6
    assert (made[:, 0, reach - 1, :].sum() > 0) or (made[:, 0, :, reach - 1].sum() > 0)


def test_blur_grows_with_severity_up_to_the_largest_and_with_the_scan():
    keys = torch.arange(200)
    for kind, name, largest in ((Defocus, "sigma_px", 2.5), (MotionBlur, "length_px", 12.0)):
        drawn = [
            kind().sample(scene(keys, size=(9, 9), severity=s))[name] for s in (0.0, 0.5, 1.0, 4.0)
        ]
        assert torch.equal(drawn[0], torch.zeros(200))
        assert (drawn[1] < drawn[2]).all()
        assert drawn[3].max() <= largest
        scan = kind().sample(scene(keys, size=(100, 4096)))[name]
        assert torch.allclose(scan, 4 * drawn[2])


@pytest.mark.parametrize("kind", [Defocus, MotionBlur])
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (2, 1, 9, 8), (2, 3, 1, 1), (2, 3, 1, 40)])
def test_any_size_and_memory_format_will_do(kind, shape):
    x = torch.rand(shape)
    there = scene(torch.arange(2), size=shape[2:])
    drawn = kind().sample(there)
    expected = kind().apply(x, drawn, there)[0]
    assert expected.shape == x.shape
    laid = x.contiguous(memory_format=torch.channels_last)
    made = kind().apply(laid, drawn, there)[0]
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "field"), [(Defocus, "sigma_px"), (MotionBlur, "length_px"), (MotionBlur, "angle_deg")]
)
def test_ranges_are_checked(kind, field):
    with pytest.raises(ValueError, match=field):
        kind(**{field: (0.0, 999.0)})
