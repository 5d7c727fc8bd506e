"""Photographs on disk."""

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from agedphoto.datasets import find_photos, read_photo
from agedphoto.datasets.photos import name_photos, open_upright
from tests.conftest import photo_like

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def as_bytes(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def swapped_profile() -> bytes:
    """The sRGB profile with the primaries of red and blue exchanged."""
    profile = bytearray(SRGB)
    entries = {}
    for entry in range(int.from_bytes(profile[128:132])):
        start = 132 + 12 * entry
        entries[bytes(profile[start : start + 4])] = start + 4
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = (
        profile[blue : blue + 8],
        profile[red : red + 8],
    )
    return bytes(profile)


# Where the top-left and the top-right pixel of the file belong: EXIF 2.32, 4.6.4 A, Orientation.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_is_turned_upright(orientation, format):
    photo = photo_like(12, 20, seed=0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = as_bytes(Image.fromarray(photo), format, exif=exif, **lossless)
    np.testing.assert_array_equal(read_photo(data), UPRIGHT[orientation](photo))
    assert open_upright(data).getexif().get(0x0112, 1) == 1


def test_damaged_exif_does_not_cost_the_photo():
    photo = photo_like(12, 20, seed=0)
    data = as_bytes(Image.fromarray(photo), exif=b"Exif\0\0 this is not TIFF at all")
    np.testing.assert_array_equal(read_photo(data), photo)


def test_an_icc_profile_is_converted():
    photo = photo_like(20, 20, seed=0)
    swapped = read_photo(as_bytes(Image.fromarray(photo), icc_profile=swapped_profile()))
    # To within the rounding of the profile's own fixed-point numbers and of values cut off.
    np.testing.assert_allclose(swapped[..., ::-1].astype(int), photo, atol=2)


@pytest.mark.parametrize("profile", [SRGB, b"not a profile" * 20, SRGB[:200]])
def test_the_srgb_profile_and_a_damaged_one_change_nothing(profile):
    photo = photo_like(12, 20, seed=0)
    data = as_bytes(Image.fromarray(photo), icc_profile=profile)
    np.testing.assert_allclose(read_photo(data).astype(int), photo, atol=1)


def test_a_profile_of_another_kind_is_passed_over():
    """CMYK values with an RGB profile: the picture is shown as if there were none."""
    image = Image.fromarray(photo_like(12, 20, seed=0)).convert("CMYK")
    plain = read_photo(as_bytes(image, "TIFF"))
    np.testing.assert_array_equal(read_photo(as_bytes(image, "TIFF", icc_profile=SRGB)), plain)


def test_cielab_is_converted():
    """Gray of L = 50 has the sRGB value 119 (CIE 15, IEC 61966-2-1); Pillow adds 128 to a and b."""
    image = Image.new("LAB", (4, 4), (128, 128, 128))
    np.testing.assert_allclose(read_photo(as_bytes(image, "TIFF")).astype(int), 119, atol=2)


def test_16_bit_gray_is_rounded_to_8():
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    got = read_photo(as_bytes(Image.fromarray(values)))
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, -1))


def test_floating_point_gray_is_scaled_and_numbers_that_are_none_are_black():
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf, -1.0]], np.float32)
    got = read_photo(as_bytes(Image.fromarray(values), "TIFF"))
    assert got[0, :, 0].tolist() == [0, 128, 255, 0, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB", "YCbCr"])
def test_every_mode_comes_as_rgb(mode):
    image = Image.fromarray(photo_like(12, 20, seed=0)).convert(mode)
    format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    # Pillow below 13 reads YCbCr through libtiff alone, thus compressed; that rounds otherwise.
    options = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    got = read_photo(as_bytes(image, format, **options)).astype(int)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(got, expected, atol=1 if mode == "YCbCr" else 0)


def test_transparency_lies_on_white():
    red = np.zeros((1, 3, 4), np.uint8)
    red[..., 0], red[0, :, 3] = 255, [0, 51, 255]
    assert read_photo(as_bytes(Image.fromarray(red)))[0].tolist() == [
        [255, 255, 255],
        [255, 204, 204],
        [255, 0, 0],
    ]
    gray = np.array([[[0, 0], [0, 255]]], np.uint8)
    assert read_photo(as_bytes(Image.fromarray(gray, "LA")))[0].tolist() == [[255] * 3, [0] * 3]


def test_a_transparent_colour_lies_on_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    got = read_photo(as_bytes(palette, transparency=1))
    assert got[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_read(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = as_bytes(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
    assert (read_photo(data) == (255, 0, 0)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_cannot_be_read_is_one_error_that_begins_with_the_name(tmp_path: Path):
    image = Image.fromarray(photo_like(64, 64, seed=0))
    files = {
        "cut.jpg": as_bytes(image, "JPEG")[:900],
        "cut.png": as_bytes(image)[:900],
        "cut.tif": as_bytes(image, "TIFF", compression="tiff_lzw")[:900],
        "cut.webp": as_bytes(image, "WEBP")[:300],
        "cut.gif": as_bytes(image, "GIF")[:300],
        "cut.avif": as_bytes(image, "AVIF")[:300],
        "text.jpg": b"this is not a photograph",
        "empty.jpg": b"",
        "many.png": as_bytes(Image.new("1", (2000, 1000))),
    }
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ValueError, match="^" + str(path) + ": .") as caught:
            read_photo(path, pixel_limit=1_000_000)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=r"^photograph: ."):
            read_photo(data, pixel_limit=1_000_000)
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(ValueError, match="^" + str(path) + ": ."):
            read_photo(path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_never_raise_anything_else(format):
    rng = np.random.default_rng(0)
    good = as_bytes(Image.fromarray(photo_like(24, 24, seed=0)), format)
    for _ in range(60):
        data = bytearray(good[: rng.integers(1, len(good))] if rng.random() < 0.3 else good)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        try:
            photo = read_photo(bytes(data), pixel_limit=1_000_000)
        except ValueError as error:
            assert str(error).startswith("photograph: ")  # noqa: PT017
        else:
            assert photo.shape[2] == 3


def test_the_pixel_limit_is_ours_and_not_pillows(monkeypatch):
    """Pillow warns beyond its own limit and refuses beyond twice that."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = as_bytes(Image.new("L", (30, 10)))
    assert read_photo(data).shape == (10, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert read_photo(data, pixel_limit=300).shape == (10, 30, 3)
    with pytest.raises(ValueError, match="photograph: 300 pixels are more than the limit of 299"):
        read_photo(data, pixel_limit=299)


def test_photos_are_found_in_folders_in_order_and_hidden_ones_are_not(tmp_path: Path):
    names = [
        "b.JPG", "a.png", "sub/deep/c.TiFf", "sub/d e#%[1]é日.webp", "note.txt", ".hidden.png",
        ".thumbs/x.png", "sub/.y.png", "noext",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(tmp_path).as_posix() for path in find_photos(tmp_path)]
    assert found == ["a.png", "b.JPG", "sub/d e#%[1]é日.webp", "sub/deep/c.TiFf"]
    assert [path.name for path in find_photos(tmp_path, recursive=False)] == ["a.png", "b.JPG"]
    named = [tmp_path / "note.txt", tmp_path / "a.png", tmp_path]
    assert [path.name for path in find_photos(named)][:3] == ["note.txt", "a.png", "b.JPG"]
    assert len(find_photos(named)) == 5


def test_a_folder_that_is_itself_hidden_is_searched(tmp_path: Path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").write_bytes(b"")
    assert len(find_photos(tmp_path / ".cache")) == 1


def test_no_folder_and_no_photos_are_errors(tmp_path: Path):
    with pytest.raises(ValueError, match=f"no such file or folder: {tmp_path / 'none'}"):
        find_photos(tmp_path / "none")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=f"no photographs in {tmp_path}; looked for .avif"):
        find_photos(tmp_path)


def test_keys_are_short_unique_and_plain(tmp_path: Path):
    names = [
        "a.jpg", "a.png", "a_2.png", "A.jpg", "x/a.jpg", "x-a.jpg", "v1.2.final.jpg", "日本.jpg",
        "é!.jpg", f"{'long' * 50}1.jpg", f"{'long' * 50}2.jpg", f"other{'long' * 50}1.jpg",
    ]  # fmt: skip
    keys = name_photos([tmp_path / name for name in names], tmp_path)
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert key.replace("-", "").replace("_", "").isalnum() or set(key) <= {"_"}
        assert key.isascii()
        assert 0 < len(key) <= 90
    assert keys[:5] == ["a", "a_2", "a_2_2", "A", "x-a"]
    assert keys[6] == "v1_2_final"
    assert name_photos([tmp_path / name for name in names], tmp_path) == keys
    assert name_photos([Path("elsewhere/a.jpg")], tmp_path) == ["a"]


def test_many_photos_of_like_names_are_named_in_no_time():
    begun = time.perf_counter()
    keys = name_photos([Path(f"{chr(0x4E00 + n % 20000)}{n // 20000}.jpg") for n in range(20_000)])
    assert len(set(keys)) == 20_000
    assert time.perf_counter() - begun < 5


def test_photos_are_read_on_many_threads_at_once(tmp_path: Path):
    photo = photo_like(40, 40, seed=0)
    image = Image.fromarray(photo)
    ImageDraw.Draw(image).line((0, 0, 39, 39))
    data = as_bytes(image, icc_profile=SRGB)
    expected, wrong = read_photo(data), []
    limit = Image.MAX_IMAGE_PIXELS

    def read():
        wrong.extend(1 for _ in range(20) if not np.array_equal(read_photo(data), expected))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert limit == Image.MAX_IMAGE_PIXELS
