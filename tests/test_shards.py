"""Writing shards."""

import errno
import hashlib
import io
import json
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from agedphoto.datasets import (
    FORMATS,
    decode_photo,
    find_photos,
    open_index,
    read_photo,
    write_shards,
)
from agedphoto.datasets.codecs import CODECS
from agedphoto.datasets.shards import map_ahead
from tests.conftest import photo_like

SIZES = [(20, 30), (24, 16), (16, 16), (18, 40), (30, 30)]


@pytest.fixture
def photos(make_photos) -> Path:
    return make_photos(SIZES)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_photos_give_the_same_bytes(photos: Path, tmp_path: Path):
    for name, threads in (("a", 1), ("b", 4)):
        write_shards(find_photos(photos), tmp_path / name, num_threads=threads, shard_bytes=3000)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) > 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # WebDataset leaves the tar open.
@pytest.mark.parametrize("format", FORMATS)
def test_webdataset_gives_back_the_photos_in_order(photos: Path, tmp_path: Path, format):
    result = write_shards(find_photos(photos), tmp_path / "out", format=format)
    extension = CODECS[format].extension
    url = (tmp_path / "out" / "train-000000.tar").as_uri()
    samples = list(WebDataset(url, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{n:04d}" for n in range(len(SIZES))]
    for sample, path in zip(samples, find_photos(photos), strict=True):
        photo, source = decode_photo(sample[extension], extension), read_photo(path)
        if CODECS[format].lossless:
            np.testing.assert_array_equal(photo, source)
        facts = json.loads(sample["json"])
        assert facts == {
            "height": source.shape[0],
            "width": source.shape[1],
            "source": path.name,
            "sha256": hashlib.sha256(sample[extension]).hexdigest(),
        }
    assert (result.written, result.rejected) == (len(SIZES), ())


def test_a_codestream_is_read_by_pillow_too(photos: Path, tmp_path: Path):
    write_shards(find_photos(photos), tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        file = tar.extractfile("0001.j2c")
        assert file
        data = file.read()
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(pixels, read_photo(photos / "0001.png"))


def test_a_shard_is_closed_when_it_has_reached_its_size(photos: Path, tmp_path: Path):
    def count(shard_bytes: int) -> int:
        out = tmp_path / f"out{shard_bytes}"
        index = write_shards(find_photos(photos), out, shard_bytes=shard_bytes).index
        assert sorted(path.name for path in out.glob("*.tar")) == [s.name for s in index.shards]
        for number, shard in enumerate(index.shards):
            assert (out / shard.name).stat().st_size == shard.bytes
            assert hashlib.sha256((out / shard.name).read_bytes()).hexdigest() == shard.sha256
            sizes = index.size[index.shard == number]
            assert sizes[:-1].sum() < shard_bytes
        return len(index.shards)

    assert count(1) == len(SIZES)
    assert 1 < count(2500) < len(SIZES)
    assert count(10**6) == 1


def test_keys_and_sources_are_relative_to_the_root(tmp_path: Path):
    root = tmp_path / "photos"
    for name in ("a/x.v2.png", "b/x.v2.png", "日.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo_like(16, 16, seed=0)).save(root / name)
    index = write_shards(find_photos(root), tmp_path / "out", root=root).index
    assert index.keys.tolist() == ["a-x_v2", "b-x_v2", "_"]
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        sources = [
            json.load(tar.extractfile(f"{key}.json"))["source"] for key in index.keys.tolist()
        ]  # type: ignore[arg-type]
    assert sources == ["a/x.v2.png", "b/x.v2.png", "日.png"]


def test_a_second_split_joins_the_first(photos: Path, make_photos, tmp_path: Path):
    out = tmp_path / "out"
    write_shards(find_photos(photos), out)
    before = contents(out)
    more = make_photos([(16, 16), (17, 17)], folder="more", seed=50)
    result = write_shards(find_photos(more), out, split="valid_2")
    assert (len(result.index), result.written) == (len(SIZES) + 2, 2)
    assert result.index.splits == ("train", "valid_2")
    assert contents(out)["train-000000.tar"] == before["train-000000.tar"]
    index = open_index(out)
    assert index.fingerprint == result.index.fingerprint
    np.testing.assert_array_equal(index.read(len(SIZES) + 1), read_photo(more / "0001.png"))


def test_a_split_that_is_there_is_not_written_again(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    write_shards(find_photos(photos), out)
    before = contents(out)
    with pytest.raises(ValueError, match=f"{out} already holds the split 'train'; choose another"):
        write_shards(find_photos(photos), out)
    assert contents(out) == before


def test_a_tar_that_is_not_ours_is_not_overwritten(photos: Path, tmp_path: Path):
    (tmp_path / "train-000003.tar").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match=r"train-000003.tar is there already and in no index"):
        write_shards(find_photos(photos), tmp_path)
    assert (tmp_path / "train-000003.tar").read_bytes() == b"somebody's"
    assert not (tmp_path / "index.json").exists()


def test_an_index_that_is_not_ours_stays(photos: Path, tmp_path: Path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="has version None"):
        write_shards(find_photos(photos), tmp_path)
    assert (tmp_path / "index.json").read_text() == "{}"


def test_photos_that_cannot_be_read_are_named_and_the_rest_is_done(photos: Path, tmp_path: Path):
    (photos / "0001.png").write_bytes(b"text")
    (photos / "0003.png").write_bytes((photos / "0003.png").read_bytes()[:200])
    result = write_shards(find_photos(photos), tmp_path / "out", pixel_limit=700)
    assert result.index.keys.tolist() == ["0000", "0002"]
    assert [path.name for path, _ in result.rejected] == ["0001.png", "0003.png", "0004.png"]
    for path, reason in result.rejected:
        assert reason.startswith(f"{path}: ")
    assert len(open_index(tmp_path / "out")) == result.written == 2


def test_a_photo_too_large_for_its_format_is_named_and_the_rest_is_done(tmp_path: Path):
    Image.new("RGB", (16384, 1)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "b.png")
    result = write_shards(find_photos(tmp_path), tmp_path / "out", format="webp")
    assert result.index.keys.tolist() == ["b"]
    ((path, reason),) = result.rejected
    assert path == tmp_path / "a.png"
    assert reason.startswith(f"{path}: a photograph of 16384 x 1 px cannot be written as webp")


def test_no_photo_that_can_be_read_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=f"none of 1 .* the first: {tmp_path / 'a.png'}: not a"):
        write_shards([tmp_path / "a.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="none of 1"):
        write_shards([tmp_path / "a.png"], tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


class FullDisk:
    """A disk that has room for so many more bytes of unfinished files."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._open = Path.open

    def open(self, path: Path, *arguments, **options):
        if path.suffix != ".part" or "xb" not in arguments:
            return self._open(path, *arguments, **options)
        disk = self

        class File(io.FileIO):
            def write(self, data) -> int:
                disk.room -= len(data)
                if disk.room < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return super().write(data)

        return io.BufferedWriter(File(path, "xb"), 16)


@pytest.mark.parametrize("room", [0, 5_000, 30_000, 45_000, 52_000])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    photos: Path, tmp_path: Path, monkeypatch, room
):
    out = tmp_path / "out"
    write_shards(find_photos(photos)[:2], out, split="valid")
    before = contents(out)
    with monkeypatch.context() as patch:
        disk = FullDisk(room)
        patch.setattr(Path, "open", lambda path, *a, **o: disk.open(path, *a, **o))
        with pytest.raises(OSError, match="No space left on device"):
            write_shards(find_photos(photos), out, shard_bytes=1)
    assert contents(out) == before
    write_shards(find_photos(photos), out, shard_bytes=1)
    assert open_index(out).splits == ("valid", "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "Train"}, "split must be lower-case letters, digits and _, got 'Train'"),
        ({"split": ""}, "split must be"),
        ({"split": "a-b"}, "split must be"),
        ({"split": "../a"}, "split must be"),
        ({"split": "train\n"}, "split must be"),
        ({"split": "é"}, "split must be"),
        ({"quality": 0}, "quality must be 1 to 100, got 0"),
        ({"quality": 101}, "quality must be 1 to 100, got 101"),
        ({"shard_bytes": 0}, "shard_bytes must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_made(
    photos: Path, tmp_path: Path, options, message
):
    with pytest.raises(ValueError, match=message):
        write_shards(find_photos(photos), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_photos_at_all_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="photos is empty"):
        write_shards([], tmp_path / "out")


def test_a_split_may_be_a_number(photos: Path, tmp_path: Path):
    assert write_shards(find_photos(photos), tmp_path / "out", split="2024").written == len(SIZES)


def test_mapping_ahead_keeps_the_order_and_runs_no_further_than_told():
    from concurrent.futures import ThreadPoolExecutor

    begun, lock = [], threading.Lock()

    def double(number: int) -> int:
        with lock:
            begun.append(number)
        return 2 * number

    with ThreadPoolExecutor(3) as threads:
        mapped = map_ahead(threads, double, iter(range(50)), ahead=4)
        got = []
        for value in mapped:
            got.append(value)
            assert len(begun) <= len(got) + 4
    assert got == [2 * number for number in range(50)]


def test_mapping_ahead_passes_on_errors():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as threads, pytest.raises(ZeroDivisionError):
        list(map_ahead(threads, lambda number: 1 // (number - 3), range(9), ahead=2))
