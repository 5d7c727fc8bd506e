"""Files that are whole or not there."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agedphoto.datasets.files import check_writable, replacing, write_bytes, write_json

FILL_UP = """
import resource, signal, sys
from pathlib import Path
from agedphoto.datasets.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path(sys.argv[1]), b"x" * 10_000)
except OSError as error:
    print(type(error).__name__)
"""


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path):
    with replacing(tmp_path / "a" / "b.bin") as file:
        file.write(b"whole")
        file.flush()
        assert not (tmp_path / "a" / "b.bin").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.bin"]
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"whole"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path, error):
    write_bytes(tmp_path / "a", b"old")

    def fail():
        with replacing(tmp_path / "a") as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path):
    """The write itself fails here, half-way."""
    done = subprocess.run(
        [sys.executable, "-c", FILL_UP, str(tmp_path / "a")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "OSError\n"
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_a_folder_leaves_nothing_else(tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_bytes(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "ours", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o666 & ~mask


def test_json_comes_back_and_what_json_cannot_say_is_refused(tmp_path: Path):
    write_json(tmp_path / "a.json", {"ö": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"ö": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"loss": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ValueError, match=f"cannot write into {folder}"):
            check_writable(folder)
    check_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path, monkeypatch):
    """By a stand-in: the tests may run as root, who may write anywhere."""

    def denied(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(ValueError, match=f"cannot write into {tmp_path}: Permission denied"):
        check_writable(tmp_path)
