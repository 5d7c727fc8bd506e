"""Ranged reads of local files and over a network that fails."""

import multiprocessing
import os
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from faulty_server import Fault, FaultyServer, wait_until

from agedphoto.datasets import open_index
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.urls import is_remote, join_url, relative_url

DATA = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
NAME = "/set/train.tar"


@pytest.fixture
def url(server: FaultyServer) -> str:
    server.files[NAME] = DATA
    return server.url + NAME


def test_a_local_range_is_that_of_the_file(tmp_path: Path):
    path = tmp_path / "a #1 %20?.tar"
    path.write_bytes(DATA)
    reader = RangeReader()
    for place in (str(path), f"file://{path}"):
        assert reader.read(place, 100, 50) == DATA[100:150]
        assert reader.read(place, len(DATA) - 1, 1) == DATA[-1:]
        assert reader.size(place) == len(DATA)
        assert reader.read_all(place) == DATA
        with pytest.raises(ValueError, match="10 of 20 bytes are there; the shard is cut short"):
            reader.read(place, len(DATA) - 10, 20)
        with pytest.raises(ValueError, match="0 of 20 bytes are there"):
            reader.read(place, len(DATA) + 10, 20)
    assert reader.counts.reads == 6
    assert reader.counts.retries == 0
    path.unlink()
    with pytest.raises(FileNotFoundError, match="a #1"):
        reader.read(str(path), 0, 1)


def test_a_range_over_http_is_one_request_of_these_bytes(server: FaultyServer, url: str):
    reader = RangeReader()
    assert reader.read(url, 1000, 5000) == DATA[1000:6000]
    assert server.requests == [("GET", NAME, "bytes=1000-5999")]
    assert reader.read(url, 0, 0) == b""
    assert reader.read(url, 0, len(DATA)) == DATA
    assert reader.size(url) == len(DATA)
    assert reader.read_all(url) == DATA
    assert reader.counts.bytes_read == 5000 + 2 * len(DATA)
    assert reader.counts.retries == 0


@pytest.mark.parametrize(
    ("faults", "retries"),
    [
        ([Fault("status", 500)], 1),
        ([Fault("status", 503), Fault("status", 429), Fault("status", 408)], 3),
        ([Fault("drop", 0)], 1),
        ([Fault("drop", 3000), Fault("drop", 1000)], 2),
        ([Fault("lie", -100)], 1),
        ([Fault("lie", 100)], 0),
        ([Fault("chunked", 2000)], 1),
        ([Fault("stall", 700, seconds=30)], 1),
    ],
)
def test_what_fails_for_a_while_is_read_in_the_end(
    server: FaultyServer, url: str, faults: list[Fault], retries: int
):
    server.faults[NAME] = list(faults)
    reader = RangeReader(deadline_s=3)
    assert reader.read(url, 500, 5000) == DATA[500:5500]
    assert reader.counts.retries == retries == len(server.requests) - 1


def test_a_dropped_connection_is_taken_up_where_it_broke(server: FaultyServer, url: str):
    server.faults[NAME] = [Fault("drop", 3000), Fault("drop", 1000)]
    assert RangeReader().read(url, 500, 5000) == DATA[500:5500]
    assert [wanted for _, _, wanted in server.requests] == [
        "bytes=500-5499", "bytes=3500-5499", "bytes=4500-5499"
    ]  # fmt: skip


def test_an_index_over_http_is_read_through_faults(server: FaultyServer, make_shards):
    shards = make_shards([(16, 16)] * 3)
    server.files = {f"/set/{path.name}": path for path in shards.iterdir()}
    server.faults["/set/index.json"] = [Fault("status", 502), Fault("drop", 100)]
    server.faults["/set/train-000000.tar"] = [Fault("drop", 10), Fault("status", 500)]
    index = open_index(f"{server.url}/set")
    reader = RangeReader()
    for number in range(3):
        np.testing.assert_array_equal(index.read(number, reader), open_index(shards).read(number))
    assert reader.counts.retries == 2


def test_wrong_bytes_are_fetched_again_once(server: FaultyServer, make_shards, tmp_path: Path):
    """Also where the wrong ones are in the cache by now, which is put right."""
    shards = make_shards([(16, 16)])
    server.files = {f"/set/{path.name}": path for path in shards.iterdir()}
    index = open_index(f"{server.url}/set")
    server.faults["/set/train-000000.tar"] = [Fault("flip", 20)]
    reader = RangeReader(cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(index.read(0, reader), open_index(shards).read(0))
    before = len(server.requests)
    np.testing.assert_array_equal(index.read(0, reader), open_index(shards).read(0))
    assert len(server.requests) == before
    assert reader.counts.cache_hits == 1
    # Wrong for good: named, not retried for ever.
    server.faults["/set/train-000000.tar"] = [Fault("flip", 20)] * 10
    with pytest.raises(ValueError, match=r"'0000' of http.*train-000000.tar: is damaged"):
        index.read(0, RangeReader())
    assert len(server.requests) == before + 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, FileNotFoundError), (410, FileNotFoundError), (403, PermissionError),
     (401, PermissionError), (400, OSError), (451, OSError)],
)  # fmt: skip
def test_what_is_refused_for_good_fails_at_once(server: FaultyServer, url: str, status, kind):
    server.faults[NAME] = [Fault("status", status)] * 10
    with pytest.raises(kind, match=rf"train.tar: bytes 5 to 14 not read in 1 attempt: .*{status}"):
        RangeReader().read(url, 5, 10)
    assert len(server.requests) == 1


def test_attempts_are_counted_out_and_the_last_reason_is_told(server: FaultyServer, url: str):
    server.faults[NAME] = [Fault("drop", 0), Fault("status", 500), Fault("status", 503)]
    message = rf"^{url}: bytes 0 to 9 not read in 3 attempts: the server answers with status 503$"
    with pytest.raises(OSError, match=message):
        RangeReader(retries=2).read(url, 0, 10)
    server.faults[NAME] = [Fault("status", 503)]
    with pytest.raises(OSError, match="in 1 attempt: "):
        RangeReader(retries=0).read(url, 0, 10)


def test_nobody_there_is_an_error_in_the_end():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.tar"
    with pytest.raises(OSError, match="not read in 2 attempts: Cannot connect"):
        RangeReader(retries=1).read(url, 0, 10)


@pytest.mark.parametrize(
    "fault",
    [Fault("stall", 3, seconds=60), Fault("trickle", seconds=0.05), Fault("status", 500),
     Fault("drop", 0), Fault("slow_headers", seconds=0.05)],
)  # fmt: skip
def test_the_deadline_holds(server: FaultyServer, url: str, fault: Fault):
    server.faults[NAME] = [fault] * 1000
    reader = RangeReader(deadline_s=1, retries=1000)
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"not read within 1 s in \d+ attempts?: \S"):
        reader.read(url, 0, 50_000)
    assert time.monotonic() - begun < 2
    assert reader.counts.retries >= 1


def test_a_server_without_ranges_is_named_and_does_not_send_the_shard(
    server: FaultyServer, url: str
):
    server.faults[NAME] = [Fault("no_range")] * 9
    reader = RangeReader()
    with pytest.raises(OSError, match=f"{url}: bytes 9 to 10 not read in 1 attempt: .* ignores"):
        reader.read(url, 9, 2)
    with pytest.raises(OSError, match="ignores ranges"):
        reader.read(url, 0, 2)
    assert reader.counts.bytes_read == 0
    assert len(server.requests) == 2
    # The whole file is what was asked for.
    assert reader.read(url, 0, len(DATA)) == DATA


def test_a_file_that_ends_too_early_is_cut_short_and_not_asked_for_again(
    server: FaultyServer, url: str
):
    reader = RangeReader()
    with pytest.raises(ValueError, match="10 of 30 bytes are there; the shard is cut short"):
        reader.read(url, len(DATA) - 10, 30)
    with pytest.raises(ValueError, match="0 of 30 bytes are there"):
        reader.read(url, len(DATA) + 10, 30)
    assert len(server.requests) == 2


def test_a_file_that_vanishes_is_named(server: FaultyServer, url: str):
    reader = RangeReader()
    assert reader.read(url, 0, 5) == DATA[:5]
    del server.files[NAME]
    with pytest.raises(OSError, match=f"{url}: .* there is no such file"):
        reader.read(url, 0, 5)


def test_signatures_are_used_but_not_told(server: FaultyServer):
    name = f"{NAME}?sig=SECRET&x=1"
    server.files[name] = DATA
    url = server.url.replace("http://", "http://user:PASS@") + name
    reader = RangeReader(retries=0)
    assert reader.read(server.url + name, 3, 4) == DATA[3:7]
    server.faults[name] = [Fault("status", status) for status in (404, 403, 500)] + [
        Fault("no_range"), Fault("drop", 0)
    ]  # fmt: skip
    for _ in range(5):
        with pytest.raises(OSError, match=r"train\.tar: ") as failed:
            reader.read(url, 3, 4)
        assert "SECRET" not in str(failed.value)
        assert "PASS" not in str(failed.value)


def test_threads_read_at_the_same_time(server: FaultyServer, url: str):
    server.faults[NAME] = [Fault("drop", 10), Fault("status", 500), Fault("drop", 0)] * 3
    reader = RangeReader()
    places = np.random.default_rng(1).integers(0, len(DATA) - 1000, 200).tolist()
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda place: reader.read(url, place, 1000), places))
    assert found == [DATA[place : place + 1000] for place in places]
    assert reader.counts.reads == 200
    assert reader.counts.retries == 9


def test_a_reader_can_be_pickled_and_keeps_its_settings(server: FaultyServer, url: str, tmp_path):
    reader = RangeReader(retries=0, deadline_s=2, cache_dir=tmp_path / "cache")
    reader.read(url, 0, 10)
    again = pickle.loads(pickle.dumps(reader))
    assert again.read(url, 0, 10) == DATA[:10]
    assert again.counts.cache_hits == again.counts.reads == 1
    server.faults[NAME] = [Fault("status", 500)]
    with pytest.raises(OSError, match="in 1 attempt"):
        again.read(url, 50, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_process_reads_on(server: FaultyServer, url: str, tmp_path: Path):
    """fsspec's own thread is not there in the child, and a lock may be held for ever."""
    reader = RangeReader(deadline_s=5, cache_dir=tmp_path / "cache")
    reader.read(url, 0, 10)
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def read() -> None:
        results.put((reader.read(url, 20, 10), reader.counts.reads))

    stop = threading.Event()
    busy = threading.Thread(target=lambda: [reader.counts for _ in iter(stop.is_set, True)])
    busy.start()
    children = [context.Process(target=read) for _ in range(3)]
    for child in children:
        child.start()
    assert [results.get(timeout=20) for _ in children] == [(DATA[20:30], 1)] * 3
    for child in children:
        child.join(10)
        assert child.exitcode == 0
    stop.set()
    busy.join()
    assert reader.read(url, 30, 10) == DATA[30:40]


def test_closing_ends_what_is_under_way(server: FaultyServer, url: str):
    server.faults[NAME] = [Fault("stall", 5, seconds=60)]
    reader = RangeReader()
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(reader.read, url, 0, 10_000)
        assert wait_until(lambda: server.requests)
        begun = time.monotonic()
        reader.close()
        with pytest.raises(OSError, match="the reader is closed"):
            reading.result(5)
    assert time.monotonic() - begun < 2
    with pytest.raises(OSError, match="the reader is closed"):
        reader.read(url, 0, 10)


def test_file_systems_that_only_wait_are_read_under_the_deadline_too(monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/ranges/a.tar", DATA)
    try:
        reader = RangeReader(deadline_s=1, retries=0)
        place = "memory://ranges/a.tar"
        assert reader.read(place, 7, 70) == DATA[7:77]
        assert reader.size(place) == len(DATA)
        with pytest.raises(ValueError, match="1 of 5 bytes are there"):
            reader.read(place, len(DATA) - 1, 5)
        monkeypatch.setattr(type(memory), "cat_file", lambda *_, **__: time.sleep(5))
        begun = time.monotonic()
        with pytest.raises(OSError, match="not read"):
            reader.read(place, 7, 70)
        assert time.monotonic() - begun < 2
    finally:
        memory.rm("/ranges", recursive=True)


def test_what_nothing_here_can_read_is_refused_with_the_remedy(monkeypatch):
    with pytest.raises(ValueError, match=r"cannot open nonsense://x/a.tar: .*nonsense"):
        RangeReader().read("nonsense://x/a.tar", 0, 1)

    def missing(*_, **__):
        raise ImportError("Please install it")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    for url, package in (("gs://b/a.tar", "gcsfs"), ("s3://b/a.tar", "s3fs")):
        with pytest.raises(ValueError, match=f"cannot open {url}: pip install {package}"):
            RangeReader().read(url, 0, 1)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="retries must be at least 0, got -1"):
        RangeReader(retries=-1)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="deadline_s must be above 0"):
            RangeReader(deadline_s=wrong)


@pytest.mark.parametrize(
    ("root", "name", "place"),
    [
        ("data", "a.tar", "data/a.tar"),
        ("", "data/a.tar", "data/a.tar"),
        ("data", "/other/a.tar", "/other/a.tar"),
        ("s3://b", "s3://c/a.tar", "s3://c/a.tar"),
        ("s3://b/x", "y/a.tar", "s3://b/x/y/a.tar"),
        ("https://h/x?sas=1", "a.tar", "https://h/x/a.tar?sas=1"),
        ("https://h/x", "https://h/x/a.tar?sig=1", "https://h/x/a.tar?sig=1"),
    ],
)
def test_names_and_places_belong_together(root: str, name: str, place: str):
    assert join_url(root, name) == place
    assert relative_url(root, place) == name
    assert is_remote(place) == ("://" in place)
