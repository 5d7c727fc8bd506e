"""Peeling: as much as asked for, in flakes, more along the edges, with a lip."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.peel import Peeling, edge_distance_px, peel, slope

SIZE = (192, 256)
COUNT = 24


def peeled(x: torch.Tensor, **changed: float) -> tuple[torch.Tensor, torch.Tensor]:
    values = {
        "area": 0.1, "edges": 0.0, "flake_px": 16.0, "relief": 0.0, "angle": 1.0, "light": 0.9,
        "warmth": 0.0,
    } | changed  # fmt: skip
    there = scene(torch.arange(len(x)), size=(x.shape[2], x.shape[3]))
    return peel(x, scene=there, **{k: torch.full((len(x),), v) for k, v in values.items()})


def gray(value: float = 0.3, count: int = COUNT) -> torch.Tensor:
    return torch.full((count, 1, *SIZE), value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_area_zero_is_the_identity(dtype):
    x = torch.rand(2, 3, *SIZE, dtype=torch.float64).to(dtype)
    aged, mask = peeled(x, area=0.0, relief=1.0, edges=2.0)
    assert torch.equal(aged, x)
    assert not mask.any()


@pytest.mark.parametrize("edges", [0.0, 1.5])
def test_as_much_is_gone_as_asked_for(edges):
    gone = [
        peeled(gray(), area=area, edges=edges)[0].gt(0.6).float().mean().item()
        for area in (0.02, 0.1, 0.25)
    ]
    # On average over prints; 24 of them are off by a third at times.
    assert gone == pytest.approx([0.02, 0.1, 0.25], rel=0.5)
    assert gone == sorted(gone)


def test_more_is_gone_along_the_edges():
    away = edge_distance_px(scene(torch.arange(1), size=SIZE), *SIZE)
    rim = away < 12
    for edges, least, most in ((0.0, 0.3, 2.5), (2.0, 4.0, 1000.0)):
        mask = peeled(gray(), edges=edges)[1][:, 0].float()
        assert least < mask[:, rim].mean() / mask[:, away > 40].mean() < most


def test_edge_distance_counts_from_the_outermost_pixel():
    there = scene(torch.arange(1), size=(7, 9), top=2, left=1)
    row, column = np.mgrid[2:6, 1:9]
    expected = np.minimum.reduce([row, 6 - row, column, 8 - column])
    assert np.array_equal(edge_distance_px(there, 4, 8), expected)


def test_the_bare_support_has_its_own_lightness():
    for light in (0.0, 0.9):
        aged, _ = peeled(gray(0.5), light=light)
        bare = aged[(aged - 0.5).abs() > 0.35]
        assert bare.numel() > 0
        assert bare.mean() == pytest.approx(light, abs=0.06)


def test_flakes_come_off_whole():
    # Most of what borders the loss lies on borders between flakes: with large flakes there are
    # long straight pieces of outline, so the outline is shorter for as much loss.
    lengths = []
    for flake_px in (8.0, 40.0):
        bare = (peeled(gray(), flake_px=flake_px, area=0.2)[0] > 0.6).float()
        outline = sum(torch.diff(bare, dim=d).abs().sum() for d in (2, 3))
        lengths.append(outline / bare.sum())
    assert lengths[0] > 1.4 * lengths[1]


def test_the_lip_is_lit_on_one_side_and_shadowed_on_the_other():
    x = gray(0.3)
    for angle, dim in ((0.0, 3), (np.pi / 2, 2)):
        # Flakes are turned along with the light.
        flat, mask = peeled(x, angle=angle)
        lit, same = peeled(x, angle=angle, relief=1.0)
        assert torch.equal(mask, same)
        change = lit - flat
        assert change.max() > 0.1
        assert change.min() < -0.1
        step = torch.diff(mask.float(), dim=dim)
        before = change.narrow(dim, 0, step.shape[dim])
        # The last of the layer before a gap, and the last of the gap before the layer.
        assert before[step > 0].mean() > 0.02
        assert before[step < 0].mean() < -0.02


def test_slope_is_the_difference_over_the_reach():
    layer = torch.rand(1, 1, 9, 11)
    down, right = slope(layer, 2)
    one = np.pad(layer[0, 0].numpy(), 2, mode="edge")
    assert np.array_equal(down[0, 0], one[4:, 2:-2] - one[:-4, 2:-2])
    assert np.array_equal(right[0, 0], one[2:-2, 4:] - one[2:-2, :-4])


def test_severity_spreads_the_loss_to_a_quarter_of_the_print_at_most():
    keys = torch.arange(400)
    areas = [Peeling().sample(scene(keys, size=SIZE, severity=s))["area"] for s in (0.5, 1.0, 9.0)]
    assert torch.allclose(areas[0], 0.5 * areas[1])
    assert areas[2].max() == 0.25
    assert areas[1].min() >= 0.005


@pytest.mark.parametrize("wrong", [{"area": (0.0, 0.9)}, {"flake_px": (1.0, 9.0)}])
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Peeling(**wrong)
