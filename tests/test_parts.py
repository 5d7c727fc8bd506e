"""Parts of a split."""

import pytest

from agedphoto.datasets.parts import Part, find_parts, is_part_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 64])
@pytest.mark.parametrize("num_photos", [0, 1, 9, 10, 11, 1000])
def test_parts_take_every_photo_once_in_order_and_about_as_many(count, num_photos):
    taken = [Part(split="a", number=n + 1, count=count).of(num_photos) for n in range(count)]
    assert [photo for part in taken for photo in part] == list(range(num_photos))
    sizes = [len(part) for part in taken]
    assert max(sizes) - min(sizes) <= 1


def test_a_part_owns_its_own_shards_and_no_others():
    parts = [Part(split="a"), *(Part(split="a", number=n, count=12) for n in (1, 2, 12))]
    parts += [Part(split="a_1"), Part(split="1"), Part(split="1", number=1, count=12)]
    for part in parts:
        name = part.shard_name(1_234_567 if part.number == 2 else 3)
        assert [other for other in parts if other.owns(name)] == [part]
        assert is_part_shard(name, part.split) == (not part.is_whole)


def test_what_parts_leave_is_found_by_its_name(tmp_path):
    parts = [Part(split="a"), Part(split="b_2", number=3, count=10)]
    for part in parts:
        for name in (part.index_name, part.journal_name, part.rejected_name, part.lock_name):
            (tmp_path / name).write_bytes(b"")
    for name in ("index.json", "a-1-of-2.index.json", ".c.journal.part", "x.journal"):
        (tmp_path / name).write_bytes(b"")
    assert list(find_parts(tmp_path, ".index.json")) == parts
    assert list(find_parts(tmp_path, ".journal")) == parts


@pytest.mark.parametrize(("number", "count"), [(0, 1), (2, 1), (-1, 3), (1, 100_000), (1, 0)])
def test_a_part_that_is_none_is_an_error(number, count):
    with pytest.raises(ValueError, match=f"part must be I/N .* got {number}/{count}"):
        Part(split="a", number=number, count=count)
