"""Downloads of large files over bad networks."""

import errno
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import pytest
import requests
from faulty_server import Fault, FaultyServer, wait_until

from agedphoto.datasets import download as module
from agedphoto.datasets.download import download, read_sha256
from agedphoto.datasets.http_answer import DownloadError

OLD = np.random.default_rng(1).bytes(50_000)
NEW = np.random.default_rng(2).bytes(50_000)
END = (("GET", "/a.zip", "bytes=50000-"),)
"""The question for what comes after the last byte."""

FETCH = """
import sys
from pathlib import Path
from agedphoto.datasets.download import download
download(sys.argv[1], Path(sys.argv[2]), deadline_s=60)
"""


@pytest.fixture
def remote(server: FaultyServer) -> FaultyServer:
    """A server that has a file."""
    server.files["/a.zip"] = OLD
    return server


def fetch(server: FaultyServer, folder: Path, **options) -> bytes:
    options = {"deadline_s": 20, "backoff_s": 0.01, **options}
    path = download(f"{server.url}/a.zip", folder / "a.zip", **options)
    assert path == folder / "a.zip"
    return path.read_bytes()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def ranges(server: FaultyServer) -> list[str | None]:
    return [wanted for _, _, wanted in server.requests]


def test_a_file_arrives_with_a_record_that_sha256sum_reads(remote, tmp_path: Path):
    assert fetch(remote, tmp_path / "new" / "folder") == OLD
    folder = tmp_path / "new" / "folder"
    assert names(folder) == {"a.zip", "a.zip.sha256"}
    assert read_sha256(folder / "a.zip") == hashlib.sha256(OLD).hexdigest()
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--strict", "-c", "a.zip.sha256"], cwd=folder, check=True)


def test_a_second_run_checks_and_asks_the_server_nothing(remote, tmp_path: Path):
    fetch(remote, tmp_path)
    num_requests = len(remote.requests)
    assert fetch(remote, tmp_path) == OLD
    assert len(remote.requests) == num_requests


def test_a_file_that_differs_from_its_record_is_an_error_and_stays(remote, tmp_path: Path):
    fetch(remote, tmp_path)
    (tmp_path / "a.zip").write_bytes(NEW)
    with pytest.raises(ValueError, match=r"a\.zip is not the file .*; delete it to download"):
        fetch(remote, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == NEW
    (tmp_path / "a.zip").unlink()
    assert fetch(remote, tmp_path) == OLD


def test_what_is_downloaded_later_is_compared_with_the_first_record(remote, tmp_path: Path):
    fetch(remote, tmp_path)
    (tmp_path / "a.zip").unlink()
    remote.files["/a.zip"] = NEW
    for _ in range(2):  # the second finds the whole part, and must not take it either
        with pytest.raises(ValueError, match=r"delete .*a\.zip\.part to .*sha256 if the file is"):
            fetch(remote, tmp_path)
        assert not (tmp_path / "a.zip").exists()
    (tmp_path / "a.zip.sha256").unlink()
    num_requests = len(remote.requests)
    assert fetch(remote, tmp_path) == NEW
    assert ranges(remote)[num_requests:] == ["bytes=50000-"]


def test_a_record_without_a_sum_is_named(remote, tmp_path: Path):
    (tmp_path / "a.zip.sha256").write_text("<html>")
    with pytest.raises(ValueError, match=r"a\.zip\.sha256 holds no SHA-256; delete it"):
        fetch(remote, tmp_path)


def test_drops_at_random_bytes_are_resumed_where_they_happened(remote, tmp_path: Path):
    cuts = np.random.default_rng(0).integers(1, 5_000, 9).tolist()
    remote.faults["/a.zip"] = [Fault("drop", cut) for cut in cuts]
    # More drops than retries: each brought something.
    assert fetch(remote, tmp_path, retries=2) == OLD
    places = np.cumsum(cuts).tolist()
    assert ranges(remote) == [None, *(f"bytes={place}-" for place in places), "bytes=50000-"]


def test_failures_that_bring_nothing_are_counted_and_named(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 100), *[Fault("drop", 0)] * 50]
    with pytest.raises(DownloadError, match="gave up after 3 failures in a row") as raised:
        fetch(remote, tmp_path, retries=2)
    assert f"{remote.url}/a.zip" in str(raised.value)
    assert f"100B of 50.0kB are kept in {tmp_path / 'a.zip.part'}, run again" in str(raised.value)
    assert len(remote.requests) == 4
    assert (tmp_path / "a.zip.part").read_bytes() == OLD[:100]
    remote.faults.clear()
    assert fetch(remote, tmp_path) == OLD
    assert ranges(remote)[4:] == ["bytes=100-", "bytes=50000-"]
    assert names(tmp_path) == {"a.zip", "a.zip.sha256"}


@pytest.mark.parametrize("validator", ["etag", "date", "weak_etag", ""])
def test_a_file_that_changes_between_attempts_is_not_glued(remote, tmp_path: Path, validator):
    def change():
        remote.files["/a.zip"] = NEW
        remote.dates["/a.zip"] = 1.1e9

    remote.validator = validator
    remote.faults["/a.zip"] = [Fault("drop", 20_000, after=change)]
    assert fetch(remote, tmp_path) == NEW


@pytest.mark.parametrize("size", [10_000, 20_000, 50_000, 60_000])
@pytest.mark.parametrize("validator", ["etag", "date"])
def test_nor_by_a_server_that_pays_no_heed_to_if_range(remote, tmp_path: Path, size, validator):
    new = np.random.default_rng(3).bytes(size)

    def change():
        remote.files["/a.zip"] = new
        remote.dates["/a.zip"] = 1.1e9

    remote.validator = validator
    remote.faults["/a.zip"] = [Fault("drop", 20_000, after=change), *[Fault("no_if_range")] * 9]
    assert fetch(remote, tmp_path) == new


def test_a_file_that_changes_between_runs_is_not_glued(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 20_000)]
    with pytest.raises(DownloadError):
        fetch(remote, tmp_path, retries=0, deadline_s=0.02, backoff_s=60)
    remote.files["/a.zip"] = NEW
    assert fetch(remote, tmp_path) == NEW


def test_another_address_does_not_go_on_with_the_part(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 20_000)]
    with pytest.raises(DownloadError):
        fetch(remote, tmp_path, deadline_s=1, backoff_s=60)
    remote.files["/b.zip"] = OLD[:30_000] + NEW[30_000:]
    download(f"{remote.url}/b.zip", tmp_path / "a.zip", deadline_s=5)
    assert (tmp_path / "a.zip").read_bytes() == remote.files["/b.zip"]


@pytest.mark.parametrize("facts", [None, b"", b"[]", b'{"url": 1}', b'{"total": "x"}'])
def test_a_part_that_nothing_is_known_of_is_fetched_anew(remote, tmp_path: Path, facts):
    (tmp_path / "a.zip.part").write_bytes(NEW[:40_000])
    if facts is not None:
        (tmp_path / "a.zip.part.json").write_bytes(facts)
    assert fetch(remote, tmp_path) == OLD


def test_without_a_validator_nothing_is_promised_and_nothing_resumed(remote, tmp_path: Path):
    remote.validator = ""
    remote.faults["/a.zip"] = [Fault("drop", 20_000)]
    with pytest.raises(DownloadError, match="the next run starts from its beginning"):
        fetch(remote, tmp_path, deadline_s=1, backoff_s=60)
    assert fetch(remote, tmp_path) == OLD
    assert ranges(remote) == [None, None, "bytes=50000-"]


def test_a_server_that_ignores_ranges_starts_again(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 20_000), Fault("no_range"), Fault("no_range")]
    assert fetch(remote, tmp_path) == OLD


def test_a_complete_part_is_not_fetched_again(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 49_000)]
    with pytest.raises(DownloadError):
        fetch(remote, tmp_path, deadline_s=1, backoff_s=60)
    (tmp_path / "a.zip.part").write_bytes(OLD)
    assert fetch(remote, tmp_path) == OLD
    assert ranges(remote)[1:] == ["bytes=50000-"]


def test_a_part_longer_than_the_file_is_fetched_anew(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 49_000)]
    with pytest.raises(DownloadError):
        fetch(remote, tmp_path, deadline_s=1, backoff_s=60)
    (tmp_path / "a.zip.part").write_bytes(OLD + b"more")
    assert fetch(remote, tmp_path) == OLD


@pytest.mark.parametrize("cut", [0, 30_000])
@pytest.mark.parametrize("validator", ["etag", ""])
def test_a_file_of_unannounced_length_arrives(remote, tmp_path: Path, cut, validator):
    remote.validator = validator
    remote.faults["/a.zip"] = [Fault("chunked", cut), Fault("chunked")]
    assert fetch(remote, tmp_path) == OLD


def test_a_whole_part_of_unannounced_length_is_recognised(remote, tmp_path: Path):
    """All bytes came, but the answer never said that this was the end."""
    remote.faults["/a.zip"] = [Fault("chunked", 50_000)]
    assert fetch(remote, tmp_path) == OLD
    assert ranges(remote) == [None, "bytes=50000-", "bytes=50000-"]


def test_an_empty_file_arrives(remote, tmp_path: Path):
    remote.files["/a.zip"] = b""
    assert fetch(remote, tmp_path) == b""
    assert remote.requests == [("GET", "/a.zip", None)]


@pytest.mark.parametrize("by", [1, 700, -1, -700])
def test_a_length_that_was_a_lie_once_is_noticed(remote, tmp_path: Path, by):
    remote.faults["/a.zip"] = [Fault("lie", by)]
    assert fetch(remote, tmp_path) == OLD


@pytest.mark.parametrize("by", [1, 700, -1, -700])
def test_a_partial_answer_that_lies_is_noticed(remote, tmp_path: Path, by):
    remote.faults["/a.zip"] = [Fault("drop", 20_000), Fault("lie", by)]
    assert fetch(remote, tmp_path) == OLD


@pytest.mark.parametrize(("by", "reason"), [(700, "another one now"), (-700, "announced 49300")])
def test_a_server_that_always_lies_is_given_up(remote, tmp_path: Path, by, reason):
    class Liar(list):
        """A lie to every request for the whole, the truth to others."""

        def __bool__(self) -> bool:
            return remote.requests[-1][2] is None

        def pop(self, _: SupportsIndex = 0) -> Fault:
            return Fault("lie", by)

    remote.faults["/a.zip"] = Liar()
    with pytest.raises(DownloadError, match=f"gave up after 3 failures .*{reason}"):
        fetch(remote, tmp_path, retries=2)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize("status", [404, 403, 410, 401, 418])
def test_answers_that_will_not_change_fail_at_once(remote, tmp_path: Path, status):
    remote.faults["/a.zip"] = [Fault("status", status)] * 9
    with pytest.raises(DownloadError, match=f"/a.zip: the server answered {status}: .{{10}}"):
        fetch(remote, tmp_path)
    assert len(remote.requests) == 1
    assert not names(tmp_path)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_answers_that_pass_are_asked_again(remote, tmp_path: Path, status):
    remote.faults["/a.zip"] = [Fault("status", status)] * 3
    assert fetch(remote, tmp_path) == OLD
    assert len(remote.requests) == 5


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(remote, tmp_path: Path, form):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    headers = {"Retry-After": "1" if form == "seconds" else later}
    remote.faults["/a.zip"] = [Fault("status", 503, headers=headers)]
    begun = time.monotonic()
    assert fetch(remote, tmp_path) == OLD
    assert 1 <= time.monotonic() - begun < 6


def test_retry_after_beyond_the_deadline_is_not_waited_for(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("status", 429, headers={"Retry-After": "3600"})]
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=r"deadline_s = 20: .* 429 and asks to wait 3600 s"):
        fetch(remote, tmp_path)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("value", ["soon", "-1", "", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing_is_nothing(remote, tmp_path: Path, value):
    remote.faults["/a.zip"] = [Fault("status", 503, headers={"Retry-After": value})]
    assert fetch(remote, tmp_path) == OLD


@pytest.mark.parametrize(
    "fault",
    [
        Fault("stall", 20_000, seconds=20),
        Fault("stall", 0, seconds=20),
        Fault("trickle", seconds=0.05),
        Fault("slow_headers", seconds=0.05),
    ],
    ids=["stall", "stall-at-once", "trickle", "slow-headers"],
)
def test_the_deadline_holds(remote, tmp_path: Path, fault):
    remote.faults["/a.zip"] = [fault] * 9
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=r"not done within deadline_s = 0.7"):
        fetch(remote, tmp_path, deadline_s=0.7)
    assert 0.5 < time.monotonic() - begun < 1.5
    part = tmp_path / "a.zip.part"
    have = part.read_bytes() if part.exists() else b""
    assert OLD.startswith(have)
    assert bool(have) == (fault.kind == "trickle" or fault.value > 0)


def test_a_stall_is_left_and_resumed(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("stall", 20_000, seconds=20)]
    begun = time.monotonic()
    assert fetch(remote, tmp_path, timeout_s=0.3) == OLD
    assert time.monotonic() - begun < 3
    assert ranges(remote)[1] == "bytes=20000-"


def test_a_deadline_during_a_fast_download_holds(remote, tmp_path: Path, monkeypatch):
    """Bytes that are always there when they are asked for must not hide the clock."""
    remote.files["/a.zip"] = bytes(64 << 20)
    monkeypatch.setattr(module.tqdm, "update", lambda *_: time.sleep(0.02))
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=r"deadline_s = 0\.4: the time was up; .* are kept"):
        fetch(remote, tmp_path, deadline_s=0.4)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("progress", [False, True])
def test_a_killed_process_is_gone_on_with(remote, tmp_path: Path, progress, capsys):
    remote.faults["/a.zip"] = [Fault("stall", 20_000, seconds=60)]
    part = tmp_path / "a.zip.part"
    with subprocess.Popen(
        [sys.executable, "-c", FETCH, f"{remote.url}/a.zip", str(tmp_path / "a.zip")]
    ) as process:
        assert wait_until(lambda: len(remote.requests) == 1, 30)
        assert wait_until(lambda: part.exists() and part.stat().st_size == 20_000)
        process.kill()
    assert fetch(remote, tmp_path, progress=progress) == OLD
    assert ranges(remote)[1:] == ["bytes=20000-", "bytes=50000-"]
    assert names(tmp_path) == {"a.zip", "a.zip.sha256"}
    assert ("a.zip" in capsys.readouterr().err) == progress


def test_two_processes_fetch_once(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("stall", 20_000, seconds=1)]
    command = [sys.executable, "-c", FETCH, f"{remote.url}/a.zip", str(tmp_path / "a.zip")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / "a.zip").read_bytes() == OLD
    assert ranges(remote) == [None, "bytes=20000-", "bytes=50000-"]
    assert names(tmp_path) == {"a.zip", "a.zip.sha256"}


def test_who_waits_for_another_heeds_the_deadline(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("stall", 20_000, seconds=20)]
    failures = []

    def other():
        try:
            fetch(remote, tmp_path, deadline_s=2)
        except DownloadError as error:
            failures.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    assert wait_until(lambda: (tmp_path / "a.zip.lock").exists())
    with pytest.raises(TimeoutError, match=r"another process holds .*a\.zip\.lock"):
        fetch(remote, tmp_path, deadline_s=0.5)
    thread.join()
    assert len(failures) == 1


def test_a_disk_without_space_is_found_out_before(remote, tmp_path: Path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=49_999)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"50\.0kB are needed and 50\.0kB free") as raised:
        fetch(remote, tmp_path)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path)
    # What is there already needs no more space.
    (tmp_path / "a.zip.part").write_bytes(OLD[:1])
    monkeypatch.undo()
    assert fetch(remote, tmp_path) == OLD


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_disk_that_fills_up_is_named_and_the_part_kept(remote, tmp_path: Path):
    limited = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    {FETCH.strip().replace(chr(10), chr(10) + "    ")}
except OSError as error:
    print(type(error).__name__, error.filename)
"""
    done = subprocess.run(
        [sys.executable, "-c", limited, f"{remote.url}/a.zip", str(tmp_path / "a.zip")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"OSError {tmp_path / 'a.zip.part'}\n"
    assert OLD.startswith((tmp_path / "a.zip.part").read_bytes())
    assert fetch(remote, tmp_path) == OLD


def test_a_server_that_is_not_there_is_named(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
        with pytest.raises(DownloadError, match=rf"{url}: gave up .*refused.*; run again later"):
            download(url, tmp_path / "a.zip", deadline_s=5, retries=2, backoff_s=0.01)


def test_a_certificate_that_nobody_signed_fails_at_once(monkeypatch, tmp_path: Path):
    def refuse(*_, **__):
        try:
            raise ssl.SSLCertVerificationError("self-signed certificate")
        except ssl.SSLError as error:
            raise requests.exceptions.SSLError("somewhere deep") from error

    monkeypatch.setattr("requests.get", refuse)
    with pytest.raises(DownloadError, match=r"cannot be trusted: .*self-signed"):
        download("https://127.0.0.1/a.zip", tmp_path / "a.zip", deadline_s=5)


def test_addresses_that_cannot_be_understood_are_named(tmp_path: Path):
    for url in ("ftp://host/a", "a.zip", "http://", "https:///a"):
        with pytest.raises(ValueError, match="url must begin with http"):
            download(url, tmp_path / "a.zip", deadline_s=1)
    with pytest.raises(DownloadError, match="http://a b:x"):
        download("http://a b:x/", tmp_path / "a.zip", deadline_s=1)


@pytest.mark.parametrize(
    "options",
    [{"deadline_s": 0}, {"deadline_s": float("nan")}, {"timeout_s": 0}, {"retries": -1},
     {"backoff_s": -1}, {"timeout_s": float("inf")}],
)  # fmt: skip
def test_arguments_out_of_range_are_named(remote, tmp_path: Path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        fetch(remote, tmp_path, **options)
    assert not remote.requests


def test_a_folder_in_the_place_of_the_file_is_named(remote, tmp_path: Path):
    with pytest.raises(ValueError, match="path must be a file, got the folder"):
        download(f"{remote.url}/a.zip", tmp_path, deadline_s=1)


def test_the_facts_of_a_part_say_where_it_comes_from(remote, tmp_path: Path):
    remote.faults["/a.zip"] = [Fault("drop", 20_000)]
    with pytest.raises(DownloadError):
        fetch(remote, tmp_path, deadline_s=1, backoff_s=60)
    facts = json.loads((tmp_path / "a.zip.part.json").read_text())
    assert facts["url"] == f"{remote.url}/a.zip"
    assert facts["total"] == 50_000
