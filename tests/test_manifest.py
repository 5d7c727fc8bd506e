"""A manifest has whole lines only, whatever ends a run, and those of all ranks in one order."""

import json
from pathlib import Path

import pytest

from agedphoto.restore.manifest import Manifest, check_manifest, join_parts, part_path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *sources: str) -> None:
    manifest = Manifest(path)
    for source in sources:
        manifest.write({"source": source, "pages": 1})
    manifest.close()


def test_each_line_is_there_as_soon_as_it_is_written(tmp_path):
    manifest = Manifest(tmp_path / "new" / "m.jsonl")
    for number in range(3):
        manifest.write({"source": f"ü {number}\n"})
        assert [line["source"] for line in lines(tmp_path / "new" / "m.jsonl")] == [
            f"ü {n}\n" for n in range(number + 1)
        ]
    manifest.close()


def test_lines_of_earlier_runs_stay(tmp_path):
    write(tmp_path / "m.jsonl", "a")
    write(tmp_path / "m.jsonl", "b")
    assert [line["source"] for line in lines(tmp_path / "m.jsonl")] == ["a", "b"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_what_a_killed_run_left_of_a_line_goes(tmp_path, cut):
    write(tmp_path / "m.jsonl", "a", "b")
    data = (tmp_path / "m.jsonl").read_bytes()
    (tmp_path / "m.jsonl").write_bytes(data[:-cut])
    write(tmp_path / "m.jsonl", "c")
    kept = data[:-cut].count(b"\n")
    assert [line["source"] for line in lines(tmp_path / "m.jsonl")] == [*["a", "b"][:kept], "c"]


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    write(tmp_path / "m.jsonl", "a")
    manifest = Manifest(tmp_path / "m.jsonl")
    file = manifest._file

    class Full:
        name = file.name
        seek, truncate = file.seek, file.truncate

        def write(self, line: bytes) -> int:
            return file.write(line[:7])

    manifest._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        manifest.write({"source": "b"})
    file.close()
    assert [line["source"] for line in lines(tmp_path / "m.jsonl")] == ["a"]


@pytest.mark.parametrize("content", [b"Dear grandmother", b"\xff\xd8\xff\xe0", b"{}\n", b"[1]\n"])
def test_another_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "letter"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"letter is there, and is no manifest"):
        Manifest(path)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="it is a folder"):
        check_manifest(tmp_path)


def test_parts_are_joined_in_the_order_of_the_photos(tmp_path):
    path = tmp_path / "m[1].jsonl"
    write(path, "old")
    sources = [Path(f"{number}.jpg") for number in range(7)]
    for rank in (2, 0, 1):
        write(part_path(path, rank, 3), *map(str, sources[rank::3]))
    # A run on two ranks was broken off, one of them within a line.
    write(part_path(path, 1, 2), "gone.jpg")
    with part_path(path, 1, 2).open("ab") as file:
        file.write(b'{"source": "half')
    join_parts(path, sources)
    expected = ["old", "gone.jpg", *map(str, sources)]
    assert [line["source"] for line in lines(path)] == expected
    assert [path.name for path in tmp_path.iterdir()] == ["m[1].jsonl"]


def test_one_process_alone_writes_no_parts(tmp_path):
    assert part_path(tmp_path / "m.jsonl", 0, 1) == tmp_path / "m.jsonl"
