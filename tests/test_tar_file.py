"""Tars member by member."""

import hashlib
import io
import tarfile

import pytest

from agedphoto.datasets.tar_file import Member, TarFileWriter, dali_index, idx_name, split_name

MEMBERS = {"a.j2c": b"x" * 700, "a.json": b"{}", "folder/b.png": b"", "c.d.jpg": bytes(512)}


def write(members: dict[str, bytes]) -> tuple[bytes, TarFileWriter]:
    file = io.BytesIO()
    tar = TarFileWriter(file)
    for name, data in members.items():
        tar.add(name, data)
    tar.finish()
    return file.getvalue(), tar


def test_it_is_what_tarfile_writes():
    theirs = io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in MEMBERS.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    ours, tar = write(MEMBERS)
    assert ours == theirs.getvalue()
    assert tar.bytes == len(ours)
    assert tar.sha256 == hashlib.sha256(ours).hexdigest()


def test_members_lie_where_it_says():
    data, tar = write(MEMBERS)
    assert [member.name for member in tar.members] == list(MEMBERS)
    for member in tar.members:
        assert data[member.offset : member.offset + member.size] == MEMBERS[member.name]


def test_a_name_that_is_too_long_is_an_error():
    write({"n" * 100: b""})
    with pytest.raises(ValueError, match="name is too long"):
        write({"n" * 101: b""})


def test_an_idx_is_that_of_wds2idx_for_any_names():
    listed = [Member("a/b.jpg", 512, 3), Member("a/b.x.json", 1536, 4), Member("c.d.png", 9, 1)]
    assert dali_index(listed) == (
        b"v1.2 2\njpg 512 3 a/b.jpg x.json 1536 4 a/b.x.json\nd.png 9 1 c.d.png\n"
    )
    assert dali_index([]) == b"v1.2 0\n"
    assert idx_name("x/train-000000.tar") == "x/train-000000.idx"


def test_names_are_split_as_webdataset_splits_them():
    names = ["a.jpg", "a.b/c.seg.png", "a", ".hidden", "a/.b.c"]
    assert [split_name(name) for name in names] == [
        ("a", "jpg"), ("a.b/c", "seg.png"), ("a", ""), ("", "hidden"), ("a/", "b.c"),
    ]  # fmt: skip
