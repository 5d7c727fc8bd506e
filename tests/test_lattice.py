"""Smooth noise: standard, smooth, and the same in every window; marks: the same ones."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy.interpolate import BSpline

from agedphoto.synth import smooth_noise
from agedphoto.synth.marks import around, find_marks, lay
from agedphoto.synth.philox import cell_bits, normal_field

KEYS = torch.tensor([5, -7, 2**61])


def noise(height: int, width: int, top: int = 0, left: int = 0, **options) -> torch.Tensor:
    there = scene(KEYS, op=3, size=(5000, 5000), top=top, left=left)
    return smooth_noise(there, height, width, **({"period_px": 11.3, "plane": 7} | options))


def test_noise_is_the_cubic_spline_of_its_lattice():
    made = noise(9, 14, top=100, left=50)[1, 0].numpy()
    points = normal_field(KEYS, op=3, planes=1, height=40, width=40, plane=7)[1, 0].numpy()
    spline = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)

    def weight(t: float) -> float:
        return 0.0 if abs(t) >= 2 else float(spline(t))

    for row, column in [(0, 0), (3, 13), (8, 5)]:
        y, x = (100 + row) / 11.3, (50 + column) / 11.3
        value = sum(
            weight(y - i) * weight(x - j) * points[i, j] for i in range(30) for j in range(30)
        )
        assert made[row, column] == pytest.approx(value / (151 / 315), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"octaves": 3, "planes": 2}, {"stretch": 3.0}])
def test_a_window_of_noise_is_what_the_whole_has_there(options):
    whole = noise(90, 120, **options)
    for top, left, height, width in [(0, 0, 5, 7), (31, 64, 40, 56), (89, 119, 1, 1)]:
        window = noise(height, width, top, left, **options)
        expected = whole[..., top : top + height, left : left + width]
        assert torch.allclose(window, expected, rtol=0, atol=2e-5)
    # Far out, too: positions are counted from the window, not from the corner of the picture.
    far = noise(60, 60, 40_000, 70_000, **options)
    near = noise(20, 20, 40_020, 70_030, **options)
    assert torch.allclose(near, far[..., 20:40, 30:50], rtol=0, atol=5e-4)


def test_noise_is_standard_and_smooth():
    many = torch.arange(400)
    there = scene(many, op=3, size=(64, 64))
    made = smooth_noise(there, 64, 64, period_px=8.0, plane=0, octaves=2)
    assert made.mean().abs() < 0.02
    assert made.std() == pytest.approx(1.0, abs=0.02)
    once = smooth_noise(there, 64, 64, period_px=32.0, plane=0)
    assert once.diff(dim=-1).abs().mean() < 0.06


def test_noise_does_not_depend_on_the_batch():
    whole = noise(40, 50, octaves=3)
    for number, key in enumerate(KEYS):
        there = scene(key[None], op=3, size=(5000, 5000))
        alone = smooth_noise(there, 40, 50, period_px=11.3, plane=7, octaves=3)
        assert torch.equal(alone[0], whole[number])


def test_fields_go_on_in_every_direction():
    whole = normal_field(KEYS, op=2, planes=2, height=20, width=30, top=-7, left=-9, plane=4)
    part = normal_field(KEYS, op=2, planes=1, height=5, width=6, top=-2, left=3, plane=5)
    assert torch.equal(part[:, 0], whole[:, 1, 5:10, 12:18])
    cells = cell_bits(KEYS, op=2, count=6, height=6, width=8, top=-3, left=-4, plane=9)
    some = cell_bits(KEYS, op=2, count=3, height=2, width=2, top=1, left=-1, plane=9)
    assert torch.equal(some, cells[:, :3, 4:6, 3:5])


def discs(height: int, width: int, top: int = 0, left: int = 0) -> torch.Tensor:
    there = scene(KEYS, op=3, size=(400, 400), top=top, left=left)
    marks = find_marks(
        there, height, width, cell_px=16.5, per_cell=2, num_draws=2, reach_px=6.0, plane=40
    )
    dx, dy = around(marks, 6)
    radius = 1 + 4 * marks.u[:, :, :1, None]
    shown = (marks.u[:, :, 1:, None] < 0.5) * (radius - (dx**2 + dy**2).sqrt()).clamp(0, 1)
    return lay(shown, marks, height, width)


def test_marks_are_the_same_in_every_window():
    whole = discs(120, 150)
    assert 0.05 < whole.mean() < 0.5
    for top, left, height, width in [(0, 0, 10, 10), (33, 70, 64, 48), (100, 0, 20, 150)]:
        window = discs(height, width, top, left)
        expected = whole[..., top : top + height, left : left + width]
        assert torch.allclose(window, expected, rtol=0, atol=2e-5)


def test_what_is_laid_lies_where_its_mark_is():
    marks = find_marks(
        scene(KEYS[:1], size=(40, 40)),
        40, 40, cell_px=40.0, per_cell=1, num_draws=1, reach_px=0.0, plane=0,
    )  # fmt: skip
    dx, dy = around(marks, 3)
    made = lay(((dx.abs() < 0.51) & (dy.abs() < 0.51)).float(), marks, 40, 40)
    expected = torch.zeros(40, 40)
    for x, y in zip(marks.x[0].round().long(), marks.y[0].round().long(), strict=True):
        if 0 <= x < 40 and 0 <= y < 40:
            expected[y, x] = 1
    assert torch.equal(made[0, 0], expected)
