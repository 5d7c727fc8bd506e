"""Halation: a glow around highlights only, red, as wide as asked for, aligned to the picture."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy import ndimage

from agedphoto.synth.halation import CORE, GLOW, Halation, glow_of, halation

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def lamp(size: int = 129, radius: int = 6) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.arange(size) - size // 2] * 2, indexing="ij")
    return (y * y + x * x <= radius * radius).float().expand(1, 3, size, size) * 0.98 + 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_amount_zero_returns_the_picture(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    glow = torch.rand(2, 1, 9, 7, device=device)
    made = halation(x, amount=torch.zeros(2, device=device), glow=glow)
    assert torch.equal(made, x)
    assert made.dtype == dtype


@pytest.mark.parametrize("step", [1, 2, 4])
def test_the_glow_is_two_gaussians_of_what_is_bright(step):
    x, sigma = lamp(97, 12), 12.0
    glow = (
        glow_of(x, threshold=numbers(0.6), sigma_px=numbers(sigma), kernel_px=89, step=step)[0, 0]
        .double()
        .numpy()
    )
    bright = (np.clip(x[0, 0].double().numpy() - 0.6, 0, None) / 0.4).clip(0, 1)
    expected = sum(
        0.5 * ndimage.gaussian_filter(bright, share * sigma, mode="nearest", truncate=4)
        for share in (1.0, CORE)
    )
    # Blurred on a smaller picture, which may cost a hundredth.
    assert np.abs(glow - expected).max() < (0.002 if step == 1 else 0.012)


def test_only_highlights_glow():
    x = torch.rand(2, 3, 30, 40) * 0.6
    there = scene(torch.arange(2), size=(30, 40), severity=4.0)
    made, mask = Halation().apply(x, Halation().sample(there), there)
    assert torch.equal(made, x)
    assert mask is None


def test_the_glow_is_red_next_to_a_lamp_and_fades_with_distance():
    defect = Halation(amount=(0.2, 0.2), sigma_px=(10.0, 10.0), threshold=(0.8, 0.8))
    there = scene(torch.arange(1), size=(129, 129))
    made = defect.apply(lamp(), defect.sample(there), there)[0][0] - lamp()[0]
    assert (made >= -1e-6).all()
    red, green, blue = made[:, 64, 76].tolist()
    assert red > 0.05
    assert red > 1.5 * green > 1.5 * 1.5 * blue > 0
    outwards = made[0, 64, 72:]
    assert (outwards.diff() <= 1e-6).all()
    assert torch.equal(made[:, 0, 0], torch.zeros(3))


def test_the_glow_is_round():
    x = lamp()
    glow = glow_of(x, threshold=numbers(0.8), sigma_px=numbers(10.0), kernel_px=61, step=2)[0, 0]
    for turned in (glow.flip(0), glow.flip(1), glow.T):
        # To within half a step, a pixel here.
        assert (glow - turned).abs().max() < 0.03


def test_one_channel_gets_the_luma_of_the_glow():
    x, glow = torch.full((1, 1, 4, 4), 0.0), torch.full((1, 1, 4, 4), 0.5)
    made = float(halation(x, amount=numbers(0.1), glow=glow)[0, 0, 0, 0])
    light = 0.05 * float(np.array([0.299, 0.587, 0.114]) @ GLOW)
    assert ((made + 0.055) / 1.055) ** 2.4 == pytest.approx(light, abs=1e-6)


@pytest.mark.parametrize("place", [(0, 0), (37, 51), (101, 3), (128, 133)])
def test_a_window_glows_as_the_whole_does(place):
    size, side = (180, 201), 40
    defect = Halation(sigma_px=(4.0, 8.0), threshold=(0.5, 0.7))
    x = torch.rand(2, 3, *size) ** 0.5
    whole = scene(torch.arange(2), size=size)
    drawn = defect.sample(whole)
    expected = defect.apply(x, drawn, whole)[0]
    reach = defect.reach_px(size)
    top, left = (max(0, start - reach) for start in place)
    part = x[..., top : place[0] + side + reach, left : place[1] + side + reach]
    made = defect.apply(part, drawn, scene(torch.arange(2), size=size, top=top, left=left))[0]
    row, column = place[0] - top, place[1] - left
    made = made[..., row : row + side, column : column + side]
    assert torch.allclose(
        made,
        expected[..., place[0] : place[0] + side, place[1] : place[1] + side],
        rtol=0,
        atol=1e-5,
    )


def test_severity_makes_it_brighter_and_a_finer_scan_wider():
    keys = torch.arange(100)
    drawn = [Halation().sample(scene(keys, size=(9, 9), severity=s)) for s in (0.0, 0.5, 1.0)]
    assert torch.equal(drawn[0]["amount"], torch.zeros(100))
    assert torch.allclose(2 * drawn[1]["amount"], drawn[2]["amount"])
    assert torch.equal(drawn[0]["sigma_px"], drawn[2]["sigma_px"])
    scan = Halation().sample(scene(keys, size=(3072, 100)))
    assert torch.allclose(scan["sigma_px"], 3 * drawn[2]["sigma_px"])


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 1, 1, 9), (2, 3, 13, 7)])
def test_any_size_and_memory_format_will_do(shape):
    x = torch.rand(shape)
    there = scene(torch.arange(2), size=shape[2:])
    drawn = Halation().sample(there)
    expected = Halation().apply(x, drawn, there)[0]
    laid = x.contiguous(memory_format=torch.channels_last)
    made = Halation().apply(laid, drawn, there)[0]
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("field", ["amount", "sigma_px", "threshold"])
def test_ranges_are_checked(field):
    with pytest.raises(ValueError, match=field):
        Halation(**{field: (0.1, 999.0)})
