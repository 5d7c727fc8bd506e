"""Laws of the threads that do not outlive whom they work for."""

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import pytest

from agedphoto.datasets.workers import Workers, num_cores


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def wait_until(condition, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_results_and_errors_come_out_of_the_futures():
    workers = Workers(2, "sums")
    right, wrong = workers.submit(divmod, 7, 2), workers.submit(divmod, 7, 0)
    assert right.result(5) == (3, 1)
    assert isinstance(wrong.exception(5), ZeroDivisionError)
    workers.close()


def test_tasks_of_one_thread_are_done_in_order():
    workers, done = Workers(1, "order"), []
    wait([workers.submit(done.append, number) for number in range(100)], 5)
    workers.close()
    assert done == list(range(100))


def test_there_are_never_more_threads_than_asked_for_nor_than_tasks():
    workers = Workers(3, "count")
    assert not threads_named("count")
    workers.submit(int).result(5)
    assert len(threads_named("count")) == 1
    wait([workers.submit(int) for _ in range(20)], 5)
    assert len(threads_named("count")) == 3
    workers.close()
    assert not threads_named("count")


def test_close_cancels_what_has_not_begun_and_waits_for_what_has():
    workers, going, may_end = Workers(1, "close"), threading.Event(), threading.Event()

    def task() -> str:
        going.set()
        may_end.wait(5)
        return "done"

    begun, queued = workers.submit(task), workers.submit(task)
    assert going.wait(5)
    threading.Timer(0.05, may_end.set).start()
    workers.close()
    assert begun.result(0) == "done"
    assert queued.cancelled()
    # `wait` knows of the cancellation too.
    assert not wait([queued], 1).not_done


def test_close_may_be_called_again_and_nothing_is_taken_after_it():
    workers = Workers(1, "again")
    workers.submit(int).result(5)
    workers.close()
    workers.close()
    assert workers.closed
    with pytest.raises(RuntimeError, match="again threads are closed"):
        workers.submit(int)


def test_workers_that_are_dropped_leave_no_thread():
    workers = Workers(2, "dropped")
    wait([workers.submit(int) for _ in range(4)], 5)
    assert threads_named("dropped")
    del workers
    gc.collect()
    assert wait_until(lambda: not threads_named("dropped"))


def test_an_owner_whose_own_tasks_are_queued_is_let_go_of_when_they_are_done():
    class Owner:
        def __init__(self) -> None:
            self.workers = Workers(1, "owner")

        def work(self) -> None:
            time.sleep(0.01)

    owner = Owner()
    futures = [owner.workers.submit(owner.work) for _ in range(3)]
    del owner
    wait(futures, 5)
    gc.collect()
    assert wait_until(lambda: not threads_named("owner"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own():
    workers = Workers(1, "forked")
    workers.submit(int).result(5)
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if workers.submit(divmod, 7, 2).result(5) == (3, 1) else 2
            workers.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert workers.submit(divmod, 9, 2).result(5) == (4, 1)
    workers.close()


@pytest.mark.parametrize(
    "ending", ["pass", "raise RuntimeError('the end')", "signal.raise_signal(2)"]
)
def test_the_interpreter_ends_at_once_whatever_is_queued(ending):
    script = f"""
import signal, time
from agedphoto.datasets.workers import Workers
workers = Workers(1, "queued")
futures = [workers.submit(time.sleep, 0.2) for _ in range(1000)]
time.sleep(0.1)
print("begun", flush=True)
{ending}
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        begun = time.monotonic()
        process.wait(60)
        assert time.monotonic() - begun < 4
        assert (process.returncode == 0) == (ending == "pass")


def test_num_threads_below_one_is_refused():
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        Workers(0, "none")


def test_cores_are_shared_among_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert num_cores() == 8
    for ranks, cores in (("2", 4), ("3", 2), ("64", 1), ("", 8), ("x", 8), ("0", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert num_cores() == cores
