"""Every byte of shards against their index."""

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agedphoto.datasets import Verification, open_index, verify_shards
from tests.conftest import photo_like

SIZES = [(20, 30), (24, 16), (16, 16), (18, 40), (30, 30), (8, 8)]


@pytest.fixture
def shards(make_shards) -> Path:
    """Six photographs, two to a shard."""
    folder = make_shards(SIZES, format="png", shard_bytes=1500)
    assert len(list(folder.glob("*.tar"))) > 2
    return folder


def verify(folder: Path) -> Verification:
    return verify_shards(open_index(folder))


def change(path: Path, offset: int, by: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= by
    path.write_bytes(data)


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def test_shards_as_they_were_written_are_right(shards: Path):
    done = verify(shards)
    assert done.faults == ()
    assert done.photos == len(SIZES)
    assert done.bytes == sum(path.stat().st_size for path in shards.glob("*.tar"))
    assert done.seconds > 0


@pytest.mark.parametrize("format", ["htj2k", "jpeg", "webp", "keep"])
def test_every_format_is_verified(make_shards, format):
    assert verify(make_shards(SIZES, format=format)).faults == ()


def test_every_flipped_byte_of_a_shard_is_found(shards: Path):
    """All of a tar is looked at: also headers, padding and the end."""
    tar = shards / "train-000001.tar"
    good = tar.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(good), 60).tolist(), 0, len(good) - 1]:
        data = bytearray(good)
        data[place] ^= 1 << rng.integers(8)
        tar.write_bytes(data)
        faults = verify(shards).faults
        assert {fault.shard for fault in faults} == {str(tar)}, place
        assert "its sha256 is not that of the index" in [fault.reason for fault in faults]
    tar.write_bytes(good)
    assert verify(shards).faults == ()


def test_a_flipped_byte_in_a_photo_names_it(shards: Path):
    tar = shards / "train-000000.tar"
    change(tar, members(tar)["0000.png"].offset_data + 200)
    faults = [fault for fault in verify(shards).faults if fault.key]
    assert {(fault.shard, fault.key) for fault in faults} == {(str(tar), "0000")}
    reasons = [fault.reason for fault in faults]
    assert "its checksum is not that of the index" in reasons
    assert "its json has another sha256" in reasons
    assert str(faults[0]).startswith(f"photograph '0000' of {tar}: ")


def test_a_flipped_byte_in_a_json_names_its_photo(shards: Path):
    tar = shards / "train-000000.tar"
    member = members(tar)["0000.json"]
    place = tar.read_bytes().index(b'"sha256": "', member.offset_data) + 15
    digit = tar.read_bytes()[place : place + 1]
    change(tar, place, ord(digit) ^ ord("f" if digit != b"f" else "e"))
    assert [(f.key, f.reason) for f in verify(shards).faults] == [
        ("0000", "its json has another sha256"),
        (None, "its sha256 is not that of the index"),
    ]
    change(tar, member.offset_data)
    assert ("0000", "its json cannot be read") in [(f.key, f.reason) for f in verify(shards).faults]


@pytest.mark.parametrize("name", ["0000.png", "0000.json", "0001.png", "0001.json"])
def test_a_flipped_byte_in_a_tar_header_is_found_and_the_rest_looked_at(make_shards, name):
    shards = make_shards(SIZES[:3], format="png")
    tar = shards / "train-000000.tar"
    change(tar, members(tar)[name].offset + 3)
    faults = verify(shards).faults
    assert any("is damaged: bad checksum" in fault.reason for fault in faults)
    # The photographs themselves are where the index says.
    assert not [fault for fault in faults if "checksum is not" in fault.reason]
    assert faults[-1].reason == "its sha256 is not that of the index"


def test_a_shard_cut_short_names_what_is_lost(shards: Path):
    tar = shards / "train-000001.tar"
    index = open_index(shards)
    number = [shard.name for shard in index.shards].index(tar.name)
    inside = np.flatnonzero(index.shard == number)
    last = int(inside[-1])
    tar.write_bytes(tar.read_bytes()[: int(index.offset[last]) + 10])
    faults = verify(shards).faults
    assert (str(index.keys[last]), "is not there: the shard is cut short") in [
        (fault.key, fault.reason) for fault in faults
    ]
    assert {fault.key for fault in faults} - {None} == {str(index.keys[last])}
    assert any("bytes, the index says" in fault.reason for fault in faults)
    tar.write_bytes(b"")
    lost = {fault.key for fault in verify(shards).faults} - {None}
    assert lost == set(index.keys[inside].tolist())


def test_a_tar_without_its_end_mark_is_found(shards: Path):
    tar = shards / "train-000001.tar"
    end = max(m.offset_data + -(-m.size // 512) * 512 for m in members(tar).values())
    tar.write_bytes(tar.read_bytes()[:end])
    reasons = [fault.reason for fault in verify(shards).faults]
    assert "ends without the end mark of a tar" in reasons


def test_a_missing_tar_is_named_and_the_others_are_looked_at(shards: Path):
    (shards / "train-000001.tar").unlink()
    change(shards / "train-000000.tar", 700)
    named = [(Path(fault.shard).name, fault.reason) for fault in verify(shards).faults]
    assert ("train-000001.tar", "cannot be read: No such file or directory") in named
    assert any(name == "train-000000.tar" for name, _ in named)


def test_a_swapped_pair_of_shards_is_found(shards: Path):
    one, other = shards / "train-000000.tar", shards / "train-000001.tar"
    data = one.read_bytes()
    shutil.copy(other, one)
    other.write_bytes(data)
    faults = verify(shards).faults
    assert {Path(fault.shard) for fault in faults} == {one, other}
    assert any("in its place" in fault.reason for fault in faults)


@pytest.mark.parametrize(
    "edit", [lambda text: text.replace(b"png", b"jpg", 1), lambda text: text[:-2], lambda _: b""]
)
def test_a_changed_idx_is_found(shards: Path, edit: Callable[[bytes], bytes]):
    idx = shards / "train-000001.idx"
    idx.write_bytes(edit(idx.read_bytes()))
    (fault,) = verify(shards).faults
    assert fault.shard == str(shards / "train-000001.tar")
    assert fault.reason == "train-000001.idx beside it does not agree with it; delete it"
    idx.unlink()
    assert verify(shards).faults == ()


def test_a_photo_that_is_not_in_the_index_is_found(shards: Path):
    tar = shards / "train-000001.tar"
    with tarfile.open(tar, "a") as file:
        data = (shards.parent / "shards-photos" / "0000.png").read_bytes()
        header = tarfile.TarInfo("stranger.png")
        header.size = len(data)
        file.addfile(header, io.BytesIO(data))
    reasons = [fault.reason for fault in verify(shards).faults]
    assert "the tar has 'stranger.png', which is not in the index" in reasons


def test_a_size_that_the_index_has_wrong_is_found(shards: Path):
    index = open_index(shards)
    height = index.height.copy()
    height[3] += 1
    faults = verify_shards(replace(index, height=height)).faults
    assert {(fault.key, fault.reason) for fault in faults} == {
        ("0003", "is 40 x 18 px, the index says 40 x 19"),
        ("0003", "its json has the height 18, the index has 19"),
    }


def test_foreign_tars_without_checksums_are_compared_as_far_as_can_be(tmp_path: Path):
    from agedphoto.datasets.index import UNKNOWN_CRC32, Sample, Shard, ShardIndex

    file = io.BytesIO()
    Image.fromarray(photo_like(10, 14, seed=0)).save(file, "JPEG")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (
            ("é.json", b'{"sha256": 3}'), ("é.jpg", file.getvalue()), ("é.cls", b"3"),
        ):  # fmt: skip
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("folder"))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "é.jpg"
        tar.addfile(link)
    place = members(tmp_path / "a.tar")["é.jpg"]
    index = ShardIndex.from_samples(
        str(tmp_path),
        [Shard(name="a.tar", split="a", bytes=(tmp_path / "a.tar").stat().st_size, sha256="")],
        [Sample("é", "jpg", 0, place.offset_data, place.size, UNKNOWN_CRC32, 10, 14)],
    )
    assert verify_shards(index).faults == ()
    change(tmp_path / "a.tar", place.offset_data)
    (fault,) = verify_shards(index).faults
    assert (fault.key, "cannot be decoded: damaged .jpg" in fault.reason) == ("é", True)


def test_shards_behind_a_url_are_verified_too(shards: Path, server):
    index = open_index(shards)
    server.files.update({f"/{path.name}": path for path in shards.iterdir()})
    remote = replace(index, root=server.url)
    assert verify_shards(remote).faults == ()
    change(shards / "train-000001.tar", 600)
    faults = verify_shards(remote).faults
    assert {fault.shard for fault in faults} == {f"{server.url}/train-000001.tar"}


def test_faults_are_told_as_they_are_found(shards: Path):
    change(shards / "train-000000.tar", 700)
    told = []
    done = verify_shards(open_index(shards), on_fault=told.append)
    assert tuple(told) == done.faults != ()


def test_many_threads_find_the_same(shards: Path):
    change(shards / "train-000000.tar", 700)
    change(shards / "train-000002.tar", 30)
    found = [verify_shards(open_index(shards), num_threads=n).faults for n in (1, 7)]
    assert found[0] == found[1] != ()
