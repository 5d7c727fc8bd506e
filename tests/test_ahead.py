"""Work ahead on threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agedphoto.datasets.ahead import MemoryBudget, map_ahead


def test_mapping_ahead_keeps_the_order_and_runs_no_further_than_told():
    begun, lock = [], threading.Lock()

    def double(number: int) -> int:
        with lock:
            begun.append(number)
        return 2 * number

    with ThreadPoolExecutor(3) as threads:
        mapped = map_ahead(threads, double, iter(range(50)), ahead=4)
        got = []
        for value in mapped:
            got.append(value)
            assert len(begun) <= len(got) + 4
    assert got == [2 * number for number in range(50)]


def test_mapping_ahead_passes_on_errors():
    with ThreadPoolExecutor(2) as threads, pytest.raises(ZeroDivisionError):
        list(map_ahead(threads, lambda number: 1 // (number - 3), range(9), ahead=2))


def test_no_more_bytes_wait_than_told_however_slow_the_first_is():
    """The first result is late; behind it, those that are done fill the allowance."""
    go, done = threading.Event(), []

    def work(number: int) -> bytes:
        if number == 0:
            go.wait(10)
        done.append(number)
        return bytes(100)

    with ThreadPoolExecutor(2) as threads:
        mapped = map_ahead(threads, work, range(40), ahead=30, weigh=len, ahead_bytes=500)
        thread = threading.Timer(0.3, go.set)
        thread.start()
        assert sum(len(each) for each in mapped) == 4000
        thread.join()
    # 5 fill the allowance; those begun before they were done may be beyond it.
    assert done.index(0) <= 30
    assert sorted(done) == list(range(40))


def test_a_budget_is_never_exceeded_and_lets_the_greedy_work_alone():
    budget, lock = MemoryBudget(100), threading.Lock()
    held, most, alone = 0, 0, []

    def work(size: int) -> None:
        nonlocal held, most
        with budget.hold(size):
            with lock:
                held += size
                most = max(most, held if size <= 100 else 0)
                alone.append(size <= 100 or held == size)
            time.sleep(0.002)
            with lock:
                held -= size

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [30, 40, 50, 1000, 20, 100, 60, 70, 5, 500] * 3))
    assert 0 < most <= 100
    assert all(alone)
    assert held == 0


def test_a_budget_is_given_back_after_an_error():
    budget = MemoryBudget(10)
    with pytest.raises(KeyError), budget.hold(10):
        raise KeyError
    assert budget.take(10) == 10
