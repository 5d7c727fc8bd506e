"""Scans come in and go out with the depth, the pages and all that was told about them."""

import io
import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, features

from agedphoto.restore import scans
from agedphoto.restore.scans import WRITTEN_AS, Page, encode_pages, read_pages
from tests.conftest import photo_like

RGB = photo_like(37, 53, seed=3)
GRAY = RGB[:, :, 1].copy()
# Dark: none of its values is above 255, and it has 16 bits all the same.
DARK = GRAY.astype(np.uint16)
DEEP = RGB.astype(np.uint16) * 256 + 77
ALPHA = np.arange(RGB.shape[0] * RGB.shape[1], dtype=np.uint32).reshape(RGB.shape[:2])
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="%d"/></x:xmpmeta>'
MAKER = bytes(range(7, 107))

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
TURNED = {
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: np.rot90(x),
}  # fmt: skip
"""The eight orientations of the EXIF standard."""


def make_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Kodak"
    exif.get_ifd(0x8769).update(
        {0x9003: "1961:04:12 09:07:00", 0x927C: MAKER, 0xA002: 53, 0xA003: 37}
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (59.0, 20.0, 6.5)})
    return exif


def save(values: np.ndarray, format: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, format, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def png16(values: np.ndarray, *chunks: tuple[bytes, bytes], late: bool = False) -> bytes:
    data = bytes(imagecodecs.png_encode(values))
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    place = len(data) - 12 if late else 33
    return data[:place] + made + data[place:]


def read_one(data: bytes) -> Page:
    (page,) = read_pages(data)
    return page


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def alpha_for(pixels: np.ndarray) -> np.ndarray:
    return ALPHA.astype(pixels.dtype)


def both(pixels: np.ndarray) -> np.ndarray:
    return np.dstack((pixels, alpha_for(pixels)))


FULL = Page(
    pixels=RGB,
    icc_profile=PROFILE,
    exif=make_exif().tobytes(),
    xmp=XMP % 1,
    dpi=(300.0, 600.0),
)


def check_exif(exif: bytes | None) -> None:
    """Compare EXIF with `make_exif`, by Pillow."""
    assert exif is not None
    assert exif.startswith(b"Exif\0\0")
    read = Image.Exif()
    read.load(exif)
    # AVIF tells it elsewhere.
    assert read.get(0x0112, 1) == 1
    assert read[0x010F] == "Kodak"
    inner = read.get_ifd(0x8769)
    assert inner[0x9003] == "1961:04:12 09:07:00"
    assert inner[0x927C] == MAKER
    assert [float(part) for part in read.get_ifd(0x8825)[2]] == [59.0, 20.0, 6.5]


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("data", "pixels"),
    {
        "png": (save(RGB, "PNG"), RGB),
        "gray png": (save(GRAY, "PNG"), GRAY),
        "bmp": (save(RGB, "BMP"), RGB),
        "gray bmp": (save(GRAY, "BMP"), GRAY),
        "ppm": (save(RGB, "PPM"), RGB),
        "pgm": (save(GRAY, "PPM"), GRAY),
        "webp": (save(RGB, "WEBP", lossless=True), RGB),
        "gray gif": (save(GRAY, "GIF"), GRAY),
        "jxl": (bytes(imagecodecs.jpegxl_encode(RGB, lossless=True)), RGB),
        "16-bit jxl": (bytes(imagecodecs.jpegxl_encode(DEEP, lossless=True)), DEEP),
        "jp2": (save(RGB, "JPEG2000", irreversible=False), RGB),
        "tiff": (tiff(RGB), RGB),
        "gray tiff": (tiff(GRAY), GRAY),
        "deflate": (tiff(RGB, compression="zlib", predictor=True), RGB),
        "lzw": (tiff(RGB, compression="lzw"), RGB),
        "tiles": (tiff(RGB, tile=(16, 16), photometric="rgb"), RGB),
        "planes": (
            tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
            RGB,
        ),
        "white is 0": (tiff(255 - GRAY, photometric="miniswhite"), GRAY),
        "big tiff": (tiff(RGB, bigtiff=True), RGB),
        "big-endian tiff": (tiff(DEEP, byteorder=">", photometric="rgb"), DEEP),
        "16-bit tiff": (tiff(DEEP, photometric="rgb"), DEEP),
        "16-bit deflate": (tiff(DEEP, photometric="rgb", compression="zlib"), DEEP),
        "16-bit planes": (
            tiff(DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
            DEEP,
        ),
        "16-bit white is 0": (tiff(65535 - DARK, photometric="miniswhite"), DARK),
        "dark 16-bit gray tiff": (tiff(DARK), DARK),
        "dark 16-bit color tiff": (tiff(RGB.astype(np.uint16), photometric="rgb"), RGB),
        "16-bit png": (png16(DEEP), DEEP),
        "dark 16-bit gray png": (png16(DARK), DARK),
        "black 16-bit png": (png16(np.zeros_like(DEEP)), np.zeros_like(DEEP)),
        "16-bit pgm": (b"P5 # deep\n53 37\n65535\n" + DARK.astype(">u2").tobytes(), DARK),
        "16-bit ppm": (b"P6\n53 37 65535\n" + DEEP.astype(">u2").tobytes(), DEEP),
        "12-bit pgm": (
            b"P5\n53 37\n4095\n" + (DARK * 16).astype(">u2").tobytes(),
            np.round(DARK * 16 * (65535 / 4095)).astype(np.uint16),
        ),
        "words": (
            b"P2 53 37 65535\n" + b" ".join(b"%d" % v for v in DARK.ravel()),
            DARK,
        ),
    }.values(),
    ids=lambda value: None,
)
def test_lossless_files_are_read_as_they_were_written(data, pixels):
    page = read_one(data)
    assert np.array_equal(page.pixels, pixels)
    assert page.alpha is None


@pytest.mark.parametrize("pixels", [DARK, DARK[..., None].repeat(3, 2)], ids=["gray", "color"])
def test_a_dark_scan_of_16_bits_is_known_by_its_header(pixels):
    photometric = "minisblack" if pixels.ndim == 2 else "rgb"
    for data in (png16(pixels), tiff(pixels, photometric=photometric)):
        page = read_one(data)
        assert page.pixels.dtype == np.uint16
        assert np.array_equal(page.pixels, pixels)


@pytest.mark.parametrize("pixels", [GRAY, RGB, DARK, DEEP], ids=["L", "RGB", "L16", "RGB16"])
def test_transparency_is_kept_apart(pixels):
    photometric = "minisblack" if pixels.ndim == 2 else "rgb"
    kinds = [bytes(imagecodecs.png_encode(both(pixels)))]
    kinds.append(tiff(both(pixels), photometric=photometric, extrasamples=["unassalpha"]))
    for data in kinds:
        page = read_one(data)
        assert np.array_equal(page.pixels, pixels)
        assert page.alpha is not None
        assert page.alpha.dtype == pixels.dtype
        assert np.array_equal(page.alpha, alpha_for(pixels))


def test_colours_multiplied_by_their_alpha_are_divided_again():
    alpha = np.full(GRAY.shape, 32768, np.uint16)
    data = tiff(np.dstack((DEEP // 2, alpha)), photometric="rgb", extrasamples=["assocalpha"])
    page = read_one(data)
    np.testing.assert_allclose(page.pixels.astype(int), DEEP, atol=2)
    assert page.alpha is not None
    assert np.array_equal(page.alpha, alpha)


def test_other_colours_become_srgb_and_gray_palettes_gray():
    image = Image.fromarray(RGB)
    cmyk = io.BytesIO()
    image.convert("CMYK").save(cmyk, "TIFF", icc_profile=PROFILE)
    page = read_one(cmyk.getvalue())
    assert np.array_equal(page.pixels, RGB)
    assert page.icc_profile is None
    bilevel = io.BytesIO()
    image.convert("1").save(bilevel, "TIFF", compression="group4")
    assert np.array_equal(read_one(bilevel.getvalue()).pixels, np.array(image.convert("1")) * 255)
    palette = io.BytesIO()
    few = image.quantize(64)
    few.save(palette, "PNG")
    assert np.array_equal(read_one(palette.getvalue()).pixels, np.array(few.convert("RGB")))
    gray = io.BytesIO()
    Image.fromarray(GRAY).convert("P").save(gray, "PNG")
    assert np.array_equal(read_one(gray.getvalue()).pixels, GRAY)


def test_lab_becomes_srgb():
    lab = ImageCms.profileToProfile(
        Image.fromarray(RGB),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    file = io.BytesIO()
    lab.save(file, "TIFF")
    # Colours of 8 bits each are rounded twice.
    assert np.abs(read_one(file.getvalue()).pixels.astype(int) - RGB).mean() < 2


def test_floating_point_keeps_16_bits():
    page = read_one(tiff((DEEP / 65535).astype(np.float32), photometric="rgb"))
    assert np.array_equal(page.pixels, DEEP)
    assert page.pixels.dtype == np.uint16


def test_every_page_is_read_and_copies_and_masks_are_not():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB, photometric="rgb", resolution=(300, 300), resolutionunit="INCH")
        writer.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(DARK, photometric="minisblack")
        writer.write(GRAY > 99, photometric="mask", subfiletype=4)
        writer.write(GRAY, photometric="minisblack", subfiletype=2)
        palette = np.zeros((3, 256), np.uint16)
        palette[0] = np.arange(256) * 257
        writer.write(GRAY, photometric="palette", colormap=palette)
    red = np.dstack((GRAY, GRAY * 0, GRAY * 0))
    pages = read_pages(file.getvalue())
    assert [page.pixels.dtype for page in pages] == [np.uint8, np.uint16, np.uint8, np.uint8]
    for page, expected in zip(pages, (RGB, DARK, GRAY, red), strict=True):
        assert np.array_equal(page.pixels, expected)
    assert [page.dpi for page in pages] == [(300, 300), None, None, None]


# ---------------------------------------------------------------- upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "CMYK", "deep png", "deep tiff"])
def test_scans_come_upright_and_say_so(kind, orientation):
    exif = make_exif(orientation)
    pixels = RGB
    if kind == "deep png":
        pixels = DEEP
        data = png16(DEEP, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    elif kind == "deep tiff":
        pixels = DEEP
        data = tiff(DEEP, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    elif kind == "CMYK":
        file = io.BytesIO()
        Image.fromarray(RGB).convert("CMYK").save(file, "TIFF", exif=exif.tobytes(), dpi=(300, 600))
        data = file.getvalue()
    else:
        lossless = {"lossless": True} if kind == "WEBP" else {"quality": 95}
        data = save(RGB, kind, exif=exif.tobytes(), dpi=(300, 600), **lossless)
    page = read_one(data)
    expected = TURNED[orientation](pixels)
    if kind == "JPEG":
        expected = TURNED[orientation](np.asarray(Image.open(io.BytesIO(data))))
    assert np.array_equal(page.pixels, expected)
    if kind == "deep tiff":
        return
    check_exif(page.exif)
    read = Image.Exif()
    read.load(page.exif or b"")
    inner = read.get_ifd(0x8769)
    assert (inner[0xA003], inner[0xA002]) == page.pixels.shape[:2]
    if kind in ("JPEG", "PNG", "TIFF", "CMYK"):
        assert page.dpi == pytest.approx((300, 600) if orientation < 5 else (600, 300), abs=0.1)
    # And what is written of it needs no turning any more.
    again = opened(encode_pages([page], "TIFF"))
    assert np.array_equal(np.asarray(again), page.pixels >> 8 if "deep" in kind else page.pixels)


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_comes_upright(orientation):
    data = save(RGB, "AVIF", exif=make_exif(orientation), quality=100, subsampling="4:4:4")
    page = read_one(data)
    difference = page.pixels.astype(int) - TURNED[orientation](RGB)
    assert np.abs(difference).mean() < 3
    check_exif(page.exif)


def test_pages_are_turned_each_by_its_own_orientation():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for orientation in (6, 1, 3):
            writer.write(
                RGB, photometric="rgb", extratags=[(274, 3, 1, orientation, True)], metadata=None
            )
    for page, orientation in zip(read_pages(file.getvalue()), (6, 1, 3), strict=True):
        assert np.array_equal(page.pixels, TURNED[orientation](RGB))


def test_pages_that_pillow_turns_are_not_turned_twice():
    images = [Image.fromarray(RGB).convert("CMYK") for _ in range(3)]
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    images[0].save(file, "TIFF", save_all=True, append_images=images[1:], exif=exif)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as written:
        orientations = [page.aspage().tags.valueof(274, 1) for page in written.pages]
    assert orientations[0] == 6
    for page, orientation in zip(read_pages(file.getvalue()), orientations, strict=True):
        assert np.array_equal(page.pixels, TURNED[orientation](RGB))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_an_orientation_that_only_xmp_tells_is_applied_and_reset(format):
    exact = replace(FULL, exif=None, xmp=XMP % 8)
    data = encode_pages([exact], format)
    page = read_one(data)
    assert page.pixels.shape == (53, 37, 3)
    assert page.xmp == XMP % 1
    if format != "JPEG":
        assert np.array_equal(page.pixels, TURNED[8](RGB))


def test_the_thumbnail_is_dropped_and_nothing_else():
    tags = struct.pack("<HHHIIHHI", 2, 274, 3, 1, 6, 271, 2, 4) + b"Abc\0" + struct.pack("<I", 38)
    thumbnail = b"\xff\xd8stale\xff\xd9"
    last = struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 68, 514, 4, 1, len(thumbnail), 0)
    body = b"II*\0\x08\0\0\0" + tags + last + thumbnail
    data = save(RGB, "JPEG", exif=b"Exif\0\0" + body)
    assert b"stale" in data
    page = read_one(data)
    assert page.exif is not None
    assert b"stale" not in page.exif
    assert page.pixels.shape == (53, 37, 3)
    read = Image.Exif()
    read.load(page.exif)
    assert dict(read) == {274: 1, 271: "Abc"}
    assert not read.get_ifd(1)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\0", b"nonsense"])
def test_exif_that_cannot_be_read_is_left_out(exif):
    page = read_one(png16(DEEP, (b"eXIf", exif)))
    assert np.array_equal(page.pixels, DEEP)
    assert page.exif is None


def test_what_a_deep_png_tells_after_its_pixels_is_read():
    exif = make_exif(6).tobytes().removeprefix(b"Exif\0\0")
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 6
    page = read_one(png16(DEEP, (b"eXIf", exif), (b"iTXt", xmp), late=True))
    check_exif(page.exif)
    assert page.xmp == XMP % 1
    assert np.array_equal(page.pixels, TURNED[6](DEEP))


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("with_alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("pixels", [GRAY, RGB, DARK, DEEP], ids=["L", "RGB", "L16", "RGB16"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_lossless_formats_give_back_everything(format, pixels, with_alpha):
    page = replace(FULL, pixels=pixels, alpha=alpha_for(pixels) if with_alpha else None)
    data = encode_pages([page], format)
    back = read_one(data)
    assert back.pixels.dtype == pixels.dtype
    assert np.array_equal(back.pixels, pixels)
    assert (back.alpha is None) == (not with_alpha)
    if with_alpha:
        assert np.array_equal(np.asarray(back.alpha), alpha_for(pixels))
    assert back.icc_profile == PROFILE
    assert back.xmp == page.xmp
    assert back.dpi == pytest.approx(page.dpi, abs=0.1)
    check_exif(back.exif)
    # By other readers.
    values = both(pixels) if with_alpha else pixels
    other = imagecodecs.png_decode(data) if format == "PNG" else tifffile.imread(io.BytesIO(data))
    assert np.array_equal(other, values)
    if format == "TIFF" and pixels.dtype == np.uint16 and pixels.ndim == 2 and with_alpha:
        return  # Which Pillow does not know.
    image = opened(data)
    assert image.info["icc_profile"] == PROFILE
    assert image.info["dpi"] == pytest.approx((300, 600), abs=0.1)
    assert image.info["xmp"].rstrip(b"\0") == XMP % 1
    assert image.getexif()[0x010F] == "Kodak"
    assert image.getexif().get_ifd(0x8769)[0x927C] == MAKER
    assert image.getexif().get_ifd(0x8825)[1] == "N"
    # What was read is written as the same bytes.
    assert encode_pages([back], format) == encode_pages(read_pages(data), format)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", pytest.param("AVIF", marks=needs_avif)])
def test_lossy_formats_keep_what_is_told(format):
    data = encode_pages([FULL], format)
    assert opened(data).format == format
    back = read_one(data)
    assert np.abs(back.pixels.astype(int) - RGB).mean() < 4
    assert back.icc_profile == PROFILE
    assert back.xmp == XMP % 1
    assert back.dpi == pytest.approx((300, 600), abs=0.1)
    check_exif(back.exif)


def test_webp_of_quality_100_is_lossless_and_keeps_alpha():
    page = replace(FULL, alpha=alpha_for(RGB))
    back = read_one(encode_pages([page], "WEBP", quality=100))
    assert np.array_equal(back.pixels, RGB)
    assert np.array_equal(np.asarray(back.alpha), alpha_for(RGB))


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["L", "RGB"])
def test_bmp_keeps_pixels_and_resolution(pixels):
    back = read_one(encode_pages([Page(pixels=pixels, dpi=(300, 600))], "BMP"))
    assert np.array_equal(back.pixels, pixels)
    assert back.dpi == pytest.approx((300, 600), abs=0.1)


@pytest.mark.parametrize("pixels", [GRAY, RGB, DARK, DEEP], ids=["L", "RGB", "L16", "RGB16"])
def test_pnm_keeps_pixels_of_any_depth(pixels):
    data = encode_pages([Page(pixels=pixels)], "PPM")
    assert np.array_equal(read_one(data).pixels, pixels)
    if pixels.dtype == np.uint8:
        assert np.array_equal(np.asarray(opened(data)), pixels)


def test_gray_stays_gray_in_jpeg():
    image = opened(encode_pages([replace(FULL, pixels=GRAY)], "JPEG"))
    assert image.mode == "L"


def test_quality_is_the_users():
    sizes = [len(encode_pages([FULL], "JPEG", quality=quality)) for quality in (20, 95, 100)]
    assert sizes == sorted(set(sizes))


def test_pages_of_a_tiff_keep_each_its_own():
    second = replace(FULL, pixels=DARK, exif=None, dpi=None, xmp=None, icc_profile=None)
    third = replace(FULL, pixels=DEEP, alpha=alpha_for(DEEP))
    back = read_pages(encode_pages([FULL, second, third], "TIFF"))
    for page, expected in zip(back, (FULL, second, third), strict=True):
        assert np.array_equal(page.pixels, expected.pixels)
        assert (page.icc_profile, page.xmp) == (expected.icc_profile, expected.xmp)
        assert (page.dpi is None) == (expected.dpi is None)
    check_exif(back[0].exif)
    assert back[1].exif is None
    check_exif(back[2].exif)


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_exif_of_either_byte_order_comes_through_tiff(order):
    exif = make_exif()
    exif.endian = "<" if order == b"II" else ">"
    page = replace(FULL, pixels=DEEP, exif=exif.tobytes())
    data = encode_pages([page], "TIFF")
    assert data[:2] == order
    check_exif(read_one(data).exif)
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), DEEP)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (1, 1, 3), (3, 3, 3), (4, 4, 3)])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_the_smallest_pictures_go_through(format, shape):
    for depth in (np.uint8, np.uint16):
        pixels = (np.arange(np.prod(shape)).reshape(shape) * 5).astype(depth)
        back = read_one(encode_pages([Page(pixels=pixels)], format))
        assert np.array_equal(back.pixels, pixels)
        assert back.pixels.dtype == depth


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("format", "pages", "said"),
    [
        ("JPEG", [replace(FULL, pixels=DEEP)], "JPEG holds 8 bits, got 16; write PNG or TIFF"),
        ("WEBP", [replace(FULL, pixels=DEEP)], "WEBP holds 8 bits"),
        ("BMP", [Page(pixels=DEEP)], "BMP holds 8 bits"),
        ("JPEG", [replace(FULL, alpha=alpha_for(RGB))], "JPEG holds no transparency; write PNG"),
        ("BMP", [Page(pixels=RGB, alpha=alpha_for(RGB))], "BMP holds no transparency"),
        ("PNG", [FULL, FULL], "PNG holds one page, got 2; write TIFF"),
        ("PGM", [Page(pixels=RGB)], "PGM holds only grays"),
        ("PPM", [FULL], "PPM holds no colour profile"),
        ("WEBP", [Page(pixels=np.zeros((1, 16384), np.uint8))], "sides up to 16383 px"),
        ("JPEG", [replace(FULL, xmp=bytes(70000))], "cannot be written as JPEG"),
        ("JPEG2000", [FULL], "format must be one of"),
        ("PNG", [], "at least one"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(format, pages, said):
    with pytest.raises(ValueError, match=said):
        encode_pages(pages, format)


def test_a_page_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="pixels must be uint8 or uint16, got float64"):
        Page(pixels=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"pixels must be \(H, W\) or \(H, W, 3\)"):
        Page(pixels=np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(ValueError, match="alpha must be"):
        Page(pixels=RGB, alpha=GRAY.astype(np.uint16))
    with pytest.raises(ValueError, match="quality must be 1 to 100, got 0"):
        encode_pages([FULL], "JPEG", quality=0)


WHOLE = {
    "png": save(RGB, "PNG"),
    "16-bit png": png16(DEEP),
    "jpeg": save(RGB, "JPEG"),
    "webp": save(RGB, "WEBP"),
    "bmp": save(RGB, "BMP"),
    "ppm": save(RGB, "PPM"),
    "16-bit ppm": encode_pages([Page(pixels=DEEP)], "PPM"),
    "tiff": encode_pages([FULL], "TIFF"),
    "16-bit tiff": encode_pages([Page(pixels=DEEP)], "TIFF"),
    "raw tiff": tiff(DEEP, photometric="rgb"),
    "jxl": bytes(imagecodecs.jpegxl_encode(RGB)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_refused_by_its_name(kind, tmp_path):
    path = tmp_path / "half.jpg"
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(WHOLE[kind][: int(len(WHOLE[kind]) * share)])
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            read_pages(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value)) > len(f"{path}: ") + 5


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", b"II*\0", bytes(5000)])
def test_a_file_of_another_kind_is_refused_by_its_name(data, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"notes\.jpg: ."):
        read_pages(path)
    with pytest.raises(ValueError, match=r"^photograph: ."):
        read_pages(data)


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.jpg: "):
        read_pages(tmp_path / "gone.jpg")
    (tmp_path / "dir.jpg").mkdir()
    with pytest.raises(ValueError, match=r"dir\.jpg: "):
        read_pages(tmp_path / "dir.jpg")


@pytest.mark.parametrize("kind", WHOLE)
def test_pixels_are_counted_before_any_is_decoded(kind, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decoded")

    for name in ("png_decode", "jpegxl_decode"):
        monkeypatch.setattr(imagecodecs, name, refuse)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    monkeypatch.setattr(scans, "_to_arrays", refuse)
    monkeypatch.setattr(scans, "_decode_deep_pnm", refuse)
    with pytest.raises(ValueError, match="1,961 pixels are more than the limit of 1,960"):
        read_pages(WHOLE[kind], pixel_limit=1960)


def test_pages_are_counted_together():
    data = encode_pages([FULL, FULL, FULL], "TIFF")
    assert len(read_pages(data, pixel_limit=3 * 1961)) == 3
    with pytest.raises(ValueError, match="5,883 pixels are more than the limit of 5,882"):
        read_pages(data, pixel_limit=5882)


def test_a_bomb_is_refused():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 16, 2, 0, 0, 0)
    png = png16(DEEP)
    bomb = png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]
    with pytest.raises(ValueError, match="10,000,000,000 pixels are more than the limit"):
        read_pages(bomb)
    with pytest.raises(ValueError, match="10,000,000,000 pixels are more than the limit"):
        read_pages(b"P6 100000 100000 65535\n")


def test_damage_anywhere_is_a_valueerror_or_a_picture():
    generator = np.random.default_rng(0)
    for data in WHOLE.values():
        for _ in range(40):
            damaged = bytearray(data)
            for place in generator.integers(0, min(len(data), 400), 3):
                damaged[place] ^= int(generator.integers(1, 256))
            pages = []
            with suppress(ValueError):
                pages = read_pages(bytes(damaged), pixel_limit=1_000_000)
            if pages:
                encode_pages(pages, "TIFF")


def test_suffixes_are_written_in_formats_that_exist():
    for suffix, format in WRITTEN_AS.items():
        if format == "AVIF" and not features.check("avif"):
            continue
        data = encode_pages([Page(pixels=GRAY)], format)
        assert read_one(data).pixels.shape[:2] == GRAY.shape, suffix
