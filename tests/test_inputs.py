"""What goes into shards."""

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agedphoto.datasets import find_inputs, inputs, write_shards


def make_zip(path: Path, members: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_folder_is_searched_with_all_below_and_without_what_is_hidden(tmp_path: Path):
    names = ["b.JPG", "a.png", "z/c.HEIC", "z/y/x.jxl", "a-b/d.tif", ".h.png", ".t/x.png", "n.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = find_inputs(tmp_path)
    assert [each.name for each in found] == ["a-b/d.tif", "a.png", "b.JPG", "z/c.HEIC", "z/y/x.jxl"]
    assert [each.read() for each in found] == [each.name.encode() for each in found]
    assert [each.place for each in found] == [tmp_path / each.name for each in found]


def test_the_order_does_not_depend_on_that_of_the_file_system(tmp_path: Path, monkeypatch):
    for name in ("b/1.png", "a/2.png", "a/1.png", "c.png", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    there, scan = [each.name for each in find_inputs(tmp_path)], os.walk

    def backwards(*arguments, **options):
        for folder, below, files in scan(*arguments, **options):
            below.sort(reverse=True)
            yield folder, below, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert [each.name for each in find_inputs(tmp_path)] == there


def test_folders_behind_links_are_searched_once_and_circles_end(tmp_path: Path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.png").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "link2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(root)
    assert [each.name for each in find_inputs(root)] == ["link/deep/a.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions as Unix has them")
def test_a_folder_that_cannot_be_listed_is_reported(make_photos, tmp_path: Path, monkeypatch):
    """By a stand-in for the system: the tests may run as root, who may list anything."""
    root = make_photos([(8, 8)] * 2)
    (root / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_inputs(root)
    assert [each.name for each in found] == ["0000.png", "0001.png", "closed"]
    result = write_shards(found, tmp_path / "out")
    assert result.written == 2
    assert result.rejected == (
        (
            root / "closed",
            f"{root / 'closed'}: is a folder that cannot be listed: Permission denied",
        ),
    )
    assert '"source": "closed"' in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_one_photo_may_be_named_outright_whatever_its_suffix(tmp_path: Path):
    (tmp_path / "scan").write_bytes(b"x")
    (only,) = find_inputs(tmp_path / "scan")
    assert (only.name, only.read()) == ("scan", b"x")


def test_a_zip_is_listed_and_not_unpacked(tmp_path: Path):
    members = {"set/b.png": b"b", "set/a.jpg": b"a" * 999, "__MACOSX/set/._a.jpg": b"", "set/": b"",
               "set/.h.png": b"", "set/notes.txt": b""}  # fmt: skip
    archive = make_zip(tmp_path / "photos.ZIP", members)
    found = find_inputs(archive)
    assert [(each.name, each.read()) for each in found] == [("a.jpg", b"a" * 999), ("b.png", b"b")]
    assert found[0].place == archive / "set" / "a.jpg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos.ZIP"]
    both = make_zip(tmp_path / "both.zip", {"x/a.png": b"1", "y/a.png": b"2"})
    assert [each.name for each in find_inputs(both)] == ["x/a.png", "y/a.png"]


def test_members_of_a_zip_are_read_by_many_threads_at_once(tmp_path: Path):
    members = {f"{n:03d}.png": os.urandom(2000) * 20 for n in range(60)}
    found = find_inputs(make_zip(tmp_path / "a.zip", members))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda each: each.read(), found)) == list(members.values())


def test_damaged_and_encrypted_members_are_rejected_and_the_rest_is_done(
    make_photos, tmp_path: Path
):
    root = make_photos([(8, 8)] * 4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(root.iterdir()):
            archive.write(path, path.name)
        places = {info.filename: info.header_offset for info in archive.infolist()}
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[places["0001.png"] + 60] ^= 0xFF
    data[places["0002.png"] + 6] |= 1
    second = data.rindex(b"PK\x01\x02", 0, data.rindex(b"0002.png"))
    data[second + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    result = write_shards(find_inputs(tmp_path / "a.zip"), tmp_path / "out")
    assert result.index.keys.tolist() == ["0000", "0003"]
    (_, damaged), (_, encrypted) = result.rejected
    assert "0001.png: is damaged in the zip: Bad CRC-32" in damaged
    assert "0002.png: is encrypted; unpack the zip" in encrypted


def test_what_is_no_zip_and_what_holds_no_photos_is_an_error(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"a.zip is not a whole zip: .*; fetch it again"):
        find_inputs(tmp_path / "a.zip")
    whole = make_zip(tmp_path / "b.zip", {f"{n}.png": os.urandom(999) for n in range(9)})
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"b.zip is not a whole zip"):
        find_inputs(whole)
    with pytest.raises(ValueError, match=r"no photographs in .*c.zip; looked for .avif"):
        find_inputs(make_zip(tmp_path / "c.zip", {"a.txt": b""}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no photographs in .*empty"):
        find_inputs(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"no such file or folder: .*gone"):
        find_inputs(tmp_path / "gone")


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(inputs, "FILE_LIMIT", 10)
    (tmp_path / "a.png").write_bytes(bytes(11))
    archive = make_zip(tmp_path / "a.zip", {"a.png": bytes(11)})
    for source in (tmp_path, archive):
        with pytest.raises(ValueError, match="11 bytes are more than the limit of 10"):
            find_inputs(source)[0].read()


def test_a_stamp_changes_with_the_content(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    (item,) = find_inputs(path)
    before = item.stamp()
    assert find_inputs(path)[0].stamp() == before
    os.utime(path, ns=(5, 5))
    assert item.stamp() != before
    path.unlink()
    assert "No such file" in item.stamp()
    one, two = (
        find_inputs(make_zip(tmp_path / f"{n}.zip", {"a.png": data}))[0].stamp()
        for n, data in enumerate([b"one", b"two"])
    )
    assert one != two
