"""Endless textures: they tile exactly, and depend on their arguments alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from agedphoto.synth import endless
from agedphoto.synth.dirt import dirt_map
from agedphoto.synth.dust import dust_map
from agedphoto.synth.endless import ENDLESS_FAMILIES, endless_textures
from agedphoto.synth.hairs import hairs_map
from agedphoto.synth.scratches import LINE_DRAWS, draw_lines, scratches_map
from agedphoto.textures import TextureBank

COVERED = 13
"""The first grey level of opacity 0.05 or more."""


@pytest.fixture(scope="module")
def bank() -> TextureBank:
    return endless_textures(3, 5, count=24, size_px=320)


def alike(count: int, **numbers: float) -> dict[str, Any]:
    """The same numbers for each of some photographs."""
    return {name: torch.full((count,), value) for name, value in numbers.items()}


def labelled(marked: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected marks, diagonal neighbours among them; return how many there are."""
    labels: Any = ndimage.label(marked, np.ones((3, 3)))
    return labels[0], labels[1]


def sheet_of(size_px: int, count: int = 3) -> endless._Sheet:
    return endless._Sheet(
        keys=torch.arange(count), op=1, size=(size_px, size_px), severity=torch.ones(count),
        num_cells=max(1, round(size_px / 64)),
    )  # fmt: skip


def test_same_arguments_same_bank_other_arguments_others(bank):
    assert endless_textures(3, 5, count=24, size_px=320).fingerprint == bank.fingerprint
    others = [endless_textures(*both, count=4, size_px=320) for both in ((3, 6), (4, 5))]
    maps = {t.numpy().tobytes() for b in (bank, *others) for t in b.textures}
    assert len(maps) == 32


def test_a_small_bank_is_the_start_of_a_large_one(bank):
    small = endless_textures(3, 5, count=5, size_px=320)
    assert small.fingerprint == bank.subset(range(5)).fingerprint


def test_groups_change_nothing(bank, monkeypatch):
    monkeypatch.setattr(endless, "_AT_ONCE_PX", 1)
    assert endless_textures(3, 5, count=6, size_px=320).fingerprint == (
        bank.subset(range(6)).fingerprint
    )


def test_names_tell_family_and_number(bank):
    assert bank.names[:5] == (
        "dust-0000",
        "hairs-0001",
        "scratches-0002",
        "mixed-0003",
        "dust-0004",
    )
    some = endless_textures(0, 0, count=3, size_px=64, families=("mixed", "dust"))
    assert some.names == ("mixed-0000", "dust-0001", "mixed-0002")
    assert some.darkening == frozenset()
    assert endless_textures(0, 0, count=1, size_px=64, families="hairs").names == ("hairs-0000",)


@pytest.mark.parametrize("size_px", [64, 100, 256])
@pytest.mark.parametrize("draw", [dust_map, dirt_map, hairs_map])
def test_strewn_marks_tile_in_every_direction(draw, size_px):
    sheet = sheet_of(size_px)
    given = alike(3, density=3.0, film_px=0.3, opacity=0.5, soft_px=1.2, clustering=0.6)
    whole = draw(sheet, size_px, size_px, **given)
    assert whole.max() > 0.1
    moved = draw(replace(sheet, top=-37, left=21), size_px, size_px, **given)
    torch.testing.assert_close(moved, whole.roll((37, -21), (2, 3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size_px", [64, 101, 200])
def test_scratches_are_folded_without_a_seam(size_px):
    sheet = sheet_of(size_px, 6)
    given = alike(6, density=400.0, film_px=0.4, opacity=0.7)
    upright, soft_px = torch.arange(6) < 3, torch.full((6,), 1.2)
    folded = endless._scratches(sheet, **given, upright=upright, soft_px=soft_px)
    assert folded.max() > 0.2
    # The same ones on a plane of sixteen squares, where none can reach the border.
    plane = replace(sheet, repeats=False, top=-2 * size_px, left=-2 * size_px)
    lines = draw_lines(
        plane, plane.uniform(LINE_DRAWS), **given, upright=upright, long=0.1, within=True
    )
    wide = scratches_map(plane, 4 * size_px, 4 * size_px, lines, soft_px=soft_px)
    expected = wide.unflatten(3, (4, size_px)).unflatten(2, (4, size_px)).amax((2, 4))
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-4)
    assert (wide[:, :, 0] == 0).all()
    assert (wide[..., 0] == 0).all()


def test_the_seam_is_like_any_other_row(bank):
    t = bank.textures.double().numpy()
    for axis in (1, 2):
        step = np.abs(t - np.roll(t, 1, axis)).mean(tuple({0, 1, 2} - {axis}))
        assert step[0] <= np.quantile(step, 0.99)


def test_the_ground_is_black_and_the_coverage_that_of_film(bank):
    assert int(bank.textures.flatten(1).median(1).values.max()) == 0
    covered = (bank.textures >= COVERED).float().mean((1, 2))
    # 0.2 to 2.5 % of a frame are within outlines; soft rims and finer specks come on top.
    assert covered.min() > 0.001
    assert 0.008 < covered.median() < 0.04
    assert covered.max() < 0.12
    assert covered.max() > 4 * covered.min()


def test_families_differ_in_shape(bank):
    long_share = {}
    for family in ENDLESS_FAMILIES:
        inside = of_long = 0
        for t in bank.textures[bank.choose((family,))].numpy():
            labels, count = labelled(t >= COVERED)
            boxes = ndimage.find_objects(labels)
            extent = np.array([max(s.stop - s.start for s in box) for box in boxes])
            area = ndimage.sum_labels(labels > 0, labels, np.arange(1, count + 1))
            inside, of_long = inside + area.sum(), of_long + area[extent >= 16].sum()
        long_share[family] = of_long / inside
    assert long_share["dust"] < 0.4
    assert long_share["hairs"] > long_share["dust"] + 0.2
    assert long_share["scratches"] > long_share["dust"] + 0.15


def test_marks_are_as_large_at_any_size():
    share = []
    for count, size_px in ((48, 128), (12, 256)):
        made = endless_textures(1, 1, count=count, size_px=size_px, families="dust")
        share.append((made.textures >= COVERED).float().mean().item())
    assert share[0] == pytest.approx(share[1], rel=0.4)


def test_the_callers_generator_is_left_alone():
    before = torch.get_rng_state()
    endless_textures(0, 0, count=4, size_px=64)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_the_gpu_makes_the_same(bank):
    made = endless_textures(3, 5, count=24, size_px=320, device="cuda")
    assert made.textures.is_cuda
    apart = (made.textures.cpu().int() - bank.textures.int()).abs()
    assert (apart <= 1).float().mean() >= 0.999


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "count must be .* got 0"),
        ({"size_px": 63}, "size_px must be .* at least 64, got 63"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"epoch": 2**32}, "epoch must be .* got 4294967296"),
        ({"families": ("dust", "mould")}, "families must be .*dust, hairs.* got 'mould'"),
        ({"families": ()}, "families must be .* got none"),
    ],
)
def test_bad_arguments_are_named_with_their_value(wrong, words):
    with pytest.raises(ValueError, match=words):
        endless_textures(**{"seed": 0, "epoch": 0, "count": 1, "size_px": 64, **wrong})
