"""Fingerprints: ridges at the period asked for, that end at the minutiae and flow about a core."""

import math

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.fingerprints import (
    NUM_MINUTIAE,
    Fingerprints,
    _spirals,
    flow,
    ridges,
)

SIDE = 240


def places() -> tuple[torch.Tensor, torch.Tensor]:
    """Right of and below the core."""
    at = torch.arange(SIDE).float() - SIDE / 2 + 0.25
    return at.expand(1, 1, SIDE, SIDE).clone(), at[:, None].expand(1, 1, SIDE, SIDE).clone()


def flows(*, lean: float, stem_px: float, delta_px: float = 70.0, deltas=(1.0, 1.0)):
    one = torch.ones(1)
    right, below = places()
    return flow(
        right, below, lean=lean * one, stem_px=stem_px * one, delta_px=delta_px * one,
        deltas=(deltas[0] * one, deltas[1] * one),
    )[0, 0]  # fmt: skip


def test_ridges_go_around_the_core_of_a_whorl():
    right, below = (part[0, 0].numpy() for part in places())
    around = np.hypot(right, below)
    near = around < 60
    made = flows(lean=0.0, stem_px=0.0).numpy()
    assert np.allclose(made[near], around[near], rtol=0, atol=1e-3)


def test_a_loop_has_straight_legs():
    made = flows(lean=1.0, stem_px=1e5, deltas=(0.0, 0.0)).numpy()
    right, below = (part[0, 0].numpy() for part in places())
    legs = (right + below > 30) & (np.abs(right - below) < 80)
    expected = np.abs(right - below) / math.sqrt(2)
    assert np.allclose(made[legs], expected[legs], rtol=0, atol=1e-2)


def test_beside_the_deltas_ridges_lie_level():
    made = flows(lean=0.0, stem_px=0.0, delta_px=40.0)
    across, down = made.diff(dim=1).abs()[150:, 200:], made.diff(dim=0).abs()[150:, 200:]
    assert across.mean() < 0.2 * down.mean()


@pytest.mark.parametrize("lean", [0.0, 0.8])
def test_ridges_keep_their_distance(lean):
    made = flows(lean=lean, stem_px=1e5)
    steep = (made.diff(dim=0)[:, 1:].square() + made.diff(dim=1)[1:].square()).sqrt()
    assert steep.median() == pytest.approx(1.0, abs=0.01)
    assert steep.quantile(0.99) < 1.05


@pytest.mark.parametrize("period", [7.0, 10.0])
def test_the_period_is_the_one_asked_for(period):
    made = flows(lean=0.0, stem_px=1e5, deltas=(0.0, 0.0))[None, None]
    wave = ridges(made, torch.zeros_like(made), period_px=torch.tensor([period]))[0, 0]
    rows = wave[SIDE // 2 + 20 :, SIDE // 2 + 10 :].numpy()
    spectrum = np.abs(np.fft.rfft(rows, 4096)).mean(0)
    assert 4096 / spectrum.argmax() == pytest.approx(period, rel=0.05)


def test_a_ridge_ends_or_forks_at_every_minutia():
    right, below = places()
    rng = np.random.default_rng(0)
    points = rng.uniform(-90, 90, (NUM_MINUTIAE, 2)).round()
    made = _spirals(right, below, torch.tensor(points).float().reshape(1, -1))[0, 0].double()
    for number, (x, y) in enumerate(points):
        others = np.delete(points, number, 0)
        if np.abs(others - (x, y)).max(1).min() < 4:
            continue
        # Around a minutia the phase gains one turn, so one ridge more lies on one side of it.
        column, row = int(x + SIDE / 2), int(y + SIDE / 2)
        around = [
            made[row + i, column + j]
            for i, j in [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
        ]
        steps = np.diff(np.array([*around, around[0]]))
        turns = ((steps + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi)
        assert turns == pytest.approx(1 if number % 2 == 0 else -1, abs=1e-4)


def test_spirals_are_sums_of_angles():
    right, below = places()
    points = torch.linspace(-100, 100, 2 * NUM_MINUTIAE)[None]
    made = _spirals(right, below, points).double().numpy()
    x, y = points[0, 0::2].double().numpy(), points[0, 1::2].double().numpy()
    signs = np.where(np.arange(NUM_MINUTIAE) % 2 == 0, 1, -1)
    expected = sum(
        sign * np.arctan2(below.double().numpy() - b, right.double().numpy() - a)
        for sign, a, b in zip(signs, x, y, strict=True)
    )
    assert np.allclose(np.cos(made), np.cos(expected), rtol=0, atol=1e-4)
    assert np.allclose(np.sin(made), np.sin(expected), rtol=0, atol=1e-4)


def test_prints_are_as_many_and_as_large_as_asked():
    defect = Fingerprints(num=(0.5, 1.5), size_px=(200.0, 300.0), darkened=0.25)
    drawn = defect.sample(scene(torch.arange(4000), size=(300, 400), op=1))
    there = drawn["cover"] > 0
    assert there.float().sum(1).mean() == pytest.approx(1.0, abs=0.04)
    assert drawn["size_px"].min() >= 200
    assert drawn["size_px"].max() <= 300
    assert drawn["row"].max() <= 300
    assert drawn["column"].max() <= 400
    dark = drawn["colour"][..., 0] < 0.5
    assert dark.float().mean() == pytest.approx(0.25, abs=0.02)
    # Two thirds of all prints are loops, with one delta.
    one = (drawn["delta_left"] + drawn["delta_right"]) == 1
    assert one.float().mean() == pytest.approx(0.65, abs=0.02)
    twice = defect.sample(scene(torch.arange(4000), size=(1536, 2048), op=1))
    assert torch.allclose(twice["period_px"], 2 * drawn["period_px"])


@pytest.mark.parametrize("darkened", [0.0, 1.0])
def test_grease_brightens_and_tarnish_darkens(darkened):
    x = torch.full((4, 3, 256, 256), 0.5)
    there = scene(torch.arange(4), size=(256, 256), op=1)
    defect = Fingerprints(num=(2.0, 2.0), darkened=darkened)
    aged, mask = defect.apply(x, defect.sample(there), there)
    assert mask is not None
    assert mask.any()
    assert not mask.all()
    assert ((aged <= x + 1e-6) if darkened else (aged >= x - 1e-6)).all()
