"""Locks between processes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from faulty_server import wait_until

from agedphoto.datasets.locks import locking

HOLD = """
import sys, time
from pathlib import Path
from agedphoto.datasets.locks import locking
with locking(Path(sys.argv[1]), wait_s=5):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_waits_too_long_is_told_what_for(tmp_path: Path, holder):
    begun, told = time.monotonic(), []
    with (
        pytest.raises(TimeoutError, match=r"another process holds .*lock"),
        locking(tmp_path / "lock", wait_s=0.3, on_wait=lambda: told.append(1)),
    ):
        pass
    assert 0.3 <= time.monotonic() - begun < 2
    assert told == [1]


def test_a_killed_process_lets_go(tmp_path: Path, holder):
    holder.kill()
    with locking(tmp_path / "lock", wait_s=5):
        assert (tmp_path / "lock").exists()
    assert not list(tmp_path.iterdir())


def test_a_file_that_lies_there_locks_nothing(tmp_path: Path):
    (tmp_path / "lock").write_text("left over")
    with locking(tmp_path / "lock", wait_s=0):
        pass
    assert not list(tmp_path.iterdir())


def test_no_two_threads_are_ever_inside_at_once(tmp_path: Path):
    """Many in a row, so that some open the file just as another takes it away."""
    inside, most, rounds = [], [], []

    def work():
        for _ in range(20):
            with locking(tmp_path / "lock", wait_s=30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
            rounds.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(rounds) == 80, 30)
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_an_exception_inside_lets_go(tmp_path: Path):
    with pytest.raises(KeyError), locking(tmp_path / "lock", wait_s=0):
        raise KeyError
    with locking(tmp_path / "lock", wait_s=0):
        assert (tmp_path / "lock").exists()
