"""Foxing: spots of the profile, number and size asked for, in clusters."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy import ndimage

from agedphoto.synth.foxing import FAR, Foxing, crowding, spot, spots_density
from agedphoto.synth.marks import find_marks


def test_a_spot_is_dense_in_the_centre_and_ends():
    distance = torch.linspace(0, FAR, 301)
    for halo in (0.0, 0.4, 1.0):
        made = spot(distance.square()[None, None, None], halo=torch.tensor([halo]))[0, 0, 0]
        d2, end = distance.double().numpy() ** 2, FAR**2
        core = (np.exp(-d2) - np.exp(-end)) / (1 - np.exp(-end))
        wide = (np.exp(-d2 / 4) - np.exp(-end / 4)) / (1 - np.exp(-end / 4))
        assert np.allclose(made.numpy(), (1 - halo) * core + halo * wide, rtol=0, atol=1e-5)
        assert made[0] == pytest.approx(1.0)
        assert made[-1] == pytest.approx(0.0, abs=1e-6)
        assert (made.diff() <= 0).all()


@pytest.mark.parametrize("unevenness", [0.0, 1.0])
def test_crowding_is_one_on_average(unevenness):
    there = scene(torch.arange(64), size=(512, 512), op=2)
    marks = find_marks(
        there, 512, 512, cell_px=16.0, per_cell=1, num_draws=1, reach_px=0.0, plane=9
    )
    crowd = crowding(
        there, marks, 512, 512, reach_px=0.0, period_px=60.0,
        unevenness=torch.full((64,), unevenness), plane=50,
    )  # fmt: skip
    assert crowd.mean() == pytest.approx(1.0, abs=0.08)
    assert crowd.log().std() == pytest.approx(unevenness, rel=0.15)


def label(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected parts."""
    marked, number = ndimage.label(picture)  # type: ignore[misc]
    return marked, number


def counts(per_mpx: float, unevenness: float) -> np.ndarray:
    """Count the spots in squares of 128 px."""
    defect = Foxing(
        per_mpx=(per_mpx, per_mpx), unevenness=(unevenness, unevenness), radius_px=(1.5, 1.5)
    )
    there = scene(torch.arange(6), size=(512, 512), op=4)
    density = spots_density(defect.sample(there), there, 512, 512, most_px=1.5)
    found = []
    for picture in density[:, 0].numpy():
        marked, number = label(picture > 0)
        for row, column in ndimage.center_of_mass(picture, marked, range(1, number + 1)):
            found.append((len(found), int(row) // 128 * 4 + int(column) // 128))
        found.append((0, -1))
    squares, photo = np.zeros((6, 16)), 0
    for _, square in found:
        if square < 0:
            photo += 1
        else:
            squares[photo, square] += 1
    return squares


def test_spots_are_as_many_as_asked():
    made = counts(400.0, 0.0)
    # The few that touch another are counted as one.
    assert made.mean() == pytest.approx(400 / 64, rel=0.12)
    assert made.var() / made.mean() < 1.6


def test_spots_come_in_clusters():
    made = counts(400.0, 1.5)
    assert made.var() / made.mean() > 2.5


def test_sizes_vary_tenfold_and_grow_with_the_scan():
    defect = Foxing(per_mpx=(80.0, 80.0), unevenness=(0.0, 0.0))

    def areas(side: int) -> np.ndarray:
        there = scene(torch.arange(2), size=(side, side), op=4)
        most = defect.radius_px[1] * there.scale
        density = spots_density(defect.sample(there), there, side, side, most_px=most)
        found = []
        for picture in density[:, 0].numpy():
            marked, number = label(picture > 0.02)
            found.extend(ndimage.sum_labels(picture > 0.02, marked, range(1, number + 1)))
        return np.array(found)

    nominal, finer = areas(1024), areas(1536)
    assert len(finer) == pytest.approx(len(nominal), rel=0.1)
    assert np.median(finer) == pytest.approx(2.25 * np.median(nominal), rel=0.2)
    assert np.percentile(nominal, 98) > 15 * np.percentile(nominal, 10)


def test_spots_are_brown():
    there = scene(torch.arange(4), size=(256, 256), op=4)
    defect, x = Foxing(per_mpx=(800.0, 800.0)), torch.full((4, 3, 256, 256), 0.9)
    aged, mask = defect.apply(x, defect.sample(there), there)
    assert mask is not None
    red, green, blue = aged.unbind(1)
    spots = mask[:, 0]
    assert (aged <= x).all()
    assert (red[spots] > green[spots]).all()
    assert (green[spots] > blue[spots]).all()
