"""Uneven light: the cos**4 law, corners where the frame has them, and exposures along an S."""

import math

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.vignette import GAMMA, PAPER, UnevenExposure, Vignette, expose, vignette

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_loss_and_no_stops_return_the_picture(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    there = torch.rand(2, 1, 9, 7, device=device)
    two = torch.full((2,), 2.0, device=device)
    assert torch.equal(vignette(x, loss=0 * two, power=two, radius=there), x)
    made = expose(x, stops=torch.zeros(2, 1, 9, 7, device=device))
    assert torch.equal(made, x)
    assert made.dtype == dtype


def test_power_two_is_the_fourth_power_of_the_cosine():
    # Light off the axis by an angle falls as cos(angle)**4; the corner is at 40 degrees here.
    corner = math.radians(40)
    radius = torch.linspace(0, 1, 9).view(1, 1, 1, 9)
    loss = torch.tensor([1 - math.cos(corner) ** 4])
    made = vignette(torch.ones(1, 1, 1, 9), loss=loss, power=torch.tensor([2.0]), radius=radius)
    angles = np.arctan(radius.flatten().numpy() * math.tan(corner))
    assert np.allclose(made.flatten().numpy() ** GAMMA, np.cos(angles) ** 4, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(60, 90), (90, 40), (1, 30)])
def test_the_corner_of_the_frame_loses_what_is_asked_for(size):
    defect = Vignette(loss=(0.6, 0.6), off_centre=(0.0, 0.0))
    there = scene(torch.arange(4), size=size)
    made, mask = defect.apply(torch.ones(4, 1, *size), defect.sample(there), there)
    assert mask is None
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        light = made[:, 0, corner[0], corner[1]] ** GAMMA
        assert light.tolist() == pytest.approx([0.4] * 4, abs=1e-4)
    middle = made[:, 0, size[0] // 2, size[1] // 2]
    assert (middle > 0.99).all()


def test_corners_of_a_window_are_not_those_of_the_picture():
    keys, x = torch.arange(3), torch.rand(3, 3, 64, 80)
    whole = scene(keys, size=(64, 80))
    drawn = Vignette().sample(whole)
    expected = Vignette().apply(x, drawn, whole)[0][..., 16:48, 32:72]
    window = scene(keys, size=(64, 80), top=16, left=32)
    made = Vignette().apply(x[..., 16:48, 32:72], drawn, window)[0]
    assert torch.allclose(made, expected, rtol=0, atol=1e-6)


def test_the_axis_misses_the_centre_by_at_most_what_is_asked_for():
    drawn = Vignette(off_centre=(0.02, 0.08)).sample(scene(torch.arange(2000), size=(9, 9)))
    away = torch.hypot(drawn["down"], drawn["right"])
    assert away.min() >= 0.0199
    assert away.max() <= 0.0801
    assert drawn["down"].mean().abs() < 0.005


def test_exposure_moves_along_a_logistic_curve():
    x = torch.linspace(0.01, 0.99, 50).view(1, 1, 1, 50)
    made = expose(x, stops=torch.tensor(0.7).expand(1, 1, 1, 50)).double().flatten().numpy()

    def logit(value: np.ndarray) -> np.ndarray:
        return np.log(value / (1 - value))

    shift = logit(made) - logit(x.double().flatten().numpy())
    assert shift == pytest.approx(0.7 * PAPER * math.log(2), abs=1e-4)


def test_uneven_light_leaves_black_black_and_white_white():
    defect, there = UnevenExposure(stops=(4.0, 4.0)), scene(torch.arange(5), size=(20, 30))
    drawn = defect.sample(there)
    for level in (0.0, 1.0):
        x = torch.full((5, 3, 20, 30), level)
        made, mask = defect.apply(x, drawn, there)
        assert torch.allclose(made, x, rtol=0, atol=1e-6)
        assert mask is None


def test_a_pure_tilt_is_even_along_one_direction_and_as_strong_as_asked_for():
    defect, size = UnevenExposure(stops=(0.5, 0.5), tilt=(1.0, 1.0)), (41, 61)
    there = scene(torch.arange(6), size=size)
    drawn = defect.sample(there)
    made = defect.apply(torch.full((6, 1, *size), 0.5), drawn, there)[0][:, 0].double().numpy()
    stops = np.log(made / (1 - made)) / (PAPER * math.log(2))
    half = math.hypot(40, 60) / 2
    for photo in range(6):
        down, right = np.gradient(stops[photo])
        assert np.allclose(down, down[0, 0], atol=1e-4)
        assert np.hypot(down, right).mean() * half == pytest.approx(0.5, rel=0.01)
    assert abs(stops[:, 20, 30]).max() < 1e-4


def test_patches_have_the_spread_asked_for():
    defect, size = UnevenExposure(stops=(0.4, 0.4), tilt=(0.0, 0.0)), (48, 64)
    there = scene(torch.arange(400), size=size)
    made = defect.apply(torch.full((400, 1, *size), 0.5), defect.sample(there), there)[0]
    stops = torch.logit(made.double()) / (PAPER * math.log(2))
    assert float(stops.std()) == pytest.approx(0.4, rel=0.12)
    assert float(stops.diff(dim=3).abs().max()) < 0.2


def test_severity_makes_both_stronger():
    for defect, name in ((Vignette(), "loss"), (UnevenExposure(tilt=(0.0, 0.0)), "patches")):
        drawn = [
            defect.sample(scene(torch.arange(99), size=(8, 8), severity=s))[name]
            for s in (0.0, 0.5, 1.0)
        ]
        assert torch.equal(drawn[0], torch.zeros(99))
        assert torch.allclose(2 * drawn[1], drawn[2])
    assert Vignette().sample(scene(torch.arange(99), size=(8, 8), severity=4.0))["loss"].max() < 1


@pytest.mark.parametrize(
    ("kind", "field"), [(Vignette, "loss"), (Vignette, "power"), (UnevenExposure, "tilt")]
)
def test_ranges_are_checked(kind, field):
    with pytest.raises(ValueError, match=field):
        kind(**{field: (0.5, 99.0)})
