"""One index for a folder: parts and foreign tars."""

import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agedphoto.datasets import (
    ShardIndex,
    find_photos,
    index_folder,
    open_index,
    read_photo,
    write_shards,
)
from tests.conftest import photo_like

SIZES = [(12, 20), (16, 16), (18, 14), (20, 20), (9, 30), (16, 12), (11, 11)]


@pytest.fixture
def photos(make_photos) -> Path:
    return make_photos(SIZES)


def make_parts(photos: Path, out: Path, count: int, *, skip: tuple[int, ...] = (), **options):
    # Last first: parts know nothing of each other.
    return [
        write_shards(find_photos(photos), out, root=photos, part=(number, count), **options)
        for number in range(count, 0, -1)
        if number not in skip
    ]


def rows(index: ShardIndex) -> list:
    """What the samples are, whichever shards they lie in."""
    return [(s.key, s.extension, s.size, s.crc32, s.height, s.width) for s in index.samples()]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_parts_end_to_end_are_the_whole(photos: Path, tmp_path: Path, count):
    (photos / "0003.png").write_bytes(b"none")
    whole = write_shards(find_photos(photos), tmp_path / "whole", root=photos)
    results = make_parts(photos, tmp_path / "parts", count, shard_bytes=1)
    if count > 1:
        assert not (tmp_path / "parts" / "index.json").exists()
        assert sum(result.written for result in results) == 6
        assert sum(len(result.rejected) for result in results) == 1
        joined = index_folder(tmp_path / "parts")
        assert (joined.joined, joined.foreign) == (("train",), ())
    index = open_index(tmp_path / "parts")
    assert rows(index) == rows(whole.index)
    assert index.splits == ("train",)
    for number in range(len(index)):
        np.testing.assert_array_equal(index.read(number), whole.index.read(number))
    assert (tmp_path / "parts" / "rejected.jsonl").read_bytes() == (
        tmp_path / "whole" / "rejected.jsonl"
    ).read_bytes()


def test_keys_are_unique_over_all_parts(tmp_path: Path):
    root = tmp_path / "photos"
    for name in ("a/x.png", "a/x.jpg", "a-x.png", "a/x.webp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo_like(8, 8, seed=0)).save(root / name)
    make_parts(root, tmp_path / "out", 4)
    keys = index_folder(tmp_path / "out").index.keys.tolist()
    assert sorted(keys) == ["a-x", "a-x_2", "a-x_3", "a-x_4"]


def test_names_of_parts_sort_and_say_which_part_of_how_many(photos: Path, tmp_path: Path):
    make_parts(photos, tmp_path, 3, shard_bytes=400)
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert [name for name in names if name.endswith(".index.json")] == [
        f"train-{part:05d}-of-00003.index.json" for part in (1, 2, 3)
    ]
    index = index_folder(tmp_path).index
    tars = [shard.name for shard in index.shards]
    assert tars == sorted(tars) == [name for name in names if name.endswith(".tar")]
    assert tars[0] == "train-00001-000000.tar"
    for tar in tars:
        assert tar.replace(".tar", ".idx") in names


def test_joining_is_idempotent_and_keeps_other_splits(photos: Path, make_photos, tmp_path: Path):
    other = make_photos([(10, 10), (9, 9)], folder="other", seed=40)
    (other / "z.png").write_bytes(b"none")
    write_shards(find_photos(other), tmp_path / "out", split="valid", root=other)
    make_parts(photos, tmp_path / "out", 3)
    make_parts(other, tmp_path / "out", 2, split="test")
    first = index_folder(tmp_path / "out")
    assert first.index.splits == ("valid", "test", "train")
    content = {
        name: (tmp_path / "out" / name).read_bytes() for name in ("index.json", "rejected.jsonl")
    }
    again = index_folder(tmp_path / "out")
    assert again.index.fingerprint == first.index.fingerprint
    for name, data in content.items():
        assert (tmp_path / "out" / name).read_bytes() == data
    splits = [json.loads(line)["split"] for line in content["rejected.jsonl"].splitlines()]
    assert splits == ["valid", "test"]


@pytest.mark.parametrize("skip", [(1,), (2, 4), (1, 2, 3, 4, 5)])
def test_missing_parts_are_listed(photos: Path, tmp_path: Path, skip):
    make_parts(photos, tmp_path, 6, skip=skip)
    with pytest.raises(ValueError, match=f"missing: {', '.join(map(str, skip))}; make them with"):
        index_folder(tmp_path)
    assert not (tmp_path / "index.json").exists()


def test_a_part_that_is_still_being_made_is_named(photos: Path, tmp_path: Path):
    make_parts(photos, tmp_path, 2)
    (tmp_path / ".train-00002-of-00002.journal").write_bytes(b"")
    with pytest.raises(ValueError, match=r"part 2/2 of split 'train' in .* is not finished"):
        index_folder(tmp_path)


def test_parts_of_other_photos_or_options_are_not_mixed(photos: Path, tmp_path: Path):
    write_shards(find_photos(photos), tmp_path, part=(1, 2))
    write_shards(find_photos(photos)[:-1], tmp_path, part=(2, 2))
    with pytest.raises(ValueError, match="were made of different photographs or with different"):
        index_folder(tmp_path)
    for path in tmp_path.glob("train-00002*"):
        path.unlink()
    write_shards(find_photos(photos), tmp_path, part=(2, 2), format="png")
    with pytest.raises(ValueError, match="different options"):
        index_folder(tmp_path)


def test_another_number_of_parts_in_the_same_folder_is_refused(photos: Path, tmp_path: Path):
    make_parts(photos, tmp_path, 2, skip=(2,))
    for part in ((1, 3), (1, 1)):
        with pytest.raises(ValueError, match="holds part 1/2 of split 'train'"):
            write_shards(find_photos(photos), tmp_path, part=part)
    with pytest.raises(ValueError, match="already holds part 1/2 of split 'train'"):
        write_shards(find_photos(photos), tmp_path, part=(1, 2))


def test_a_part_may_hold_no_photo_and_all_parts_may_not(tmp_path: Path, make_photos):
    root = make_photos([(8, 8)] * 2)
    results = make_parts(root, tmp_path / "few", 5)
    assert sorted(result.written for result in results) == [0, 0, 0, 1, 1]
    assert len(index_folder(tmp_path / "few").index) == 2
    for path in root.iterdir():
        path.write_bytes(b"none")
    make_parts(root, tmp_path / "none", 2)
    with pytest.raises(ValueError, match="no photograph of split 'train' could be read"):
        index_folder(tmp_path / "none")


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_shard_that_is_not_as_its_part_left_it_is_named(photos: Path, tmp_path: Path, damage):
    make_parts(photos, tmp_path, 3)
    tar = tmp_path / "train-00002-000000.tar"
    if damage == "gone":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(ValueError, match=f"{tar} (is missing|has .* bytes instead of)"):
        index_folder(tmp_path)
    assert not (tmp_path / "index.json").exists()


def foreign_tar(path: Path, photos: list[np.ndarray]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, photo in enumerate(photos):
            file = io.BytesIO()
            Image.fromarray(photo).save(file, "JPEG")
            for name, data in ((f"{number}.jpg", file.getvalue()), (f"{number}.txt", b"a word")):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def test_tars_from_elsewhere_are_indexed_with_their_checksums(tmp_path: Path):
    pictures = [photo_like(10, 14, seed=n) for n in range(4)]
    foreign_tar(tmp_path / "some-000000.tar", pictures[:2])
    foreign_tar(tmp_path / "some-000001.tar", pictures[2:])
    done = index_folder(tmp_path)
    assert done.foreign == ("some-000000.tar", "some-000001.tar")
    index = open_index(tmp_path)
    assert len(index) == 4
    assert all(shard.sha256 for shard in index.shards)
    assert (index.crc32 >= 0).all()
    before = (tmp_path / "index.json").read_bytes()
    assert index_folder(tmp_path).foreign == ()
    assert (tmp_path / "index.json").read_bytes() == before


def test_a_damaged_index_of_ours_is_made_anew_and_another_is_not_touched(
    photos: Path, tmp_path: Path
):
    write_shards(find_photos(photos), tmp_path)
    content = (tmp_path / "index.json").read_bytes()
    (tmp_path / "index.json").write_bytes(content[: len(content) // 2])
    index = index_folder(tmp_path).index
    assert [row[2:] for row in rows(index)] == [
        row[2:] for row in rows(ShardIndex.from_json(str(tmp_path), content))
    ]
    np.testing.assert_array_equal(open_index(tmp_path).read(2), read_photo(photos / "0002.png"))
    (tmp_path / "index.json").write_text('{"pages": []}')
    with pytest.raises(ValueError, match="is not an index of shards and will not be overwritten"):
        index_folder(tmp_path)
    assert (tmp_path / "index.json").read_text() == '{"pages": []}'


def test_a_folder_without_shards_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no shards in .*; make them with: agedphoto shard"):
        index_folder(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        index_folder(tmp_path / "none")
    assert list(itertools.islice(tmp_path.iterdir(), 1)) == []
