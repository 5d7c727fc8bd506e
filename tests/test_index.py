"""The index of a set of shards."""

import json
import shutil
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from agedphoto.datasets import ShardIndex, open_index, read_photo, write_shards
from agedphoto.datasets.index import INDEX_NAME

SIZES = [(20, 30), (24, 16), (16, 16), (18, 40)]


@pytest.fixture
def shards(make_shards) -> Path:
    """Four photos in two shards."""
    return make_shards(SIZES, shard_bytes=2500)


def edit(shards: Path, change) -> None:
    path = shards / INDEX_NAME
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def test_the_index_says_where_every_photo_lies(shards: Path, tmp_path: Path):
    """The bytes are read by hand, and decoded by another library."""
    index = open_index(shards)
    assert len(index) == len(SIZES)
    assert list(zip(index.height.tolist(), index.width.tolist(), strict=True)) == SIZES
    assert index.decoded_bytes.tolist() == [3 * h * w for h, w in SIZES]
    for number, path in enumerate(sorted((tmp_path / "shards-photos").iterdir())):
        shard = shards / index.shards[index.shard[number]].name
        data = shard.read_bytes()[index.offset[number] :][: index.size[number]]
        np.testing.assert_array_equal(read_photo(data), read_photo(path))
        np.testing.assert_array_equal(index.read(number), read_photo(path))


def test_an_index_comes_back_as_it_was(shards: Path):
    index = open_index(shards)
    again = ShardIndex.from_json(index.root, index.to_json())
    rows = ShardIndex.from_samples(index.root, index.shards, index.samples())
    for other in (again, rows, open_index(str(shards) + "/"), open_index(shards / INDEX_NAME)):
        assert other.to_json() == index.to_json()
        assert other.fingerprint == index.fingerprint
        assert other.root == index.root


def test_an_index_without_samples_is_possible():
    index = ShardIndex.from_samples("nowhere", [], [])
    assert (len(index), index.splits, index.samples()) == (0, (), [])
    with pytest.raises(ValueError, match="no split 'train' in nowhere; there are: none"):
        index.of_split("train")


def test_the_fingerprint_tells_sets_apart(make_shards):
    def fingerprint(name, *arguments, **options):
        return open_index(make_shards(*arguments, name=name, **options)).fingerprint

    first = fingerprint("a", SIZES)
    assert fingerprint("b", SIZES) == first
    assert fingerprint("c", SIZES[:3]) != first
    assert fingerprint("d", [(16, 20), *SIZES[1:]]) != first
    assert fingerprint("e", SIZES, format="png") != first
    assert fingerprint("f", SIZES, split="valid") != first
    index = open_index(make_shards(SIZES, name="g"))
    assert index.select(np.array([1, 0, 2, 3])).fingerprint != first


def test_a_split_keeps_its_fingerprint_when_another_joins(shards: Path, make_photos):
    """Else training could not go on after a validation set was added."""
    before = open_index(shards).of_split("train").fingerprint
    more = make_photos([(16, 16)], folder="more", seed=9)
    write_shards(sorted(more.iterdir()), shards, split="valid")
    index = open_index(shards)
    assert index.splits == ("train", "valid")
    assert index.of_split("train").fingerprint == before
    assert index.of_split("valid").fingerprint != before
    np.testing.assert_array_equal(index.of_split("valid").read(0), read_photo(more / "0000.png"))
    with pytest.raises(ValueError, match=r"no split 'test' in .*; there are: train, valid"):
        index.of_split("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["samples"]["key"].__setitem__(0, "other"), "was edited or cut short"),
        (lambda c: c["samples"]["extension"].__setitem__(0, "png"), "is not an index of shards"),
        (lambda c: c["extensions"].__setitem__(0, "png"), "was edited or cut short"),
        (lambda c: c["samples"]["height"].__setitem__(0, 99), "was edited or cut short"),
        (lambda c: c["samples"]["width"].__delitem__(0), "was edited or cut short"),
        (lambda c: c["shards"][0].__setitem__("split", "x"), "was edited or cut short"),
        (lambda c: c["samples"]["shard"].__setitem__(0, 7), "is not an index of shards"),
        (lambda c: c["samples"]["size"].__setitem__(0, "x"), "is not an index of shards"),
        (lambda c: c["samples"]["size"].__setitem__(0, 2**70), "is not an index of shards"),
        (lambda c: c["samples"].__delitem__("offset"), "is not an index of shards"),
        (lambda c: c.__delitem__("fingerprint"), "is not an index of shards"),
        (lambda c: c["shards"][0].__delitem__("sha256"), "is not an index of shards"),
        (lambda c: c.__setitem__("samples", []), "is not an index of shards"),
        (lambda c: c.__setitem__("version", 99), "has version 99, this agedphoto reads 2"),
        (lambda c: {"shards": [], "version": 1}, "has version 1, this agedphoto reads 2"),
        (lambda c: [c], "is not an index of shards"),
    ],
)
def test_an_index_that_is_not_ours_is_refused(shards: Path, change, message):
    edit(shards, change)
    with pytest.raises(ValueError, match=f"{shards}/index.json .*{message}"):
        open_index(shards)


@pytest.mark.parametrize("content", [b"", b'{"version": 1, ', b"\xff\xfe\x00", b"<html>"])
def test_an_index_that_is_not_json_is_refused(shards: Path, content):
    (shards / INDEX_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"index.json is not JSON .*; write the shards again"):
        open_index(shards)


def test_no_index_is_an_error_with_the_command_that_makes_one(tmp_path: Path):
    with pytest.raises(ValueError, match=f"no index.json in {tmp_path}; .* agedphoto shard"):
        open_index(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"no index.json in"):
        open_index(tmp_path / "file")


def test_an_unknown_kind_of_url_is_an_error():
    with pytest.raises(ValueError, match="nonsense"):
        open_index("nonsense://shards")


def test_a_shard_that_is_cut_short_is_named_with_the_key(shards: Path):
    index = open_index(shards)
    shard = shards / index.shards[0].name
    shard.write_bytes(shard.read_bytes()[: index.offset[0] + 10])
    with pytest.raises(ValueError, match=rf"'0000' of {shard}: 10 of \d+ bytes .* cut short"):
        index.read(0)


def test_every_changed_byte_is_found(make_shards):
    shards = make_shards([(24, 24)])
    index = open_index(shards)
    shard = shards / index.shards[0].name
    good = shard.read_bytes()
    first, size = int(index.offset[0]), int(index.size[0])
    for place in np.linspace(first, first + size - 1, 40).astype(int):
        bad = bytearray(good)
        bad[place] ^= 1
        shard.write_bytes(bad)
        with pytest.raises(ValueError, match=f"photograph '0000' of {shard}: is damaged"):
            index.read(0)
    shard.write_bytes(good)
    assert index.read(0).shape == (24, 24, 3)


def test_a_shard_that_is_gone_is_named_with_the_key(shards: Path):
    index = open_index(shards)
    shard = shards / index.shards[0].name
    shard.unlink()
    with pytest.raises(OSError, match=f"photograph '0000' of {shard}: cannot be read"):
        index.read(0)


def test_a_photo_of_another_size_than_the_index_says_is_refused(shards: Path):
    index = open_index(shards)
    index.height[1] = 25
    with pytest.raises(ValueError, match=r"is \(24, 16\), the index says \(25, 16\)"):
        index.read(1)


def test_shards_are_read_through_urls(shards: Path):
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/photos", recursive=True)
    try:
        index = open_index("memory://photos")
        assert index.fingerprint == open_index(shards).fingerprint
        for number in range(len(index)):
            np.testing.assert_array_equal(index.read(number), open_index(shards).read(number))
        memory.rm("/photos/train-000000.tar")
        with pytest.raises(OSError, match=r"'0000' of memory://photos/train-000000.tar: cannot"):
            index.read(0)
    finally:
        memory.rm("/photos", recursive=True)


def test_folders_may_have_odd_names(shards: Path, tmp_path: Path):
    odd = tmp_path / "é日 #1 [x] %20 *?"
    shutil.copytree(shards, odd)
    assert open_index(odd).read(3).shape == (18, 40, 3)


def test_a_selection_keeps_rows_together(shards: Path):
    index = open_index(shards)
    chosen = index.select(np.array([3, 1]))
    assert chosen.keys.tolist() == ["0003", "0001"]
    assert chosen.samples() == [index.samples()[3], index.samples()[1]]
    np.testing.assert_array_equal(chosen.read(0), index.read(3))


def test_shards_stay_plain_tars(shards: Path):
    for shard in sorted(shards.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
        assert [name.partition(".")[2] for name in names] == ["j2c", "json"] * (len(names) // 2)
