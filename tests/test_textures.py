"""Textures: laws of the bank, of the sheet, and of the marks as another program measures them."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import label

from agedphoto.textures import DARKENING, FAMILIES, ROTA, TextureBank
from agedphoto.textures.canvas import Sheet, generator
from agedphoto.textures.dust import Specks, splat
from agedphoto.textures.hairs import draw_hairs
from agedphoto.textures.scratches import draw_scratches
from agedphoto.textures.strokes import stroke

COVERED = 13
"""The first grey level of opacity 0.05 or more."""


WEAR = ("dust", "hairs", "scratches", "mixed", "creases")


@pytest.fixture(scope="module")
def bank() -> TextureBank:
    return TextureBank.synthesize(24, size_px=512, seed=1)


@pytest.fixture(scope="module")
def every() -> dict[str, TextureBank]:
    """Two textures of each family."""
    return {
        family: TextureBank.synthesize(2, size_px=512, seed=3, families=[family])
        for family in FAMILIES
    }


@pytest.fixture(scope="module")
def dust() -> TextureBank:
    return TextureBank.synthesize(6, size_px=1024, seed=2, families=["dust"])


@pytest.fixture
def sheet() -> Sheet:
    return Sheet(128, generator(seed=0, index=0, size_px=128, family="dust"))


def coverage(bank: TextureBank) -> np.ndarray:
    return (bank.textures >= COVERED).float().mean((1, 2)).numpy()


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# The bank.


def test_same_arguments_give_the_same_bytes():
    first = TextureBank.synthesize(4, size_px=128, seed=3)
    again = TextureBank.synthesize(4, size_px=128, seed=3)
    assert torch.equal(first.textures, again.textures)
    assert first.names == again.names
    assert first.fingerprint == again.fingerprint


def test_a_small_bank_is_the_start_of_a_large_one(bank):
    small = TextureBank.synthesize(3, size_px=512, seed=1)
    assert small.fingerprint == bank.subset(range(3)).fingerprint


def test_first_continues_where_another_bank_ends(bank):
    tail = TextureBank.synthesize(2, size_px=512, seed=1, first=22)
    assert tail.fingerprint == bank.subset([22, 23]).fingerprint


def test_held_out_banks_share_no_texture(bank):
    held_out = TextureBank.synthesize(24, size_px=512, seed=1, first=24)
    other_seed = TextureBank.synthesize(24, size_px=512, seed=2)
    maps = {t.numpy().tobytes() for b in (bank, held_out, other_seed) for t in b.textures}
    assert len(maps) == 72
    assert not set(bank.names) & set(held_out.names)


def test_the_callers_generators_are_left_alone():
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # pyright: ignore
    TextureBank.synthesize(4, size_px=64)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # pyright: ignore
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_names_tell_family_and_number():
    bank = TextureBank.synthesize(3, size_px=64, families=("mixed", "dust"), first=7)
    assert bank.names == ("dust-0007", "mixed-0008", "dust-0009")
    assert TextureBank.synthesize(4, size_px=64).names == tuple(
        f"{family}-{i:04d}" for i, family in enumerate(ROTA[:4])
    )


def test_the_first_five_families_whiten_and_dark_ground_dominates():
    five = TextureBank.synthesize(5, size_px=64)
    assert five.families == WEAR
    assert not five.light_ground.any()
    assert set(ROTA) == set(FAMILIES)
    assert sum(family in DARKENING for family in ROTA) == 4 == len(ROTA) / 4


def test_textures_that_darken_are_told_apart():
    bank = TextureBank.synthesize(16, size_px=64)
    assert bank.darkening == {"stains", "foxing", "paper"}
    assert bank.light_ground.tolist() == [family in bank.darkening for family in bank.families]
    assert not bank.light_ground[bank.choose()].any()
    assert bank.light_ground[bank.choose(("stains", "paper"))].all()


def test_shape_and_type(bank):
    assert bank.textures.dtype == torch.uint8
    assert bank.textures.shape == (24, 512, 512)
    assert len(bank) == 24
    assert bank.size_px == 512


def test_any_size_from_64_px_is_drawn():
    for size_px in (64, 101):
        bank = TextureBank.synthesize(9, size_px=size_px, families=FAMILIES)
        assert bank.textures.shape == (9, size_px, size_px)
        assert bank.textures.flatten(1).any(1).all()
    assert TextureBank.synthesize(4, size_px=333).size_px == 333


def test_the_bank_is_frozen(bank):
    with pytest.raises(FrozenInstanceError):
        bank.names = ()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "count must be .* got 0"),
        ({"count": 2.5}, "count must be .* got 2.5"),
        ({"size_px": 63}, "size_px must be .* at least 64, got 63"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"first": -1}, "first must be .* got -1"),
        ({"families": ["dust", "mould"]}, "families must be .*dust, hairs.* got 'mould'"),
        ({"families": ()}, "families must be .* got none"),
    ],
)
def test_bad_arguments_are_named_with_their_value(wrong, words):
    with pytest.raises(ValueError, match=words):
        TextureBank.synthesize(**{"count": 1, "size_px": 64, **wrong})


def test_a_bank_refuses_what_is_no_bank():
    square = torch.zeros(2, 64, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="textures must be uint8"):
        TextureBank(square.float(), ("a", "b"))
    with pytest.raises(ValueError, match="textures must be uint8"):
        TextureBank(square[:, :32], ("a", "b"))
    with pytest.raises(ValueError, match="names must be 2 different strings"):
        TextureBank(square, ("a", "a"))
    with pytest.raises(ValueError, match="names must be 2 different strings"):
        TextureBank(square, ("a",))


def test_fingerprint_follows_every_pixel_and_name(bank):
    pair = bank.subset([0, 1])
    touched = pair.textures.clone()
    touched[1, 5, 7] ^= 1
    prints = {
        pair.fingerprint,
        TextureBank(touched, pair.names).fingerprint,
        TextureBank(pair.textures, ("a", "b")).fingerprint,
        bank.subset([1, 0]).fingerprint,
    }
    assert len(prints) == 4
    assert all(len(p) == 64 and set(p) <= set("0123456789abcdef") for p in prints)


def test_fingerprint_is_of_the_values_not_of_their_layout(bank):
    strided = bank.textures.transpose(1, 2).contiguous().transpose(1, 2)
    assert TextureBank(strided, bank.names, DARKENING).fingerprint == bank.fingerprint
    assert bank.to("cpu").fingerprint == bank.fingerprint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fingerprint_is_the_same_on_the_gpu(bank):
    moved = bank.to("cuda")
    assert moved.textures.is_cuda
    assert moved.fingerprint == bank.fingerprint
    assert moved.subset([3]).textures.is_cuda


def test_subset_keeps_order_and_names(bank):
    chosen = bank.subset([5, 2])
    assert chosen.names == (bank.names[5], bank.names[2])
    assert torch.equal(chosen.textures, bank.textures[[5, 2]])


@pytest.mark.parametrize("indices", [[], [24], [-1], [3, 3]])
def test_subset_refuses_what_it_cannot_take(bank, indices):
    with pytest.raises(ValueError, match="indices must be different numbers from 0 to 23"):
        bank.subset(indices)


# The looks.


def test_the_ground_is_clean(every):
    for family, bank in every.items():
        clean = float((bank.textures == 0).float().mean((1, 2)).min())
        # Paper is all relief: only the brightest tenth of it is clean.
        assert clean > {"paper": 0.05, "stains": 0.4, "foxing": 0.7}.get(family, 0.85), family


def test_coverage_stays_within_what_shows_a_photograph(bank, dust):
    dark = bank.subset(bank.choose().tolist())
    share = np.concatenate([coverage(dark), coverage(dust)])
    assert share.min() > 0.001
    assert share.max() < 0.13
    assert 0.01 < np.median(share) < 0.05


def test_paper_and_stains_darken_little_where_they_cover_much(every):
    for family in DARKENING:
        assert float(every[family].textures.float().mean()) / 255 < 0.15, family


def test_textures_differ_in_severity(dust):
    assert coverage(dust).max() > 2.5 * coverage(dust).min()


def test_smaller_sheets_are_as_dense():
    # Creases are left out: a sheet of theirs has one at least.
    share = [
        coverage(TextureBank.synthesize(count, size_px=size_px, seed=1, families=FAMILIES[:4]))
        for count, size_px in ((40, 512), (160, 256))
    ]
    assert share[0].mean() == pytest.approx(share[1].mean(), rel=0.25)


def test_marks_are_dim_and_few_are_opaque(dust):
    peaks = np.concatenate([ndimage.maximum(t, *_labelled(t)) for t in dust.textures.numpy()])
    assert 0.15 < np.median(peaks) / 255 < 0.45
    assert 0.002 < (peaks > 230).mean() < 0.15


def test_dust_has_the_size_of_film_dust(dust):
    diameters = []
    for t in dust.textures.numpy():
        labels, index = _labelled(t)
        diameters.append(2 * np.sqrt(ndimage.sum_labels(labels > 0, labels, index) / np.pi))
    # 8.4 film px at a scale of 0.3 is 2.5 px; the soft edge adds to it, finer specks take from it.
    median, p99 = np.percentile(np.concatenate(diameters), [50, 99])
    assert 2.0 < median < 3.5
    assert 5.0 < p99 < 16.0


def test_dust_gathers(dust):
    # An even spread has variance = mean; real film has 2.9 times that in squares of 77 px.
    ratios = []
    for t in dust.textures.numpy():
        centres = np.array(ndimage.center_of_mass(t > 0, *_labelled(t)))
        counts, _, _ = np.histogram2d(*centres.T, bins=8, range=[[0, 1024], [0, 1024]])
        ratios.append(counts.var() / counts.mean())
    assert min(ratios) > 1.5


def test_families_differ_in_shape():
    long_share = {}
    for family in ("dust", "hairs", "scratches", "creases"):
        bank = TextureBank.synthesize(6, size_px=512, seed=4, families=[family])
        inside = of_long = 0
        for t in bank.textures.numpy():
            labels, index = _labelled(t)
            boxes = ndimage.find_objects(labels)
            extent = np.array([max(s.stop - s.start for s in box) for box in boxes])
            area = ndimage.sum_labels(labels > 0, labels, index)
            inside += area.sum()
            of_long += area[extent >= 16].sum()
        long_share[family] = of_long / inside
    assert long_share["dust"] < 0.4
    assert long_share["hairs"] > long_share["dust"] + 0.2
    assert long_share["scratches"] > long_share["dust"] + 0.2
    assert long_share["creases"] > long_share["dust"] + 0.2


# Tiling.


def test_the_seam_is_like_any_other_row(bank):
    t = bank.textures.numpy().astype(np.float64)
    for axis in (1, 2):
        step = np.abs(t - np.roll(t, 1, axis)).mean(tuple({0, 1, 2} - {axis}))
        # A texture that does not wrap doubles the step here: its neighbours are strangers.
        assert step[0] < 1.35 * np.median(step)


def test_every_family_tiles(every):
    for family, bank in every.items():
        for t in bank.textures.numpy().astype(np.float64):
            for axis in (0, 1):
                step = np.abs(t - np.roll(t, 1, axis)).mean(1 - axis)
                # Marks are few on one row, so against the row that steps most; paper has no such.
                most = 1.2 if family == "paper" else 1.0
                assert step[0] <= most * np.sort(step)[-2], family


def test_drawing_elsewhere_is_rolling():
    def draw(dx: int, dy: int) -> np.ndarray:
        sheet = Sheet(96, generator(seed=5, index=0, size_px=96, family="mixed"))
        # No halves: those round up or down by turns, and patches are centred on whole pixels.
        x, y = column(40.25, 60.375, 20.0) + dx, column(30.0, 50.75, 70.25) + dy
        ones = np.ones(3, np.float32)
        marks = Specks.draw(sheet, x, y, column(3.0, 20.0, 90.0), 0.7 * ones)
        splat(sheet, marks)
        common = {"heading": column(0.3, 2.0, 4.0), "length": column(9.0, 30.0, 80.0)}
        draw_hairs(sheet, x, y, **common, width=1.5 * ones, bend=0.05 * ones, opacity=0.8 * ones)
        draw_scratches(sheet, x, y, **common, width=1.5 * ones, opacity=0.8 * ones, bow=0.1)
        return sheet.opacity

    still = draw(0, 0)
    assert still.max() > 0.4
    for dx, dy in ((70, 0), (0, 45), (-96 * 3 + 17, 80)):
        np.testing.assert_allclose(draw(dx, dy), np.roll(still, (dy, dx), (0, 1)), atol=2e-3)


def test_a_mark_over_the_border_goes_on_at_the_other_side(sheet):
    one = np.ones(1, np.float32)
    marks = Specks(
        x=0 * one, y=64 * one, radius=4 * one, aspect=one, angle=0 * one, soft=one, opacity=one
    )
    splat(sheet, marks)
    assert sheet.opacity[64, 1] > 0.3
    assert sheet.opacity[64, -2] > 0.3
    assert _labels(sheet.opacity > 0.2).max() == 2
    assert _labels(np.roll(sheet.opacity, 20, 1) > 0.2).max() == 1


# The marks.


def test_a_speck_has_the_area_of_its_disc(sheet):
    num = 200
    columns = np.meshgrid(*2 * [np.arange(num**0.5) * 8 + 8.37])
    same = {"aspect": 1.0, "angle": 0.0, "soft": 1.0, "opacity": 0.5, "radius": 1.2}
    x, y = (c.ravel().astype(np.float32) for c in columns)
    marks = Specks(x=x, y=y, **{k: np.full(len(x), v, np.float32) for k, v in same.items()})
    splat(sheet, marks)
    # A soft edge of width w adds pi w^2 / 20 to the area of a disc.
    area = float(sheet.opacity.sum()) / 0.5 / len(x)
    assert area == pytest.approx(np.pi * (1.2**2 + 0.05), rel=0.05)


@pytest.mark.parametrize("angle_deg", [0, 30, 45, 90, 200])
def test_a_stroke_has_its_length_times_width_times_opacity(sheet, angle_deg):
    angle = np.deg2rad(angle_deg)
    at = np.arange(60, dtype=np.float32)
    flat = np.ones(60, np.float32)
    stroke(
        sheet,
        64.3 + (at - 29.5) * np.cos(angle).astype(np.float32),
        64.6 + (at - 29.5) * np.sin(angle).astype(np.float32),
        angle.astype(np.float32) * flat,
        width=2.5 * flat,
        opacity=0.5 * flat,
        soft=1.2 * flat,
    )
    # Along its middle, away from the ends.
    rows, columns = np.mgrid[:128, :128]
    along = (columns - 64.3) * np.cos(angle) + (rows - 64.6) * np.sin(angle)
    middle = float(sheet.opacity[np.abs(along) < 20].sum())
    assert middle == pytest.approx(40 * 2.5 * 0.5, rel=0.08)
    assert sheet.opacity.max() <= 0.5


def test_a_hair_is_as_long_as_asked(sheet):
    one = np.ones(1, np.float32)
    draw_hairs(
        sheet,
        20 * one,
        64 * one,
        heading=0 * one,
        length=80 * one,
        width=2 * one,
        bend=0 * one,
        opacity=one,
    )
    seen = np.flatnonzero(sheet.opacity.max(0) > 0.1)
    assert np.ptp(seen) == pytest.approx(80, abs=3)


def test_hairs_bend_and_scratches_do_not():
    def straightness(draw, **more) -> float:
        sheet = Sheet(512, generator(seed=6, index=0, size_px=512, family="hairs"))
        x, y = np.meshgrid(*2 * [np.arange(5, dtype=np.float32) * 100 + 50])
        same = {"heading": 0.5, "length": 60.0, "width": 2.0, "opacity": 1.0}
        num = {k: np.full(25, v, np.float32) for k, v in same.items()}
        draw(sheet, x.ravel(), y.ravel(), **num, **more)
        labels = _labels(ndimage.binary_dilation(sheet.opacity > 0.03, iterations=2))
        ratios = []
        for i in range(1, labels.max() + 1):  # smaller over larger principal axis
            points = np.argwhere(labels == i)
            if len(points) > 60:
                low, high = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
                ratios.append(low / high)
        return float(np.median(ratios))

    hair = straightness(draw_hairs, bend=np.full(25, 0.08, np.float32))
    scratch = straightness(draw_scratches, bow=0.05)
    assert scratch < 0.15
    assert hair > 1.5 * scratch


def _labels(mask: np.ndarray) -> np.ndarray:
    return np.asarray(label(mask))


def _labelled(texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected marks and their numbers, as scikit-image sees them."""
    labels = _labels(texture >= COVERED)
    return labels, np.arange(1, labels.max() + 1)
