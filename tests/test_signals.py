"""The first signal is noted, its echo is nothing, and a later one acts as ever."""

import signal
import threading

import pytest

from agedphoto.train import signals
from agedphoto.train.signals import SAME_S, noting_signals


@pytest.fixture(autouse=True)
def usual_handlers():
    """What Python starts with, however these tests were started; and again afterwards."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock whose time is the one number in the list."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_the_first_signal_is_noted_and_nothing_else_happens(number):
    with noting_signals() as asked:
        assert asked.name is None
        signal.raise_signal(number)
        assert asked.name == number.name


def test_what_comes_at_once_is_the_same_request(clock):
    with noting_signals() as asked:
        signal.raise_signal(signal.SIGTERM)
        clock[0] += SAME_S
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert asked.name == "SIGTERM"


@pytest.mark.parametrize("first", signals.SIGNALS)
def test_a_second_interrupt_later_on_acts_as_ever(clock, first):
    with noting_signals():
        signal.raise_signal(first)
        clock[0] += SAME_S + 0.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_request_to_terminate_goes_to_who_had_it_before(clock):
    came = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    with noting_signals() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert came == []
        clock[0] += SAME_S + 0.1
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
        assert asked.name == "SIGTERM"


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_given_back(fails):
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    try:
        with noting_signals():
            assert signal.getsignal(signal.SIGINT) not in before
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_a_signal_that_is_ignored_stays_so():
    """As nohup and shells ask for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noting_signals() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.name is None
        signal.raise_signal(signal.SIGTERM)
        assert asked.name == "SIGTERM"
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_in_another_thread_nothing_is_noted_and_nothing_fails():
    names = []

    def work() -> None:
        with noting_signals() as asked:
            names.append(asked.name)
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert names == [None]
