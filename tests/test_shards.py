"""Writing shards."""

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from agedphoto.datasets import (
    FORMATS,
    decode_photo,
    encoding,
    find_inputs,
    find_photos,
    open_index,
    read_photo,
    shards,
    write_shards,
)
from agedphoto.datasets.codecs import CODECS
from agedphoto.datasets.inputs import FileInput
from agedphoto.datasets.locks import locking
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
            json.load(tar.extractfile(f"{key}.json"))["source"]  # type: ignore[arg-type]
            for key in index.keys.tolist()
        ]
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
def test_a_full_disk_leaves_what_was_there_and_what_was_finished(
    photos: Path, tmp_path: Path, monkeypatch, room
):
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    for folder in (out, undisturbed):
        write_shards(find_photos(photos)[:2], folder, split="valid")
    before = contents(out)
    with monkeypatch.context() as patch:
        disk = FullDisk(room)
        patch.setattr(Path, "open", lambda path, *a, **o: disk.open(path, *a, **o))
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_shards(find_photos(photos), out, shard_bytes=1)
    left = contents(out)
    assert {name: left.pop(name) for name in before} == before
    num_finished = len([name for name in left if name.endswith(".tar")])
    assert (room < 10_000) == (num_finished == 0) == (left == {})
    assert not any(name.endswith((".part", ".lock")) for name in left)
    if num_finished:
        assert len(left) == 2 * num_finished + 1
        assert caught.value.__notes__ == [
            f"{num_finished} finished shards stay in {out}; the same command goes on after them"
        ]
    again = write_shards(find_photos(photos), out, shard_bytes=1)
    assert again.resumed == num_finished
    write_shards(find_photos(photos), undisturbed, shard_bytes=1)
    assert contents(out) == contents(undisturbed)


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
        ({"num_threads": 0}, "num_threads must be at least 1, got 0"),
        ({"format": "tiff"}, "unknown format 'tiff'; there are: htj2k, .*, keep"),
        ({"part": (0, 3)}, "part must be I/N with 1 <= I <= N <= 99999, got 0/3"),
        ({"part": (4, 3)}, "part must be .* got 4/3"),
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


class StopAfter:
    """Encodes so many photographs, then fails as if the machine went down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
        left = [count]
        whole = encoding.PhotoEncoder._encode

        def encode(self, photo, key):
            left[0] -= 1
            if left[0] < 0:
                raise error
            return whole(self, photo, key)

        monkeypatch.setattr(encoding.PhotoEncoder, "_encode", encode)


@pytest.mark.parametrize("done", range(6))
def test_the_same_call_goes_on_after_an_interrupt_to_the_same_bytes(
    photos: Path, tmp_path: Path, monkeypatch, done
):
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    (photos / "0002.png").write_bytes(b"no photograph")
    options = {"root": photos, "shard_bytes": 1, "num_threads": 1}
    with monkeypatch.context() as patch:
        StopAfter(patch, done, KeyboardInterrupt())
        if done < 5:
            with pytest.raises(KeyboardInterrupt):
                write_shards(find_photos(photos), out, **options)
            assert not (out / "index.json").exists()
            assert out.exists() == (done > 0)
        else:
            write_shards(find_photos(photos), out, **options)
    if done < 5:
        result = write_shards(find_photos(photos), out, **options)
        assert [path.name for path, _ in result.rejected] == ["0002.png"]
        assert result.written == 4
    write_shards(find_photos(photos), undisturbed, **options)
    assert contents(out) == contents(undisturbed)


def interrupted(photos: Path, out: Path, monkeypatch, **options) -> None:
    with monkeypatch.context() as patch:
        StopAfter(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as caught:
            write_shards(find_photos(photos), out, shard_bytes=1, num_threads=1, **options)
    assert "the same command goes on" in caught.value.__notes__[0]


def test_a_finished_shard_that_is_gone_is_made_again(photos: Path, tmp_path: Path, monkeypatch):
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    interrupted(photos, out, monkeypatch)
    (out / "train-000000.tar").unlink()
    assert write_shards(find_photos(photos), out, shard_bytes=1).resumed == 0
    write_shards(find_photos(photos), undisturbed, shard_bytes=1)
    assert contents(out) == contents(undisturbed)


def test_a_torn_journal_is_taken_as_far_as_it_is_whole(photos: Path, tmp_path: Path, monkeypatch):
    undisturbed = tmp_path / "undisturbed"
    write_shards(find_photos(photos), undisturbed, shard_bytes=1)
    interrupted(photos, tmp_path / "out", monkeypatch)
    journal = (tmp_path / "out" / ".train.journal").read_bytes()
    for number, size in enumerate([0, 10, len(journal) - 1, len(journal) - 40, len(journal)]):
        out = tmp_path / f"out{number}"
        shutil.copytree(tmp_path / "out", out)
        (out / ".train.journal").write_bytes(journal[:size])
        if size <= 10:
            # Not even the plan is there: the tars could be anybody's.
            with pytest.raises(ValueError, match=r"train-000000.tar is there already"):
                write_shards(find_photos(photos), out, shard_bytes=1)
            assert (out / "train-000000.tar").exists()
            continue
        write_shards(find_photos(photos), out, shard_bytes=1)
        assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "png"}, "format was 'htj2k', is 'png'"),
        ({"format": "jpeg", "quality": 9}, "format was 'htj2k', is 'jpeg'; quality was None, is 9"),
        ({"shard_bytes": 2}, "shard_bytes was 1, is 2"),
        ({"pixel_limit": 7}, "pixel_limit was 250000000, is 7"),
    ],
)
def test_a_run_of_other_options_does_not_go_on(
    photos: Path, tmp_path: Path, monkeypatch, options, message
):
    out = tmp_path / "out"
    interrupted(photos, out, monkeypatch)
    before = contents(out)
    with pytest.raises(ValueError, match=message) as caught:
        write_shards(find_photos(photos), out, **({"shard_bytes": 1} | options))
    assert "or delete .train.journal and train-* there to begin anew" in str(caught.value)
    assert contents(out) == before


def test_a_run_of_other_photos_does_not_go_on(photos: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "out"
    interrupted(photos, out, monkeypatch)
    with pytest.raises(ValueError, match="photos was 5, is 4; the photographs have other names"):
        write_shards(find_photos(photos)[:4], out, shard_bytes=1)
    os.utime(photos / "0004.png", ns=(1, 1))
    with pytest.raises(
        ValueError,
        match=r"begun otherwise in .*: a photograph has changed, by its size or time; go on as",
    ):
        write_shards(find_photos(photos), out, shard_bytes=1)


def test_what_killed_runs_have_left_is_swept_and_what_is_not_ours_is_not(
    photos: Path, tmp_path: Path, monkeypatch
):
    out = tmp_path / "out"
    interrupted(photos, out, monkeypatch)
    ours = [".train-000007.tar.0a1b2c3d.part", ".train-000007.idx.0a1b2c3d.part"]
    ours += [".index.json.0a1b2c3d.part", ".rejected.jsonl.0a1b2c3d.part", "train-000009.tar"]
    others = [".valid-000000.tar.0a1b2c3d.part", ".train-00002-000000.tar.0a1b2c3d.part", "a.part"]
    for name in (*ours, *others):
        (out / name).write_bytes(b"")
    write_shards(find_photos(photos), out, shard_bytes=1)
    for name in ours:
        assert not (out / name).exists()
    for name in others:
        assert (out / name).exists()


def test_two_runs_at_a_time_of_the_same_split_are_refused(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    with locking(out / ".train.lock", wait_s=0):
        with pytest.raises(ValueError, match="another run is writing these shards at this moment"):
            write_shards(find_photos(photos), out)
        write_shards(find_photos(photos), out, split="valid")
    write_shards(find_photos(photos), out)
    assert open_index(out).splits == ("valid", "train")
    assert not [name for name in contents(out) if name.startswith(".")]


def test_splits_written_at_the_same_time_are_all_in_the_index(photos: Path, tmp_path: Path):
    out, names = tmp_path / "out", [f"split{n}" for n in range(6)]
    out.mkdir()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda name: write_shards(find_photos(photos), out, split=name), names))
    index = open_index(out)
    assert sorted(index.splits) == names
    for name in names:
        part = index.of_split(name)
        assert len(part) == len(SIZES)
        np.testing.assert_array_equal(part.read(4), read_photo(photos / "0004.png"))


def test_what_cannot_be_read_is_listed_for_each_split(photos: Path, make_photos, tmp_path: Path):
    out = tmp_path / "out"
    (photos / "0001.png").write_bytes(b"text")
    write_shards(find_photos(photos), out, root=photos)
    other = make_photos([(8, 8)] * 2, folder="other")
    (other / "two\nlines é.png").write_bytes(b"")
    write_shards(find_photos(other), out, split="valid", root=other)
    rows = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert rows == [
        {"split": "train", "source": "0001.png", "reason": "not a picture that can be read here"},
        {
            "split": "valid",
            "source": "two\nlines é.png",
            "reason": "not a picture that can be read here",
        },
    ]


def test_a_split_written_anew_takes_its_rejects_off_the_list(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    good = (photos / "0001.png").read_bytes()
    (photos / "0001.png").write_bytes(b"text")
    write_shards(find_photos(photos), out, split="valid")
    assert (out / "rejected.jsonl").exists()
    (photos / "0001.png").write_bytes(good)
    for path in (*out.glob("valid-*"), out / "index.json"):
        path.unlink()
    write_shards(find_photos(photos), out, split="valid")
    assert not (out / "rejected.jsonl").exists()


def test_kept_photos_are_the_same_bytes_and_decode_upright(tmp_path: Path):
    root = tmp_path / "photos"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(photo_like(20, 30, seed=0))
    photo.save(root / "a.JPG", exif=exif, quality=80)
    photo.convert("CMYK").save(root / "b.tiff")
    photo.convert("L").save(root / "c.png")
    (root / "d.jpg").write_bytes((root / "a.JPG").read_bytes()[:-100])
    photo.save(root / "e.notes", "PNG")
    paths = [*find_photos(root), root / "e.notes"]
    result = write_shards(paths, tmp_path / "out", root=root, format="keep")
    index = result.index
    assert [path.name for path, _ in result.rejected] == ["d.jpg", "e.notes"]
    assert "rename it or use another format" in result.rejected[1][1]
    assert [index.extensions[code] for code in index.extension] == ["jpg", "tiff", "png"]
    for number, path in enumerate([root / "a.JPG", root / "b.tiff", root / "c.png"]):
        assert index.read_bytes(number) == path.read_bytes()
        np.testing.assert_array_equal(index.read(number), read_photo(path))
    assert (index.height.tolist(), index.width.tolist()) == ([30, 20, 20], [20, 30, 30])


def test_members_of_a_zip_give_the_same_shards_as_their_files(photos: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(photos.iterdir(), reverse=True):
            archive.write(path, f"DIV2K_train_HR/{path.name}")
    write_shards(find_inputs(tmp_path / "all.zip"), tmp_path / "a")
    write_shards(find_inputs(photos), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_huge_photo_waits_for_memory_and_the_shards_are_the_same(
    photos: Path, tmp_path: Path, monkeypatch
):
    write_shards(find_photos(photos), tmp_path / "a", num_threads=4)
    monkeypatch.setattr(shards, "available_bytes", lambda _: 8)
    monkeypatch.setattr(shards, "AHEAD_BYTES", 0)
    write_shards(find_photos(photos), tmp_path / "b", num_threads=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_many_photos_are_sharded_in_bounded_memory(make_photos, tmp_path: Path):
    """What is alive while 300 photographs pass does not grow with their number."""
    root = make_photos([(64, 64)])
    path = root / "0000.png"

    def peak(count: int) -> int:
        inputs = [FileInput(path, f"{number}.png") for number in range(count)]
        tracemalloc.start()
        write_shards(inputs, tmp_path / f"out{count}", num_threads=2)
        (_, most), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
        return most

    peak(5)
    stored = path.stat().st_size
    assert peak(300) - peak(20) < 280 * stored / 4


def test_a_shard_that_cannot_be_a_tar_member_is_not_written(tmp_path: Path):
    """Names of 100 characters are the end of what every reader of tars knows."""
    photo = tmp_path / f"{'n' * 200}.png"
    Image.fromarray(photo_like(8, 8, seed=0)).save(photo)
    index = write_shards([photo], tmp_path / "out").index
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        assert tar.getnames() == [f"{'n' * 80}.j2c", f"{'n' * 80}.json"]
        for member in tar.getmembers():
            assert member.pax_headers == {}
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
    assert len(index) == 1
