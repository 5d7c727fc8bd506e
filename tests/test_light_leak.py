"""Light leaks: added in linear light, red widest, from an edge of the whole frame."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.light_leak import HIDES_AT, LightLeak, add_light, light_of

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LUMA = np.array([0.299, 0.587, 0.114])


def to_linear(x: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def aged(defect: LightLeak, x: torch.Tensor, **place):
    there = scene(torch.arange(len(x)), size=(x.shape[2], x.shape[3]), **place)
    return defect.apply(x, defect.sample(there), there)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_light_returns_the_picture(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    made = add_light(x, light=torch.zeros(2, 3, 9, 7, device=device))
    assert torch.equal(made, x)
    assert made.dtype == dtype
    assert made.device == x.device


@pytest.mark.parametrize("channels", [1, 3])
def test_light_adds_up_in_linear_light(channels, device):
    x, light = torch.rand(2, channels, 8, 9), 0.6 * torch.rand(2, 3, 8, 9)
    made = add_light(x.to(device), light=light.to(device)).cpu().double().numpy()
    added = light.double().numpy()
    if channels == 1:
        added = np.tensordot(LUMA, added, (0, 1))[:, None]
    expected = np.minimum(to_linear(x.double().numpy()) + added, 1)
    assert np.allclose(to_linear(made), expected, rtol=0, atol=1e-5)


def test_red_is_wider_than_green_and_green_than_blue():
    exposure = torch.linspace(8, 0, 200).view(1, 1, 1, 200)
    light = light_of(exposure, greenness=torch.tensor([0.3]))[0, :, 0]
    widths = (light > 0.3).sum(1).tolist()
    assert widths[0] > widths[1] > widths[2] > 0
    assert (light.diff(dim=1) <= 0).all()
    assert float(light.max()) < 1
    # Faint light is red, strong light nearly white.
    assert light[0, 190] > 2.8 * light[1, 190]
    assert light[2, 0] > 0.4 * light[0, 0]


def test_a_leak_only_lightens_and_is_brightest_at_an_edge():
    x = torch.full((40, 3, 72, 96), 0.2)
    made, _ = aged(LightLeak(), x)
    assert (made >= x).all()
    light = (made - x).amax(1)
    inside = torch.nn.functional.pad(torch.ones(56, 80), (8, 8, 8, 8)).bool()
    rim, middle = (light.masked_fill(part, 0).amax((1, 2)) for part in (inside, ~inside))
    assert (rim >= middle - 0.05).all()
    assert (light.amax((1, 2)) > 0.02).double().mean() > 0.9


def test_every_side_leaks_about_equally_often():
    side = LightLeak(num_blobs=1).sample(scene(torch.arange(4000), size=(8, 8)))["side"]
    assert set(side.unique().tolist()) == {0, 1, 2, 3}
    assert (torch.bincount(side.flatten().long()) - 1000).abs().max() < 150


@pytest.mark.parametrize(
    ("side", "where"), [(0, (0, 32)), (1, (24, 63)), (2, (47, 32)), (3, (24, 0))]
)
def test_a_patch_lies_at_the_place_that_was_drawn(side, where):
    defect, there = LightLeak(num_blobs=1), scene(torch.arange(1), size=(48, 64))
    drawn = defect.sample(there)
    fixed = {
        "greenness": 0.3, "intensity": 0.3, "angle_deg": 90.0 * side, "side": float(side),
        "place": 0.5, "depth": 0.1, "breadth": 0.1,
    }  # fmt: skip
    assert fixed.keys() == drawn.keys()
    for name, value in fixed.items():
        drawn[name] = torch.full_like(drawn[name], value)
    light = defect.apply(torch.zeros(1, 3, 48, 64), drawn, there)[0][0, 0]
    row, column = divmod(int(light.argmax()), 64)
    assert abs(row - where[0]) <= 9
    assert abs(column - where[1]) <= 9
    assert float(light[47 - where[0], 63 - where[1]]) < 0.05


def test_the_mask_is_where_the_light_covers_the_picture():
    x = torch.zeros(30, 3, 48, 64)
    made, mask = aged(LightLeak(), x)
    assert mask is not None
    assert mask.dtype == torch.bool
    light = np.tensordot(LUMA, to_linear(made.double().numpy()), (0, 1))
    clear = abs(light - HIDES_AT) > 1e-4
    assert ((light >= HIDES_AT) == mask[:, 0].numpy())[clear].all()
    assert 0 < mask.double().mean() < 0.5
    # What is covered has lost contrast in the dark: two shadows are hardly told apart.
    lighter, _ = aged(LightLeak(), torch.full((30, 3, 48, 64), 0.2))
    apart = (lighter - made).mean(1, keepdim=True)
    assert apart[mask].mean() < 0.5 * 0.2


def test_severity_zero_lets_no_light_in():
    x = torch.rand(8, 3, 20, 30)
    made, mask = aged(LightLeak(), x, severity=0.0)
    assert torch.equal(made, x)
    assert mask is not None
    assert not mask.any()


def test_more_severe_is_more_light():
    x = torch.full((30, 1, 48, 64), 0.2)
    means = [float(aged(LightLeak(), x, severity=s)[0].mean()) for s in (0.0, 0.3, 1.0, 3.0)]
    assert means == sorted(means)
    assert means[0] == pytest.approx(0.2)


@pytest.mark.parametrize("place", [(0, 0), (30, 50)])
def test_a_window_leaks_as_the_whole_does(place):
    top, left = place
    x = torch.rand(4, 3, 64, 96)
    whole = scene(torch.arange(4), size=(64, 96))
    drawn = LightLeak().sample(whole)
    expected, expected_mask = LightLeak().apply(x, drawn, whole)
    window = scene(torch.arange(4), size=(64, 96), top=top, left=left)
    made, mask = LightLeak().apply(x[..., top : top + 30, left : left + 40], drawn, window)
    part = (..., slice(top, top + 30), slice(left, left + 40))
    assert torch.allclose(made, expected[part], rtol=0, atol=1e-5)
    assert mask is not None
    assert expected_mask is not None
    assert (mask == expected_mask[part]).double().mean() >= 0.999


@pytest.mark.parametrize("count", [0, 5])
def test_the_number_of_blobs_is_checked(count):
    with pytest.raises(ValueError, match=f"num_blobs must be from 1 to 4, got {count}"):
        LightLeak(num_blobs=count)


def test_ranges_are_checked():
    with pytest.raises(ValueError, match="depth"):
        LightLeak(depth=(0.0, 0.3))
