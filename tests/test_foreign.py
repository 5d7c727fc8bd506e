"""Indexes of tars that are not ours."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import time
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from conftest import photo_like
from faulty_server import Fault, FaultyServer
from PIL import Image
from webdataset.compat import WebDataset
from webdataset.writer import TarWriter

from agedphoto.datasets import ShardIndex, encode_photo, foreign, read_photo
from agedphoto.datasets.foreign import index_tars, name_split
from agedphoto.datasets.foreign_cache import CACHE_NAME
from agedphoto.datasets.ranges import RangeReader

ORIENTATION = 0x0112

# The library leaves closing its files to the collector.
quiet_webdataset = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning",
    "ignore:.*FileIO name=.*tar:pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch) -> Path:
    """Nothing is written into the caches of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache"


def picture(height: int, width: int, kind: str = "png", *, turn: int = 1, mode="RGB", **options):
    """Encode a picture with Pillow."""
    image = Image.fromarray(photo_like(height, width, seed=height)).convert(mode)
    exif = Image.Exif()
    if turn != 1:
        exif[ORIENTATION] = turn
    file = io.BytesIO()
    image.save(file, kind, **({"exif": exif} if turn != 1 else {}), **options)
    return file.getvalue()


def write_tar(
    path: Path, files: Mapping[str, bytes | bytearray], format: int = tarfile.USTAR_FORMAT
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def index_of(*paths: Path | str, **options) -> ShardIndex:
    return index_tars([str(path) for path in paths], root="", reader=RangeReader(), **options)


def by_tarfile(path: Path, name: str) -> bytes:
    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file
        return file.read()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_pictures_are_found_in_tars_of_every_format(tmp_path: Path, format: int):
    long = "" if format == tarfile.USTAR_FORMAT else "d" * 150 + "/"
    files = {
        "a/0001.png": picture(20, 30),
        "a/0001.json": b"{}" * 700,
        "a/0002.json": b"",
        "a/0002.JPG": picture(24, 16, "jpeg"),
        f"{long}0003.jpeg": picture(16, 16, "jpeg"),
        f"{long}0003.cls": b"5",
    }
    tar = write_tar(tmp_path / "train-000001.tar", files, format)
    index = index_of(tar)
    assert index.keys.tolist() == ["a/0001", "a/0002", f"{long}0003"]
    assert [s.extension for s in index.samples()] == ["png", "jpg", "jpeg"]
    assert list(zip(index.height.tolist(), index.width.tolist(), strict=True)) == [
        (20, 30), (24, 16), (16, 16)
    ]  # fmt: skip
    assert index.splits == ("train",)
    assert index.shards[0].bytes == tar.stat().st_size
    for number, name in enumerate(["a/0001.png", "a/0002.JPG", f"{long}0003.jpeg"]):
        assert index.read_bytes(number) == by_tarfile(tar, name)
        assert index.read(number).shape == read_photo(by_tarfile(tar, name)).shape


def test_sizes_written_in_pax_and_in_base_256_are_understood(tmp_path: Path):
    data = picture(16, 20)
    pax = tarfile.TarInfo("0001.png")
    pax.size, pax.pax_headers = len(data), {"size": str(len(data)), "path": "é/0001.png"}
    header = bytearray(tarfile.TarInfo("0002.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + len(data).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    body = data + bytes(-len(data) % 512)
    content = pax.tobuf(tarfile.PAX_FORMAT) + body + bytes(header) + body + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)
    index = index_of(tmp_path / "a.tar")
    assert index.keys.tolist() == ["é/0001", "0002"]
    assert [index.read_bytes(i) for i in range(2)] == [data, data]


@quiet_webdataset
def test_tars_by_the_webdataset_library_hold_what_it_reads_from_them(tmp_path: Path):
    path = tmp_path / "x-000000.tar"
    with TarWriter(str(path)) as tar:
        for number in range(5):
            photo = photo_like(16 + number, 20, seed=number)
            tar.write({"__key__": f"f/{number:04d}", "png": encode_photo(photo, "png"),
                       "txt": "words", "json": {"number": number}})  # fmt: skip
    index = index_of(path)
    read = list(WebDataset(str(path), shardshuffle=False))
    assert index.keys.tolist() == [sample["__key__"] for sample in read]
    for number, sample in enumerate(read):
        assert index.read_bytes(number) == sample["png"]
        np.testing.assert_array_equal(index.read(number), photo_like(16 + number, 20, seed=number))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_sizes_are_those_of_the_upright_picture(tmp_path: Path, kind: str, turn: int):
    data = picture(20, 36, kind, turn=turn)
    index = index_of(write_tar(tmp_path / "a.tar", {"x." + kind: data}))
    assert (index.height[0], index.width[0]) == read_photo(data).shape[:2]
    assert (index.height[0] > index.width[0]) == (turn >= 5)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("j2c", encode_photo(photo_like(20, 30, seed=0))),
        ("jp2", picture(20, 30, "jpeg2000")),
        ("webp", picture(20, 30, "webp", lossless=True)),
        ("webp", picture(20, 30, "webp", quality=50)),
        ("webp", picture(20, 30, "webp", icc_profile=b"x" * 6000)),
        ("webp", picture(20, 30, "webp", mode="RGBA", lossless=True)),
        ("gif", picture(20, 30, "gif")),
        ("bmp", picture(20, 30, "bmp")),
        ("ppm", picture(20, 30, "ppm")),
        ("tif", picture(20, 30, "tiff", compression="tiff_lzw")),
        ("png", picture(20, 30, mode="L")),
        ("jpg", picture(20, 30, "jpeg", mode="CMYK")),
        ("jpg", picture(20, 30, "jpeg", progressive=True)),
        # Headers that do not fit into the first read, nor into the second.
        ("jpg", picture(20, 30, "jpeg", comment=b"c" * 9000)),
        ("jpg", picture(20, 30, "jpeg", icc_profile=b"x" * 200_000)),
        ("jpg", picture(30, 20, "jpeg", turn=6, comment=b"c" * 60_000)),
    ],
)
def test_every_kind_of_picture_is_measured_from_its_head(tmp_path: Path, name: str, data: bytes):
    tar = write_tar(tmp_path / "a.tar", {f"x.{name}": data, "y.png": picture(8, 9)})
    for whole in (False, True):
        index = index_of(tar, whole=whole)
        assert list(zip(index.height.tolist(), index.width.tolist(), strict=True)) == [
            (20, 30), (8, 9)
        ]  # fmt: skip


def test_a_picture_that_is_read_to_and_fro_is_measured(tmp_path: Path):
    """A TIFF of which the directory lies behind more than is read at a time."""
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "tiff", compression="tiff_adobe_deflate")
    data = file.getvalue()
    assert len(data) > 4_194_304
    assert int.from_bytes(data[4:8], "little") > 4_194_304
    tar = write_tar(tmp_path / "a.tar", {"a.png": picture(16, 16), "x.tif": data})
    for whole in (False, True):
        index = index_of(tar, whole=whole)
        assert (index.height[1], index.width[1]) == (1300, 1200)
    assert index.crc32[1] == zlib.crc32(data)
    assert index.shards[0].sha256 == sha256(tar.read_bytes()).hexdigest()


def test_webp_by_another_encoder_is_measured(tmp_path: Path):
    photo = photo_like(21, 300, seed=0)
    for lossless in (True, False):
        data = imagecodecs.webp_encode(photo, lossless=lossless, level=50)
        tar = write_tar(tmp_path / f"{lossless}.tar", {"x.webp": data})
        index = index_of(tar)
        assert index.read(0).shape == (index.height[0], index.width[0], 3) == (21, 300, 3)


@quiet_webdataset
def test_names_are_read_as_webdataset_reads_them(tmp_path: Path):
    """Also hidden files, those without a dot, and folders with dots in their names."""
    data = picture(16, 16)
    names = ["./v1.0/a.png", "b.png", ".DS_Store", "._b.png", "README", "c.d/e.f.png"]
    tar = write_tar(tmp_path / "a.tar", dict.fromkeys(names, data))
    index = index_of(tar)
    keys = [s["__key__"] for s in WebDataset(str(tar), shardshuffle=False)]
    assert index.keys.tolist() == keys == ["./v1.0/a", "b", "c.d/e"]


def test_folders_links_and_empty_members_are_stepped_over(tmp_path: Path):
    data = picture(16, 16)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("x", tarfile.DIRTYPE),
            ("x/l.png", tarfile.SYMTYPE),
            ("x/f.png", tarfile.FIFOTYPE),
            ("x/h.png", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "x/0001.png"
            tar.addfile(member)
        member = tarfile.TarInfo("x/0001.txt")
        tar.addfile(member)
        member = tarfile.TarInfo("x/0001.png")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    index = index_of(tmp_path / "a.tar")
    assert index.keys.tolist() == ["x/0001"]
    assert index.read_bytes(0) == data


def test_the_first_plain_picture_of_a_sample_is_taken(tmp_path: Path):
    one, two = picture(16, 16), picture(18, 18)
    files = {"a.seg.png": two, "a.png": one, "b.png": one, "b.seg.png": two, "c.seg.png": two}
    index = index_of(write_tar(tmp_path / "a.tar", files))
    assert index.keys.tolist() == ["a", "b", "c"]
    assert index.height.tolist() == [16, 16, 18]
    several = {"a.png": one, "a.jpg": picture(20, 20, "jpeg"), "b.v1.png": two, "b.v2.png": one}
    path = write_tar(tmp_path / "b.tar", several)
    with pytest.warns(UserWarning, match=r"b.tar: 2 samples with several pictures, .*'a', 'b'"):
        index = index_of(path)
    assert index.height.tolist() == [16, 18]


def test_what_holds_no_picture_is_passed_over_and_told(tmp_path: Path):
    files = {"a.txt": b"words", "b.png": picture(16, 16), "c.png": b"not a picture", "d.jpg": b"",
             "e.json": b"{}"}  # fmt: skip
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.warns(UserWarning, match=r"a\.tar: ") as told:
        index = index_of(path)
    assert index.keys.tolist() == ["b"]
    (message,) = [str(warning.message) for warning in told]
    assert "2 samples without a picture, passed over: 'a', 'e'" in message
    assert "2 pictures that cannot be read, passed over: 'c.png' (" in message
    path = write_tar(tmp_path / "b.tar", {"a.txt": b"", "b.txt": b""})
    with (
        pytest.warns(UserWarning, match="2 samples without"),
        pytest.raises(ValueError, match=r"no pictures in .*b.tar; looked for .* jpg .* png"),
    ):
        index_of(path)
    path = write_tar(tmp_path / "c.tar", {})
    with pytest.raises(ValueError, match=r"no pictures in .*c.tar"):
        index_of(path)


def test_one_name_twice_in_a_sample_is_refused_and_keys_may_come_again(tmp_path: Path):
    data = picture(16, 16)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.png", "a.PNG"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match=r"a.tar holds 'a.PNG' twice in one sample"):
        index_of(tmp_path / "a.tar")
    files = {"a.png": data, "b.png": data}
    one, two = (write_tar(tmp_path / f"{n}-0.tar", files) for n in "xy")
    index = index_of(one, two)
    assert index.keys.tolist() == ["a", "b", "a", "b"]
    assert index.shard.tolist() == [0, 0, 1, 1]


def test_a_tar_cut_anywhere_is_refused(tmp_path: Path):
    """Of what tarfile and webdataset take for a shorter tar nothing is lost in silence."""
    files = {"a.png": picture(16, 16), "b.json": b"{}" * 300, "b.png": picture(20, 20)}
    whole = write_tar(tmp_path / "whole.tar", files, tarfile.PAX_FORMAT).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        end = max(m.offset_data + -(-m.size // 512) * 512 for m in tar)
    path = tmp_path / "a.tar"
    cuts = [*range(1, end + 512, 97), *range(512, end + 1, 512), end - 1, end + 511]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=rf"a.tar is cut short: it ends at byte {cut}, with"):
            index_of(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.tar is empty"):
        index_of(path)
    # Its end mark is there: nothing is lost.
    path.write_bytes(whole[: end + 512])
    assert len(index_of(path)) == 2


def test_what_is_no_plain_tar_is_refused_with_the_remedy(tmp_path: Path):
    good = write_tar(tmp_path / "good.tar", {"a.png": picture(16, 16)}).read_bytes()
    bad = tmp_path / "bad.tar"
    for content, message in (
        (gzip.compress(good), "bad.tar is compressed .*; gunzip it first"),
        (bz2.compress(good), "bunzip2 it first"),
        (lzma.compress(good), "unxz it first"),
        (b"\x28\xb5\x2f\xfd" + good, "unzstd it first"),
        (b"<html>" * 200, "bad.tar is not a tar file"),
        (good[:1024].replace(b"ustar", b"xxxxx") + good[1024:], "bad.tar is not a tar file"),
        (good[:-9216] + b"\x01" * 9216, "is damaged: no header at byte|goes on behind its end"),
        (good + good, f"bad.tar goes on behind its end, at byte {len(good)}"),
    ):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            index_of(bad)
    sparse = tarfile.TarInfo("a.png")
    sparse.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,5", "GNU.sparse.size": "99"}
    bad.write_bytes(sparse.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    with pytest.raises(ValueError, match=r"bad.tar holds the sparse file 'a.png'"):
        index_of(bad)
    with pytest.raises(ValueError, match=r"no such shard: .*missing.tar"):
        index_of(tmp_path / "good.tar", tmp_path / "missing.tar")


def test_checksums_are_unknown_until_all_is_read(tmp_path: Path):
    files = {f"{n}.png": picture(16 + n, 30) for n in range(6)} | {"z.txt": os.urandom(70_000)}
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.warns(UserWarning, match="1 samples without"):
        index = index_of(path)
    assert set(index.crc32.tolist()) == {-1}
    assert index.shards[0].sha256 == ""
    with pytest.warns(UserWarning, match="1 samples without"):
        whole = index_of(path, whole=True)
    assert whole.crc32.tolist() == [zlib.crc32(files[f"{n}.png"]) for n in range(6)]
    assert whole.shards[0].sha256 == sha256(path.read_bytes()).hexdigest()
    for other in (index, whole):
        np.testing.assert_array_equal(other.offset, whole.offset)
        np.testing.assert_array_equal(other.height, whole.height)
    # Known by now, so it stays known.
    assert index_of(path).shards == whole.shards


@pytest.mark.parametrize(
    ("url", "split"),
    [
        ("a/train-000000.tar", "train"),
        ("div2k_valid.03.tar", "div2k_valid"),
        ("s3://b/x/imagenet1k-train-0012.tar", "imagenet1k-train"),
        ("https://h/train-{0}.tar?sig=1", "train-{0}"),
        ("photos.tar", "photos"),
        ("00012.tar", "train"),
        ("v2_shard_7.tar", "v2_shard"),
    ],
)
def test_the_split_is_the_name_without_its_number(url: str, split: str):
    assert name_split(url) == split


def scans(monkeypatch) -> list[str]:
    """Tars that are looked through from now on."""
    seen: list[str] = []
    scan = foreign._scan

    def seeing(url: str, *rest):
        seen.append(url)
        return scan(url, *rest)

    monkeypatch.setattr(foreign, "_scan", seeing)
    return seen


def test_an_index_is_kept_beside_the_tars_until_one_changes(tmp_path: Path, monkeypatch):
    one, two = (write_tar(tmp_path / "d" / f"{n}.tar", {"a.png": picture(16, 16)}) for n in "ab")
    seen = scans(monkeypatch)
    first = index_of(one, two)
    assert (tmp_path / "d" / CACHE_NAME).exists()
    assert index_of(one, two).to_json() == first.to_json()
    assert seen == [str(one), str(two)]
    assert index_of(two).keys.tolist() == ["a"]
    assert len(seen) == 2
    # One changes, with the same size; only this one is looked through.
    seen.clear()
    write_tar(two, {"b.png": picture(16, 16)})
    os.utime(two, (1, 1))
    assert index_of(one, two).keys.tolist() == ["a", "b"]
    assert seen == [str(two)]
    # A tar more, and one that is gone and then another.
    seen.clear()
    three = write_tar(tmp_path / "d" / "c.tar", {"c.png": picture(16, 16)})
    two.unlink()
    assert index_of(one, three).keys.tolist() == ["a", "c"]
    assert seen == [str(three)]
    assert "b.tar" not in (tmp_path / "d" / CACHE_NAME).read_text()


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"{}\n" + b, lambda b: b"\xff\n\xff",
     lambda b: b.replace(b'"a"', b'"z"'), lambda b: b'{"tars":{"a.tar":[1]}}\n{}'],
)  # fmt: skip
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage):
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(16, 16)})
    good = index_of(path).to_json()
    cache = tmp_path / CACHE_NAME
    content = cache.read_bytes()
    cache.write_bytes(damage(content))
    assert index_of(path).to_json() == good
    assert cache.read_bytes() == content


def test_where_the_folder_is_read_only_the_users_cache_takes_it(
    tmp_path: Path, user_cache: Path, monkeypatch
):
    path = write_tar(tmp_path / "d" / "a.tar", {"a.png": picture(16, 16)})
    # A folder in its place: as root nothing is read-only.
    (tmp_path / "d" / CACHE_NAME).mkdir()
    seen = scans(monkeypatch)
    good = index_of(path).to_json()
    assert len(list((user_cache / "agedphoto" / "indexes").iterdir())) == 1
    assert index_of(path).to_json() == good
    assert len(seen) == 1
    # And where that cannot be written either, it works without.
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert index_of(path).to_json() == good
    assert len(seen) == 2


def test_a_remote_tar_is_looked_through_by_ranges_and_only_once(
    server: FaultyServer, user_cache: Path
):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(10):
            noise = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
            for name, data in ((f"{number}.png", encode_photo(noise, "png")),
                               (f"{number}.json", b"{}")):  # fmt: skip
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    server.files["/x/a-0.tar"] = file.getvalue()
    server.faults["/x/a-0.tar"] = [Fault("drop", 0), Fault("none"), Fault("status", 500)]
    reader = RangeReader()
    url = f"{server.url}/x/a-0.tar"
    index = index_tars([url], root=f"{server.url}/x", reader=reader)
    assert index.height.tolist() == [300] * 10
    assert index.shards[0].name == "a-0.tar"
    assert reader.counts.bytes_read < len(file.getvalue()) * 0.2
    assert len(server.requests) <= 10 + 5
    assert index.read(3, reader).shape == (300, 400, 3)
    before = len(server.requests)
    again = index_tars([url], root=f"{server.url}/x", reader=RangeReader())
    assert again.to_json() == index.to_json()
    assert len(server.requests) == before + 1
    assert json.loads(next((user_cache / "agedphoto/indexes").iterdir()).read_text().split("\n")[0])
    # Another ETag, another tar.
    server.files["/x/a-0.tar"] = file.getvalue()[:-1] + b"\0\0"
    index_tars([url], root="", reader=RangeReader())
    assert len(server.requests) > before + 2


def test_small_pictures_are_read_many_at_a_time(server: FaultyServer):
    files = {f"{n:04d}.png": picture(16, 16) for n in range(500)}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    server.files["/a.tar"] = file.getvalue()
    index = index_of(f"{server.url}/a.tar")
    assert len(index) == 500
    assert len(server.requests) < 15


def test_a_remote_tar_that_is_cut_short_is_named(server: FaultyServer, tmp_path: Path):
    whole = write_tar(tmp_path / "a.tar", {f"{n}.png": picture(16, 16) for n in range(9)})
    server.files["/a.tar"] = whole.read_bytes()[:5000]
    with pytest.raises(ValueError, match=f"{server.url}/a.tar is cut short: it ends at byte 5000"):
        index_of(f"{server.url}/a.tar")
    with pytest.raises(ValueError, match=f"no such shard: {server.url}/b.tar"):
        index_of(f"{server.url}/b.tar")


def test_a_thousand_pictures_are_indexed_in_a_fraction_of_a_second(tmp_path: Path):
    small = {"jpg": picture(64, 64, "jpeg"), "png": picture(64, 64)}
    files: dict[str, bytes] = {}
    for number in range(1000):
        kind = "jpg" if number % 2 else "png"
        files |= {f"{number:06d}.{kind}": small[kind], f"{number:06d}.json": b"{}"}
    path = write_tar(tmp_path / "a.tar", files)
    begun = time.process_time()
    index = index_of(path)
    taken = time.process_time() - begun
    assert len(index) == 1000
    # Measured: 0.07 s.
    assert taken < 0.5
