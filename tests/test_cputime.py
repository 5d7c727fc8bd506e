"""Laws of counting the processor time of a library's threads."""

import sys
import threading
import time
from pathlib import Path

import pytest

from agedphoto.datasets.cputime import LibraryClock

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def burn(seconds: float, name: str | None = None) -> None:
    """Use so much processor time of this thread, which has the name that the system knows."""
    if name:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


def on_threads(*burning: tuple[float, str]) -> list[threading.Thread]:
    threads = [threading.Thread(target=burn, args=what) for what in burning]
    for thread in threads:
        thread.start()
    return threads


def test_threads_of_the_library_are_counted_even_when_they_have_ended():
    clock = LibraryClock("[lib]")
    with clock.running():
        for thread in on_threads((0.1, "[lib] one"), (0.1, "[lib] two")):
            thread.join()
    assert 0.19 <= clock.seconds <= 0.25
    with clock.running():
        time.sleep(0.01)
    assert clock.seconds <= 0.25


def test_other_threads_are_not_counted():
    clock, ended = LibraryClock("[lib]"), threading.Event()

    def other() -> None:
        burn(0.1, "other")
        ended.wait(5)

    with clock.running():
        thread = threading.Thread(target=other)
        thread.start()
        burn(0.1)
        time.sleep(0.3)
    ended.set()
    thread.join()
    assert clock.seconds <= 0.03


def test_what_is_used_outside_is_not_counted():
    clock = LibraryClock("[lib]")
    for thread in on_threads((0.05, "[lib] early")):
        thread.join()
    with clock.running():
        pass
    assert clock.seconds <= 0.02


def test_time_is_counted_when_the_library_fails():
    clock = LibraryClock("[lib]")

    def fail() -> None:
        with clock.running():
            for thread in on_threads((0.05, "[lib] early")):
                thread.join()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert clock.seconds >= 0.045
