"""The DIV2K archives, from a server on loopback that holds tiny ones."""

import errno
import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import photo_like
from faulty_server import Fault, FaultyServer
from PIL import Image

from agedphoto.datasets import div2k
from agedphoto.datasets.http_answer import DownloadError

TRAIN, VALID = "DIV2K_train_HR.zip", "DIV2K_valid_HR.zip"


def archive(folder: str, numbers: range, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of small pictures, laid out as the official ones."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", compression) as writer:
            writer.writestr(f"{folder}/", b"")
            for number in numbers:
                with io.BytesIO() as png:
                    Image.fromarray(photo_like(24, 32, seed=number)).save(png, "png")
                    writer.writestr(f"{folder}/{number:04d}.png", png.getvalue())
        return file.getvalue()


@pytest.fixture
def mirror(server: FaultyServer) -> FaultyServer:
    server.files[f"/div2k/{TRAIN}"] = archive("DIV2K_train_HR", range(1, 9))
    server.files[f"/div2k/{VALID}"] = archive("DIV2K_valid_HR", range(801, 803))
    return server


def fetch(server: FaultyServer, folder: Path, **options) -> dict[str, Path]:
    return div2k.fetch_div2k(folder, base_url=f"{server.url}/div2k/", deadline_s=20, **options)


def test_both_archives_arrive_checked(mirror, tmp_path: Path):
    archives = fetch(mirror, tmp_path)
    assert archives == {"train": tmp_path / TRAIN, "valid": tmp_path / VALID}
    for name in (TRAIN, VALID):
        assert (tmp_path / name).read_bytes() == mirror.files[f"/div2k/{name}"]
    notes = [json.loads((tmp_path / f"{n}.checked.json").read_bytes()) for n in (TRAIN, VALID)]
    assert [note["num_photos"] for note in notes] == [8, 2]


def test_a_second_run_asks_for_nothing_and_reads_no_member(mirror, tmp_path: Path, monkeypatch):
    fetch(mirror, tmp_path)
    mirror.requests.clear()

    def fail(*_, **__):
        raise AssertionError("opened again")

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    assert set(fetch(mirror, tmp_path)) == {"train", "valid"}
    assert not mirror.requests


def test_a_note_of_another_file_counts_for_nothing(mirror, tmp_path: Path):
    fetch(mirror, tmp_path)
    for name in (TRAIN, f"{TRAIN}.sha256"):
        (tmp_path / name).unlink()
    mirror.files[f"/div2k/{TRAIN}"] = archive("DIV2K_train_HR", range(1, 4))
    fetch(mirror, tmp_path)
    assert json.loads((tmp_path / f"{TRAIN}.checked.json").read_bytes())["num_photos"] == 3


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"num_photos": 8}'])
def test_a_note_that_says_nothing_is_made_anew(mirror, tmp_path: Path, note):
    fetch(mirror, tmp_path)
    (tmp_path / f"{TRAIN}.checked.json").write_bytes(note)
    fetch(mirror, tmp_path)
    assert json.loads((tmp_path / f"{TRAIN}.checked.json").read_bytes())["num_photos"] == 8


def test_a_byte_that_was_flipped_on_the_way_is_found(mirror, tmp_path: Path):
    """The length is right and there is no sum to compare with: the archive's own CRC finds it."""
    mirror.faults[f"/div2k/{TRAIN}"] = [Fault("flip", 500)]
    with pytest.raises(ValueError, match=rf"{TRAIN} is damaged \(.*0001.*\); delete it to down"):
        fetch(mirror, tmp_path)
    # Again, until somebody does something about it.
    with pytest.raises(ValueError, match="is damaged"):
        fetch(mirror, tmp_path)
    (tmp_path / TRAIN).unlink()
    assert fetch(mirror, tmp_path)["train"].read_bytes() == mirror.files[f"/div2k/{TRAIN}"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_whatever_byte_changes_nothing_else_is_raised(tmp_path: Path, compression):
    """Some bytes mean nothing, such as dates; all others are to be called damage, in one line."""
    good = archive("a", range(3), compression)
    rng, reasons = np.random.default_rng(0), []
    places = np.unique(
        np.r_[rng.integers(0, len(good), 150), np.arange(len(good) - 260, len(good))]
    )
    for place in places:
        bad = bytearray(good)
        bad[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a.zip").write_bytes(bad)
        try:
            div2k._check_archive(tmp_path / "a.zip", progress=False)
        except ValueError as error:
            reasons.append(str(error))
    assert len(reasons) > 0.6 * len(places)
    assert all(f"{tmp_path / 'a.zip'} is damaged (" in reason for reason in reasons)


def test_a_disk_that_cannot_be_read_is_not_called_damage(mirror, tmp_path: Path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(OSError, match="Input/output"):
        fetch(mirror, tmp_path)
    monkeypatch.undo()
    assert set(fetch(mirror, tmp_path)) == {"train", "valid"}


def test_what_is_no_archive_is_named(mirror, tmp_path: Path):
    mirror.files[f"/div2k/{VALID}"] = b"<html>Please log in</html>"
    with pytest.raises(ValueError, match=rf"{VALID} is damaged \(File is not a zip file\)"):
        fetch(mirror, tmp_path)


def test_a_cut_archive_is_named(mirror, tmp_path: Path):
    mirror.files[f"/div2k/{VALID}"] = archive("v", range(801, 804))[:-300]
    with pytest.raises(ValueError, match="is damaged"):
        fetch(mirror, tmp_path)


def test_drops_are_gone_on_with(mirror, tmp_path: Path):
    mirror.faults[f"/div2k/{TRAIN}"] = [Fault("drop", 1_000), Fault("drop", 2_000)]
    fetch(mirror, tmp_path)
    assert [r for _, path, r in mirror.requests if path.endswith(TRAIN)][:3] == [
        None, "bytes=1000-", "bytes=3000-",
    ]  # fmt: skip


def test_an_address_without_the_archives_is_named(server, tmp_path: Path):
    with pytest.raises(DownloadError, match=f"{TRAIN}: the server answered 404"):
        fetch(server, tmp_path)


def test_the_official_archives_hold_800_and_100(mirror, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(div2k, "DIV2K_URL", f"{mirror.url}/div2k/")
    with pytest.raises(ValueError, match=f"{TRAIN} holds 8 photographs instead of 800"):
        fetch(mirror, tmp_path)
    monkeypatch.setattr(div2k, "NUM_PHOTOS", {"train": 8, "valid": 2})
    assert set(fetch(mirror, tmp_path)) == {"train", "valid"}


def test_the_deadline_is_that_of_both(mirror, tmp_path: Path):
    mirror.faults[f"/div2k/{TRAIN}"] = [Fault("stall", 1_000, seconds=1)]
    mirror.faults[f"/div2k/{VALID}"] = [Fault("trickle", seconds=0.1)] * 9
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=rf"{VALID}: not done within"):
        div2k.fetch_div2k(tmp_path, base_url=f"{mirror.url}/div2k", deadline_s=3)
    assert time.monotonic() - begun < 4


def test_100_held_out_names_are_every_eighth():
    names = div2k.test_names(100)
    assert names == {f"{number:04d}" for number in range(8, 801, 8)}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 300, 401, 798, 799])
def test_held_out_names_are_as_many_as_asked_and_evenly_spread(count):
    numbers = sorted(map(int, div2k.test_names(count)))
    assert len(numbers) == count
    assert numbers[0] >= 1
    assert numbers[-1] == 800
    assert np.ptp(np.diff(numbers, prepend=0)) <= 1


@pytest.mark.parametrize("count", [-1, 0, 800, 10_000])
def test_counts_out_of_range_are_named(count):
    with pytest.raises(ValueError, match=f"count must be 1 to 799, got {count}"):
        div2k.test_names(count)
