"""Textures beside real film: sizes, numbers, gathering and opacity, measured in another way.

The published numbers are those of ten scanned frames and five scanned overlays; see `film`.
"""

import numpy as np
import pytest
from skimage.measure import label, regionprops, regionprops_table
from skimage.morphology import skeletonize

from agedphoto.textures import TextureBank
from agedphoto.textures.canvas import Sheet, generator
from agedphoto.textures.dust import scatter_kind as scatter_specks
from agedphoto.textures.film import DIRT, DUST, LONG_HAIR, SCRATCH, SHORT_HAIR, Kind
from agedphoto.textures.hairs import scatter_kind as scatter_hairs
from agedphoto.textures.scratches import scatter_kind as scatter_scratches

SEEN = 13
"""The first grey level of opacity 0.05 or more."""

MEASURED_AREA = {"dust": (56, 130), "dirt": (120, 396)}
"""Median and 95 % of the outlines, square film pixels."""

MEASURED_LENGTH = {"short": (23, 40, 68), "long": (106, 142, 199), "scratch": (147, 249, 421)}
"""Quartiles, film pixels."""

MEASURED_PER_FRAME = {"dust": 763, "dirt": 270, "short": 134, "long": 39.8, "scratch": 6.5}

MEASURED_WIDTH = {"short": 0.45 * 7.1, "long": 0.45 * 6.5}
"""Of the core: outlines were drawn 2.2 times as wide."""

VARIANCE_TO_MEAN = {"dust": 2.16, "dirt": 1.84}
"""Of counts in squares of 256 film pixels, differences between frames taken off."""

OVERLAYS = {
    "components_per_megapixel": (678, 5937),
    "area_exponent": (1.66, 2.28),
    "coverage": (0.008, 0.167),
    "brightness_p50": (39, 112),
    "brightness_p90": (78, 159),
    "brightness_p99": (168, 228),
}
"""Least and most of five scanned overlays."""

KINDS = {
    "dust": DUST,
    "dirt": DIRT,
    "short": SHORT_HAIR,
    "long": LONG_HAIR,
    "scratch": SCRATCH,
}  # fmt: skip


def film(number: int, *, size_px: int, scale_px: float = 1.0) -> Sheet:
    """A blank sheet at the resolution of the measured scans."""
    sheet = Sheet(size_px, generator(seed=8, index=number, size_px=size_px, family="dust"))
    sheet.scale_px = scale_px
    return sheet


def marks(sheet: Sheet) -> list:
    """Regions of what can be seen, but for those that the sheet's border cuts."""
    opacity = sheet.finish()
    inside = []
    for region in regionprops(np.asarray(label(opacity >= SEEN)), opacity):
        top, left, bottom, right = region.bbox
        if min(top, left) > 0 and max(bottom, right) < sheet.size_px:
            inside.append(region)
    return inside


@pytest.mark.parametrize("name", ["dust", "dirt"])
def test_specks_have_the_areas_of_real_ones(name):
    areas, aspects = [], []
    for number in range(3):
        sheet = film(number, size_px=1400)
        scatter_specks(sheet, KINDS[name], num=130, clustering=0.0)
        for region in marks(sheet):
            areas.append(region.area)
            aspects.append(region.axis_major_length / max(region.axis_minor_length, 1e-3))
    median, p95 = MEASURED_AREA[name]
    assert np.median(areas) == pytest.approx(median, rel=0.15)
    assert np.percentile(areas, 95) == pytest.approx(p95, rel=0.25)
    assert np.median(aspects) == pytest.approx({"dust": 1.14, "dirt": 1.27}[name], rel=0.15)


@pytest.mark.parametrize("name", ["short", "long"])
def test_hairs_have_the_lengths_and_widths_of_real_ones(name):
    lengths, widths = [], []
    for number in range(8):
        sheet = film(number, size_px=1400)
        scatter_hairs(sheet, KINDS[name], num=14 if name == "short" else 8)
        for region in marks(sheet):
            if region.area > 15:
                along = length_of(np.pad(region.image, 1))
                deepest = np.percentile(region.image_intensity[region.image], 95)
                lengths.append(along)
                widths.append((region.image_intensity >= 0.5 * deepest).sum() / along)
    assert np.median(lengths) == pytest.approx(MEASURED_LENGTH[name][1], rel=0.15)
    assert np.percentile(lengths, [25, 75]) == pytest.approx(MEASURED_LENGTH[name][::2], rel=0.3)
    assert np.median(widths) == pytest.approx(MEASURED_WIDTH[name], rel=0.15)


def test_scratches_have_the_lengths_of_real_ones():
    lengths = []
    for number in range(140):
        sheet = film(number, size_px=512, scale_px=0.3)
        scatter_scratches(sheet, SCRATCH, num=1, clustering=0.0)
        points = np.argwhere(sheet.opacity >= 0.05)
        if len(points) > 2:
            # About its own middle on the sheet, which has no ends.
            turn = np.exp(2j * np.pi * points / 512).mean(0)
            off = np.mod(points - np.angle(turn) / (2 * np.pi) * 512 + 256, 512) - 256
            along = np.linalg.svd(off - off.mean(0), full_matrices=False)[2][0]
            lengths.append(np.ptp(off @ along) / 0.3)
    assert np.median(lengths) == pytest.approx(MEASURED_LENGTH["scratch"][1], rel=0.15)


@pytest.mark.parametrize("name", KINDS)
def test_marks_are_as_many_as_on_real_frames(name):
    sheets = [film(number, size_px=1024, scale_px=0.3) for number in range(60)]
    frames = 60 * (1024 / 0.3) ** 2 / (5000 * 3420)
    num = sum(sheet.num(KINDS[name].per_frame) for sheet in sheets)
    assert num / frames == pytest.approx(MEASURED_PER_FRAME[name], rel=0.15)


@pytest.mark.parametrize("name", ["dust", "dirt"])
def test_specks_gather_as_on_real_frames(name):
    ratio = np.median([dispersion(KINDS[name], number) for number in range(60)])
    assert ratio == pytest.approx(VARIANCE_TO_MEAN[name], rel=0.25)


def test_even_specks_do_not_gather():
    even = Kind(per_frame=763, log_mean=4.1, log_sigma=0.4, clustering=0.0)
    assert np.median([dispersion(even, number) for number in range(20)]) < 1.2


def test_dust_looks_like_scanned_overlays():
    # In the middle of ten textures; each of them differs, as overlays do.
    bank = TextureBank.synthesize(10, seed=5, families=["dust"])
    found = {name: [] for name in OVERLAYS}
    for t in bank.textures.numpy():
        seen = t >= 20
        table = regionprops_table(np.asarray(label(seen)), properties=("area",))
        large = table["area"][table["area"] >= 5]
        found["components_per_megapixel"].append(len(table["area"]) / 1.0486)
        found["area_exponent"].append(1 + len(large) / np.log(large / 4.5).sum())
        found["coverage"].append(seen.mean())
        for share in (50, 90, 99):
            found[f"brightness_p{share}"].append(np.percentile(t[seen], share))
    for name, (least, most) in OVERLAYS.items():
        middle = np.median(found[name])
        assert 0.85 * least < middle < 1.15 * most, f"{name}: {middle}"


def dispersion(kind: Kind, number: int) -> float:
    """Variance over mean of the counts in squares of 256 film pixels."""
    sheet = film(number, size_px=1024, scale_px=0.3)
    x, y = sheet.place(sheet.num(kind.per_frame), clustering=kind.clustering)
    counts, _, _ = np.histogram2d(y, x, bins=13, range=[[0, 1024], [0, 1024]])
    return float(counts.var() / counts.mean())


def length_of(image: np.ndarray) -> float:
    """Length of a mark's middle line, diagonal steps counted as such."""
    line = skeletonize(image)
    straight = (line[:, 1:] & line[:, :-1]).sum() + (line[1:] & line[:-1]).sum()
    slant = 0
    for a, b, beside, below in (
        (line[:-1, :-1], line[1:, 1:], line[:-1, 1:], line[1:, :-1]),
        (line[:-1, 1:], line[1:, :-1], line[:-1, :-1], line[1:, 1:]),
    ):
        slant += (a & b & ~beside & ~below).sum()
    return float(1 + straight + np.sqrt(2) * slant)
