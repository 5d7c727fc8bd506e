"""One answer of a web server. What is done with answers is in test_download.py."""

import threading
import time
from dataclasses import replace

import pytest
from faulty_server import Fault, FaultyServer, wait_until

from agedphoto.datasets.http_answer import Answer, DownloadError, Setback, Version

V = Version(url="http://a", etag='"1"', last_modified="Mon", total=5)


def ask(
    server: FaultyServer, headers: dict[str, str] | None = None, *, timeout_s=5.0, left_s=5.0
) -> Answer:
    end = time.monotonic() + left_s
    return Answer(f"{server.url}/a", headers or {}, timeout_s=timeout_s, end=end)


def test_status_version_and_bytes_come_through(server):
    server.files["/a"] = b"0123456789"
    with ask(server) as answer:
        assert answer.status == 200
        assert answer.version().total == 10
        assert b"".join(answer) == b"0123456789"
    with ask(server, {"Range": "bytes=4-6"}) as answer:
        assert (answer.status, answer.first_byte()) == (206, 4)
        # Of the whole file, not of what is sent of it.
        assert answer.version().total == 10
        assert b"".join(answer) == b"456"


def test_a_weak_etag_is_no_validator():
    assert V.validator == '"1"'
    assert replace(V, etag='W/"1"').validator == "Mon"
    assert replace(V, etag=None, last_modified=None).validator is None


@pytest.mark.parametrize("change", [{"etag": '"2"'}, {"last_modified": "Tue"}, {"total": 6}])
def test_versions_are_told_apart_by_whatever_both_say(change):
    assert V.may_be(V)
    assert not V.may_be(replace(V, **change))
    assert V.may_be(replace(V, **dict.fromkeys(change)))


def test_who_stops_listening_leaves_no_thread(server):
    server.files["/a"] = bytes(30 << 20)
    before = threading.active_count()
    for _ in range(5):
        with ask(server) as answer:
            next(iter(answer))
    # Those of the server end as well: nobody takes their bytes.
    assert wait_until(lambda: threading.active_count() <= before)


def test_bytes_that_come_in_time_are_given_at_once(server):
    """Not only when enough of them are there."""
    server.files["/a"] = b"0123456789"
    server.faults["/a"] = [Fault("trickle", seconds=0.2)]
    begun = time.monotonic()
    with ask(server) as answer:
        assert next(iter(answer)).startswith(b"0")
    assert time.monotonic() - begun < 1


def test_patience_ends_with_the_earlier_of_timeout_and_end(server):
    server.files["/a"] = b"0123456789"
    for timeout_s, left_s in ((0.2, 5.0), (5.0, 0.2)):
        server.faults["/a"] = [Fault("slow_headers", seconds=0.05)]
        begun = time.monotonic()
        with pytest.raises(Setback, match="nothing came for"):
            ask(server, timeout_s=timeout_s, left_s=left_s)
        assert time.monotonic() - begun < 1


def test_an_answer_without_the_file_says_whether_to_ask_again(server):
    with ask(server) as answer, pytest.raises(DownloadError, match=r"/a: the server answered 404"):
        answer.refuse()
    server.faults["/a"] = [Fault("status", 503, headers={"Retry-After": "7"})]
    with ask(server) as answer, pytest.raises(Setback, match="503 and asks to wait 7 s") as raised:
        answer.refuse()
    assert raised.value.wait_s == 7
