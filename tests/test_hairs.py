"""Hairs: their lengths, widths and curls as SciPy and scikit-image measure them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.morphology import skeletonize

from agedphoto.synth import hairs
from agedphoto.synth.hairs import Hairs, lay_pieces
from agedphoto.synth.scene import Scene

SIDE = 700
FILM = 0.6
"""Pixels to a film pixel here: wide enough for skeletons."""
SHORT, LONG, LINT = hairs._KINDS


def alike(count: int, **numbers: float) -> dict[str, Any]:
    """The same numbers for each of some photographs."""
    return {name: torch.full((count,), value) for name, value in numbers.items()}


def labelled(marked: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected marks, diagonal neighbours among them; return how many there are."""
    labels: Any = ndimage.label(marked, np.ones((3, 3)))
    return labels[0], labels[1]


def draw(kind, count: int, *, density: float) -> np.ndarray:
    """Hairs of one kind, (count, SIDE, SIDE)."""
    scene = Scene(keys=torch.arange(count), op=4, size=(SIDE, SIDE), severity=torch.ones(count))
    given = alike(count, density=density, film_px=FILM, opacity=0.8, soft_px=1.0, clustering=0.0)
    return hairs._hairs(
        scene, SIDE, SIDE, kind, **given, most_film_px=FILM, most_soft_px=1.6, plane=0
    )[:, 0].numpy()


def measure(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length along the skeleton and largest extent of the hairs that lie within, film pixels."""
    lengths, extents = [], []
    for sheet in layer:
        labels, _ = labelled(sheet > 0.15)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            if not all(side.start > 0 and side.stop < SIDE for side in box):
                continue
            own = labels[box] == number
            rim = np.argwhere(own ^ ndimage.binary_erosion(own))
            lengths.append(along(skeletonize(own)) + 0.45 * 7.0 * FILM)
            extents.append(pdist(rim).max() + 1 if len(rim) > 1 else 1.0)
    return np.array(lengths) / FILM, np.array(extents) / FILM


def along(skeleton: np.ndarray) -> float:
    """Length of a skeleton: steps aside and down, and diagonal ones that are no corner of both."""
    p = np.pad(skeleton, 1).astype(int)
    straight = (p[:, 1:] * p[:, :-1]).sum() + (p[1:] * p[:-1]).sum()
    falling = p[1:, 1:] * p[:-1, :-1] * (1 - p[1:, :-1]) * (1 - p[:-1, 1:])
    rising = p[1:, :-1] * p[:-1, 1:] * (1 - p[1:, 1:]) * (1 - p[:-1, :-1])
    # A digital line is a little longer than the line.
    return 0.95 * (straight + (falling.sum() + rising.sum()) * math.sqrt(2))


@pytest.fixture(scope="module")
def short() -> np.ndarray:
    return draw(SHORT, 4, density=4.0)


@pytest.fixture(scope="module")
def long() -> np.ndarray:
    return draw(LONG, 8, density=6.0)


def test_short_hairs_have_the_length_of_those_on_film(short):
    lengths, extents = measure(short)
    assert np.median(lengths) == pytest.approx(40, rel=0.15)
    assert np.percentile(lengths, [25, 75]) == pytest.approx([23, 68], rel=0.25)
    # Nearly straight.
    assert np.median(lengths / extents) < 1.15


def test_long_hairs_have_the_length_and_curl_of_those_on_film(long):
    lengths, extents = measure(long)
    assert np.median(lengths) == pytest.approx(142, rel=0.15)
    assert np.median(lengths / extents) == pytest.approx(1.2, rel=0.15)
    assert np.percentile(lengths / extents, 95) > 1.4


def test_hairs_are_as_many_as_on_film(short, long):
    # Those that reach in from outside are seen too: by their mean extent over pi on each side.
    for layer, expected, extent in ((short, 4 * 134, 45), (long, 6 * 40, 130)):
        count = sum(labelled(sheet > 0.1)[1] for sheet in layer)
        area = (SIDE / FILM + 2 * extent / math.pi) ** 2
        assert count == pytest.approx(expected * len(layer) * area / (5000 * 3420), rel=0.2)


def test_hairs_are_thin(short):
    # Area over length: the width of the core, 0.45 of an outline's 7.1.
    lengths, _ = measure(short)
    area = (short > 0.35).sum() / FILM**2
    assert area / lengths.sum() == pytest.approx(0.45 * 7.1, rel=0.25)


def test_lint_lies_in_tufts():
    sheets = draw(LINT, 8, density=6.0)
    counts = [labelled(sheet > 0.1)[1] for sheet in sheets]
    covered = [(sheet > 0.1).sum() for sheet in sheets]
    # Two a frame; some fall apart into a few pieces.
    tufts = 6 * 2 * 8 * (SIDE / FILM) ** 2 / (5000 * 3420)
    assert 0.5 * tufts < sum(counts) < 3 * tufts
    # Five strands of some 90 by 3 film pixels cross each other: few pieces of much area.
    assert sum(covered) / FILM**2 / sum(counts) > 300


def test_few_photographs_have_most_of_the_hairs():
    scene = Scene(keys=torch.arange(4000), op=1, size=(9, 9), severity=torch.ones(4000))
    density = Hairs().sample(scene)["density"]
    # As on the ten frames: variance over squared mean 0.8 for short and 2.0 for long hairs.
    assert density.mean() == pytest.approx(1.0, rel=0.05)
    assert 0.8 < density.var() / density.mean() ** 2 < 2.0


def test_a_chain_of_pieces_is_a_ribbon(device):
    x = torch.linspace(20.3, 80.7, 25, device=device)[None, None]
    y = 50.0 + 8.0 * (x / 9.0).sin()
    given: dict[str, Any] = {
        "half_width": torch.full_like(x, 2.0),
        "opacity": torch.full_like(x, 0.6),
        "soft": torch.full((1, 1), 1.0, device=device),
        "there": torch.ones((1, 1, 24), dtype=torch.bool, device=device),
    }
    made = lay_pieces(x, y, **given, height=100, width=100, half_px=6, most=24)[0, 0].cpu()
    rows, columns = np.mgrid[:100, :100]
    a = np.stack([x.flatten().cpu(), y.flatten().cpu()], -1)
    start, step = a[:-1], np.diff(a, axis=0)
    away = np.full((100, 100), np.inf)
    for (sx, sy), (dx, dy) in zip(start, step, strict=True):
        t = ((columns - sx) * dx + (rows - sy) * dy) / (dx * dx + dy * dy)
        t = t.clip(0, 1)
        away = np.minimum(away, np.hypot(columns - sx - t * dx, rows - sy - t * dy))
    ramp = (2.0 - away + 0.5).clip(0, 1)
    np.testing.assert_allclose(made.numpy(), 0.6 * ramp**2 * (3 - 2 * ramp), atol=1e-5)


def test_only_pieces_that_are_there_are_drawn():
    x = torch.linspace(10, 90, 21)[None, None]
    there = torch.zeros((1, 1, 20), dtype=torch.bool)
    there[..., 5] = True
    given: dict[str, Any] = {"half_width": torch.ones_like(x), "opacity": torch.ones_like(x)}
    made = lay_pieces(
        x, torch.full_like(x, 50.0), **given, soft=torch.ones(1, 1), there=there, height=100,
        width=100, half_px=6, most=4,
    )  # fmt: skip
    seen = made[0, 0].amax(0).nonzero().flatten()
    assert seen.min() >= 27
    assert seen.max() <= 37
