"""Worley's cells: the same distances that a search among all points finds."""

import numpy as np
import torch
from scenes import scene

from agedphoto.synth.philox import bits_to_uniform
from agedphoto.synth.worley import Regions, extent_of, find_regions, to_cells

KEYS = torch.tensor([5, -9])
SIZE = (60, 80)
CELL_PX = 11.0
STILL = torch.zeros(2, 2, *SIZE)


def same(value: float) -> torch.Tensor:
    return torch.full((2,), value)


def places(angle: float = 0.0, stretch: float = 1.0, **place) -> tuple[torch.Tensor, torch.Tensor]:
    there = scene(KEYS, size=SIZE, **place)
    return to_cells(there, STILL, cell_px=same(CELL_PX), angle=same(angle), stretch=same(stretch))


def regions(y: torch.Tensor, x: torch.Tensor, extent: float) -> Regions:
    return find_regions(scene(KEYS, size=SIZE), y, x, extent=extent, plane=7, valued=True)


def test_distances_are_those_of_a_search_among_all_points():
    there = scene(KEYS, size=SIZE)
    extent = extent_of(there, cell_px=CELL_PX, stretch=2.0)
    y, x = places(angle=0.6, stretch=2.0)
    found = regions(y, x, extent)
    half = int(np.ceil(extent))
    words = there.cells(-half, -half, 2 * half, 2 * half, count=3, plane=7)
    u = bits_to_uniform(words).double().numpy()
    centre = np.arange(-half, half) + 0.5
    for photo in range(2):
        down = (0.8 * (u[photo, 0] - 0.5) + centre[:, None]).ravel()
        right = (0.8 * (u[photo, 1] - 0.5) + centre).ravel()
        far = (y[photo, 0].double().numpy().ravel()[:, None] - down) ** 2
        far += (x[photo, 0].double().numpy().ravel()[:, None] - right) ** 2
        order = np.argsort(far, 1)
        nearest = np.take_along_axis(far, order[:, :1], 1)[:, 0]
        second = np.take_along_axis(far, order[:, 1:2], 1)[:, 0]
        assert found.value is not None
        assert np.allclose(found.nearest[photo].flatten(), nearest, atol=1e-4)
        off = np.abs(found.second[photo].flatten().numpy() - second)
        assert (off > 1e-4).mean() < 0.002
        value = u[photo, 2].ravel()[order[:, 0]]
        assert (found.value[photo].flatten().numpy() != value.astype(np.float32)).mean() < 0.001


def test_the_origin_is_the_middle_and_a_cell_is_so_many_pixels():
    y, x = places()
    row, column = np.mgrid[: SIZE[0], : SIZE[1]]
    assert np.allclose(y[0, 0], (row - 29.5) / CELL_PX, atol=1e-5)
    assert np.allclose(x[1, 0], (column - 39.5) / CELL_PX, atol=1e-5)


def test_turned_and_stretched_cells_have_the_same_area():
    y, x = places(angle=0.6, stretch=2.5)
    per_row = torch.stack((y[0, 0, 1, 0] - y[0, 0, 0, 0], x[0, 0, 1, 0] - x[0, 0, 0, 0]))
    per_column = torch.stack((y[0, 0, 0, 1] - y[0, 0, 0, 0], x[0, 0, 0, 1] - x[0, 0, 0, 0]))
    area = (per_row[0] * per_column[1] - per_row[1] * per_column[0]).abs()
    assert abs(1 / area.sqrt() - CELL_PX) < 0.01
    # A step along the grid's rows is 2.5 times shorter, in cells, than one across them.
    along = per_row * np.sin(0.6) + per_column * np.cos(0.6)
    across = per_row * np.cos(0.6) - per_column * np.sin(0.6)
    assert abs(across.norm() / along.norm() - 2.5) < 0.01


def test_cells_reach_beyond_the_picture_however_it_is_turned():
    there = scene(KEYS, size=SIZE)
    extent = extent_of(there, cell_px=CELL_PX, stretch=2.5)
    for angle in np.linspace(0, np.pi, 7):
        y, x = places(angle=float(angle), stretch=2.5)
        assert max(y.abs().max(), x.abs().max()) <= extent - 1.9


def test_a_border_is_halfway_between_two_points():
    y, x = places()
    found = regions(y, x, extent_of(scene(KEYS, size=SIZE), cell_px=CELL_PX))
    off = found.off_border()
    assert off.min() >= 0
    assert found.value is not None
    changes = found.value[..., :, 1:] != found.value[..., :, :-1]
    # Next to a change of region the border is at most a pixel or so off.
    assert (off[..., :, 1:][changes] * CELL_PX).max() < 2.5
    assert (off * CELL_PX).max() > 3
    assert 0.01 < changes.float().mean() < 0.3


def test_a_region_has_one_value_and_windows_agree_on_it():
    extent = extent_of(scene(KEYS, size=SIZE), cell_px=CELL_PX)
    whole = regions(*places(), extent)
    there = scene(KEYS, size=SIZE, top=13, left=22)
    y, x = to_cells(
        there, STILL[..., :20, :30], cell_px=same(CELL_PX), angle=same(0.0), stretch=same(1.0)
    )
    part = find_regions(there, y, x, extent=extent, plane=7, valued=True)
    assert whole.value is not None
    assert part.value is not None
    assert torch.equal(part.value, whole.value[..., 13:33, 22:52])
    assert torch.equal(part.second, whole.second[..., 13:33, 22:52])
    assert whole.value.unique().numel() < 2 * (8 * 10)
