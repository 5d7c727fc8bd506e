"""Worn edges: a strip along the rim, a yellowed band beside it, rounded corners."""

import math

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.edges import EdgeWear, depth_px, wear_edges

SIZE = (180, 240)
COUNT = 6


def worn(x: torch.Tensor, **changed: float) -> tuple[torch.Tensor, torch.Tensor]:
    values = {
        "width_px": 0.0, "radius_px": 0.0, "rim": 0.0, "light": 0.9, "warmth": 0.0,
        "backdrop": 0.0,
    } | changed  # fmt: skip
    there = scene(torch.arange(len(x)), size=(x.shape[2], x.shape[3]))
    return wear_edges(x, scene=there, **{k: torch.full((len(x),), v) for k, v in values.items()})


def gray(channels: int = 1) -> torch.Tensor:
    return torch.full((COUNT, channels, *SIZE), 0.4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_no_width_no_radius_and_no_rim_change_nothing(dtype):
    x = torch.rand(2, 3, *SIZE, dtype=torch.float64).to(dtype)
    aged, mask = worn(x)
    assert torch.equal(aged, x)
    assert not mask.any()


def test_depth_is_the_distance_to_a_rectangle_with_round_corners():
    there = scene(torch.arange(1), size=(20, 30), top=3, left=2)
    depth = depth_px(there, 10, 12, torch.full((1, 1, 1, 1), 6.0))[0, 0]
    row, column = np.mgrid[3:13, 2:14] + 0.5
    to_edge = np.minimum.reduce([row, 20 - row, column, 30 - column])
    round_off = 6 - np.hypot(6 - row, 6 - column)
    expected = np.where((row < 6) & (column < 6), round_off, to_edge)
    assert np.allclose(depth, expected, atol=1e-5)


def test_corners_are_round_and_lie_on_the_backdrop():
    aged, mask = worn(gray(), radius_px=40.0)
    gone = aged < 0.2
    # What a square lacks to a quarter of a circle, four times.
    lost = (4 - math.pi) * 40**2
    assert gone.sum((1, 2, 3)).float().mean() == pytest.approx(lost, rel=0.05)
    assert torch.equal(gone, mask & gone)
    assert (aged[:, :, 90, 120] == 0.4).all()


def test_the_strip_is_as_wide_as_asked_for_and_ragged():
    aged, mask = worn(gray(), width_px=6.0)
    bare = (aged > 0.7)[:, 0, :, 60:180].float()
    widths = torch.cat((bare[:, :90].sum(1), bare[:, 90:].sum(1)))
    assert widths.mean() == pytest.approx(6.0, abs=2.0)
    assert widths.std() > 1.5
    assert mask[aged > 0.7].all()
    assert not mask[..., 60:120, 60:180].any()


def test_corners_wear_more_than_edges():
    mask = worn(gray(), width_px=4.0, radius_px=6.0)[1].float()
    diagonal = mask[:, 0, torch.arange(20), torch.arange(20)].sum(1).mean() * math.sqrt(2)
    edge = mask[:, 0, :20, 100:140].sum(1).mean()
    assert diagonal > 1.3 * edge


def test_the_rim_yellows_inwards_and_hides_nothing():
    x = gray(3)
    aged, mask = worn(x, rim=1.0, width_px=2.0, light=0.8)
    yellow = (aged - x)[:, 0] - (aged - x)[:, 2]
    yellow = yellow.masked_fill(mask[:, 0], 0)
    profile = [yellow[:, a:b, 60:180].mean() for a, b in ((6, 9), (12, 15), (30, 40))]
    assert profile[0] > profile[1] > profile[2] >= 0
    assert profile[0] > 0.001
    assert not mask[..., 20:160, 20:220].any()


def test_severity_widens_strip_and_corners():
    keys = torch.arange(300)
    mild, bad = (EdgeWear().sample(scene(keys, size=SIZE, severity=s)) for s in (0.25, 1.0))
    for name in ("width_px", "radius_px", "rim"):
        assert torch.allclose(mild[name], 0.25 * bad[name])
    worst = EdgeWear().sample(scene(keys, size=SIZE, severity=50.0))
    assert worst["width_px"].max() == pytest.approx(0.012 * 240)
    assert worst["radius_px"].max() <= 0.25 * 240
    assert worst["rim"].max() == 1


@pytest.mark.parametrize("wrong", [{"width": (0.0, 0.5)}, {"radius": (0.1, 0.0)}])
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EdgeWear(**wrong)
