"""Dirt: its sizes, numbers and shapes as SciPy measures them; the laws are in `test_dust`."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from agedphoto.synth.dirt import Dirt, dirt_map
from agedphoto.synth.dust import dust_map
from agedphoto.synth.hairs import hairs_map
from agedphoto.synth.scene import Scene

SIDE = 768


@pytest.fixture(scope="module")
def flakes() -> torch.Tensor:
    """Dirt three times as dense as on the mean frame, at the scale of film, alike in opacity."""
    scene = Scene(keys=torch.arange(10), op=4, size=(SIDE, SIDE), severity=torch.ones(10))
    given = alike(10, density=3.0, film_px=1.0, opacity=0.5, soft_px=1.0, clustering=0.0)
    return dirt_map(scene, SIDE, SIDE, **given, most_film_px=1.0)[:, 0]


def alike(count: int, **numbers: float) -> dict[str, Any]:
    """The same numbers for each of some photographs."""
    return {name: torch.full((count,), value) for name, value in numbers.items()}


def labelled(marked: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected marks, diagonal neighbours among them; return how many there are."""
    labels: Any = ndimage.label(marked, np.ones((3, 3)))
    return labels[0], labels[1]


def shapes(layer: torch.Tensor) -> list[np.ndarray]:
    """Connected marks, each to 0.4 of its own peak, as coordinates of their pixels."""
    found = []
    for sheet in layer.numpy():
        labels, _ = labelled(sheet > 0.03)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            if all(side.start > 0 and side.stop < SIDE for side in box):
                own = np.where(labels[box] == number, sheet[box], 0.0)
                found.append(np.argwhere(own >= 0.4 * own.max()))
    return found


def test_dirt_has_the_size_and_number_of_film_dirt(flakes):
    areas = np.array([len(shape) for shape in shapes(flakes)])
    assert np.median(areas) == pytest.approx(120, rel=0.15)
    assert np.percentile(areas, 90) == pytest.approx(300, rel=0.3)
    assert areas.max() > 700
    # 270 flakes and 12 clots a frame.
    assert len(areas) == pytest.approx(3 * 282 * 10 * SIDE**2 / (5000 * 3420), rel=0.15)


def test_flakes_are_longer_than_wide_but_no_hairs(flakes):
    ratios = []
    for shape in shapes(flakes):
        if len(shape) > 40:
            low, high = np.linalg.eigvalsh(np.cov(shape.T))
            ratios.append((high / low) ** 0.5)
    assert np.median(ratios) == pytest.approx(1.27, rel=0.15)
    assert 1.5 < np.percentile(ratios, 95) < 2.6


@pytest.mark.parametrize("draw", [dust_map, dirt_map, hairs_map])
def test_no_mark_is_cut_at_the_border_of_its_patch(draw):
    scene = Scene(keys=torch.arange(6), op=4, size=(400, 400), severity=torch.ones(6))
    given = alike(6, density=6.0, film_px=0.4, opacity=1.0, soft_px=1.6, clustering=0.0)
    made = draw(scene, 400, 400, **given)
    torch.testing.assert_close(draw(scene, 400, 400, **given, most_film_px=0.6), made)


def test_dirt_is_uneven_in_thickness(flakes):
    deviations = []
    for sheet in flakes.numpy():
        labels, _ = labelled(sheet > 0.03)
        inner = ndimage.binary_erosion(sheet > 0.03, iterations=5) * labels
        for number in np.unique(inner)[1:]:
            own = sheet[inner == number]
            if len(own) > 60:
                deviations.append(own.std() / own.mean())
    assert len(deviations) > 20
    assert 0.03 < np.median(deviations) < 0.3


def test_dirt_takes_the_fields_of_marks():
    assert Dirt(dark=1.0, density=(0.0, 8.0)).dark == 1.0
    with pytest.raises(ValueError, match="clustering must be a pair"):
        Dirt(clustering=(0.0, 3.0))
