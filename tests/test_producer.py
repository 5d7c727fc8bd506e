"""A generator on a thread of its own."""

import threading
import time

import pytest
from faulty_server import wait_until

from agedphoto.datasets.producer import Producer


def threads() -> int:
    return sum(thread.name == "producer-test" for thread in threading.enumerate())


def run(items, depth=2) -> Producer:
    return Producer(items, depth=depth, name="producer-test")


def test_items_come_in_order_and_end():
    assert list(run(n * n for n in range(50))) == [n * n for n in range(50)]
    assert wait_until(lambda: threads() == 0)


def test_it_runs_so_far_ahead_and_no_further():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    ahead = run(items(), depth=3)
    # Three wait, and one more is in hand.
    assert wait_until(lambda: len(made) == 4)
    time.sleep(0.05)
    assert len(made) == 4
    assert next(ahead) == 0
    assert wait_until(lambda: len(made) == 5)
    ahead.close()


def test_an_error_comes_in_its_place_and_at_once():
    def items():
        yield 1
        raise OSError("the disk is gone")

    ahead = run(items())
    assert next(ahead) == 1
    begun = time.monotonic()
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert time.monotonic() - begun < 1
    with pytest.raises(StopIteration):
        next(ahead)


def test_one_who_waits_hears_of_an_error_within_a_second():
    let_go = threading.Event()

    def items():
        let_go.wait(5)
        raise ValueError("late")
        yield

    ahead = run(items())
    threading.Timer(0.1, let_go.set).start()
    begun = time.monotonic()
    with pytest.raises(ValueError, match="late"):
        next(ahead)
    assert time.monotonic() - begun < 1.1


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_ends_the_thread_and_the_generator(taken):
    closed = []

    def items():
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    ahead = run(items())
    for _ in range(taken):
        next(ahead)
    ahead.close()
    ahead.close()
    assert threads() == 0
    assert closed == [True]
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_does_not_wait_for_an_item_that_never_comes():
    let_go = threading.Event()

    def items():
        let_go.wait(10)
        yield 1

    ahead = run(items())
    begun = time.monotonic()
    ahead.close()
    assert time.monotonic() - begun < 2
    let_go.set()
    assert wait_until(lambda: threads() == 0)


def test_a_depth_of_none_is_refused():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        run(iter([]), depth=0)
