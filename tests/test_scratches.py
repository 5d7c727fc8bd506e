"""Scratches: their lengths, numbers and colours; the laws are in `test_dust`."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from agedphoto.synth.scene import Scene
from agedphoto.synth.scratches import (
    LINE_DRAWS,
    LINES,
    PLACES,
    Scratches,
    depth_colour,
    draw_lines,
    scratches_map,
)


def scene_of(count: int, size: tuple[int, int]) -> Scene:
    return Scene(keys=torch.arange(count), op=3, size=size, severity=torch.ones(count))


def alike(count: int, **numbers: float) -> dict[str, Any]:
    """The same numbers for each of some photographs."""
    return {name: torch.full((count,), value) for name, value in numbers.items()}


def labelled(marked: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected marks, diagonal neighbours among them; return how many there are."""
    labels: Any = ndimage.label(marked, np.ones((3, 3)))
    return labels[0], labels[1]


def one_line(**changes: float) -> dict[str, torch.Tensor]:
    """A single scratch, level and without gaps."""
    line = {
        "x": 100.0, "y": 60.0, "heading": 0.0, "length": 120.0, "width_px": 3.0, "bow": 0.0,
        "opacity": 0.8, "bias": 9.0,
    } | changes  # fmt: skip
    lines = {name: torch.full((1, LINES), value) for name, value in line.items()}
    lines["opacity"][:, 1:] = 0.0
    return lines


@pytest.fixture(scope="module")
def lines() -> dict[str, Any]:
    """Those of two thousand photographs that show much more than a frame."""
    scene = scene_of(2000, (6000, 8000))
    given = alike(2000, density=1.0, film_px=0.3, opacity=0.5)
    return draw_lines(
        scene, scene.uniform(LINE_DRAWS), upright=torch.arange(2000) % 2 == 0, long=0.0,
        within=True, **given,
    )  # fmt: skip


def test_scratches_have_the_length_and_width_of_those_on_film(lines):
    film = 0.3 * 8000 / 1024
    there = lines["opacity"][:, :PLACES] > 0
    lengths = lines["length"][:, :PLACES][there] / film
    widths = lines["width_px"][:, :PLACES][there] / film
    assert lengths.median() == pytest.approx(249, rel=0.15)
    assert lengths.quantile(0.25) == pytest.approx(147, rel=0.15)
    assert lengths.quantile(0.75) == pytest.approx(421, rel=0.15)
    assert widths.median() == pytest.approx(0.45 * 7.9, rel=0.15)


@pytest.mark.parametrize("size", [(256, 256), (500, 1000)])
def test_a_picture_is_crossed_by_as_many_as_its_area_and_their_lengths_ask_for(size):
    count, scene = 6000, scene_of(6000, size)
    given = alike(count, density=0.5, film_px=0.3, opacity=0.5)
    drawn = draw_lines(
        scene, scene.uniform(LINE_DRAWS), upright=torch.zeros(count, dtype=torch.bool), long=0.0,
        **given,
    )  # fmt: skip
    there = drawn["opacity"][:, :PLACES] > 0
    x, y = drawn["x"][:, :PLACES], drawn["y"][:, :PLACES]
    inside = there & (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    # Middles lie as densely inside as anywhere: 6.5 on a frame of 5000 x 3420 film pixels.
    expected = 0.5 * 6.5 * size[0] * size[1] / (5000 * 3420 * 0.3**2)
    assert inside.sum() / count == pytest.approx(expected, rel=0.12)
    assert there.sum() > inside.sum()


def test_most_share_a_direction_upright_on_film(lines):
    upright = torch.arange(2000) % 2 == 0
    heading = lines["heading"][:, :PLACES]
    lean = (heading[upright] - math.pi / 2).abs()
    assert (lean < math.radians(3.5)).float().mean() == pytest.approx(0.71, abs=0.03)
    # Elsewhere any direction, but neighbours alike.
    other = heading[~upright]
    alike = (other[:, :1] - other[:, 1:]).abs() < 0.3
    assert 0.3 < alike.float().mean() < 0.7
    assert other.std() > 0.6


def test_some_are_double(lines):
    single, twin = lines["opacity"][:, :PLACES] > 0, lines["opacity"][:, PLACES:] > 0
    assert twin.sum() / single.sum() == pytest.approx(0.15, rel=0.2)
    first = {name: value[:, : LINES - PLACES] for name, value in lines.items()}
    gap = torch.hypot(lines["x"][:, PLACES:] - first["x"], lines["y"][:, PLACES:] - first["y"]) / (
        8000 / 1024
    )
    assert gap.min() >= 1.99
    assert gap.max() <= 6.01
    assert torch.equal(lines["heading"][:, PLACES:], first["heading"])


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_scratch_is_as_long_and_wide_as_asked(angle):
    layer = scratches_map(
        scene_of(1, (200, 200)), 200, 200, one_line(heading=angle, y=100.0), soft_px=torch.ones(1)
    )
    seen = layer[0, 0].numpy() > 0.1
    rows, columns = np.nonzero(seen)
    along = (columns - 100) * math.cos(angle) + (rows - 100) * math.sin(angle)
    # Its ends are thin and faint.
    assert np.ptp(along) == pytest.approx(120, abs=10)
    middle = layer[0, 0].numpy()[np.abs(_along(200, angle)) < 30].sum()
    assert middle == pytest.approx(60 * 3.0 * 0.8, rel=0.1)


def _along(side: int, angle: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return (columns - 100) * math.cos(angle) + (rows - 100) * math.sin(angle)


def test_scratches_break_up_along_their_length():
    scene = scene_of(1, (1000, 1000))
    whole = one_line(length=800.0, x=500.0, y=500.0)
    broken = whole | {"bias": torch.full((1, LINES), 0.3)}
    for lines, least, most in ((whole, 1, 1), (broken, 4, 80)):
        _, count = labelled(
            scratches_map(scene, 1000, 1000, lines, soft_px=torch.ones(1))[0, 0].numpy() > 0.1
        )
        assert least <= count <= most


def test_light_scratches_of_colour_film_go_from_white_through_green_to_yellow():
    layer = torch.tensor([0.2, 0.25, 0.625, 1.0]).expand(2, 1, 1, 4)
    colour = depth_colour(layer, 3, torch.tensor([True, False]))
    red, green, blue = colour[0, :, 0]
    assert torch.equal(colour[1], torch.ones(3, 1, 4))
    assert torch.equal(green, torch.ones(4))
    torch.testing.assert_close(red, torch.tensor([1.0, 1.0, 0.3, 1.0]))
    torch.testing.assert_close(blue, torch.tensor([1.0, 1.0, 0.15, 0.15]))
    luma = depth_colour(layer, 1, torch.tensor([True, False]))
    expected = 0.299 * colour[:, :1] + 0.587 * colour[:, 1:2] + 0.114 * colour[:, 2:]
    torch.testing.assert_close(luma, expected)


def test_only_light_scratches_are_coloured():
    scene = scene_of(6, (200, 300))
    x = torch.full((6, 3, 200, 300), 0.5)
    for dark in (0.0, 1.0):
        defect = Scratches(density=(8.0, 8.0), opacity=(1.0, 1.0), dark=dark, coloured=1.0)
        aged, mask = defect.apply(x, defect.sample(scene), scene)
        tinted = (aged.amax(1) - aged.amin(1)).amax() > 0.1
        assert bool(tinted) == (dark == 0.0)
        assert mask is not None
        assert mask.any()


@pytest.mark.parametrize("name", ["long", "upright", "dark", "coloured"])
def test_shares_are_checked(name):
    wrong: dict[str, Any] = {name: 1.5}
    with pytest.raises(ValueError, match=rf"{name} must be a share from 0 to 1, got 1\.5"):
        Scratches(**wrong)
