"""Where the time goes."""

import time

import pytest

from agedphoto.datasets.clock import Clock


def test_shares_are_of_the_time_after_the_first_batch():
    clock = Clock()
    with clock.waiting(8):
        time.sleep(0.2)
    for _ in range(4):
        with clock.using():
            time.sleep(0.03)
        with clock.waiting(8):
            time.sleep(0.01)
    rates = clock.rates()
    assert rates["first_batch_s"] == pytest.approx(0.2, abs=0.1)
    assert 0.15 < rates["seconds"] < 0.4
    assert rates["accelerator_utilization"] == pytest.approx(0.75, abs=0.15)
    assert rates["wait_share"] == pytest.approx(1 - rates["accelerator_utilization"])
    assert rates["pairs_per_s"] == pytest.approx(32 / rates["seconds"])
    assert clock.pairs == 40


def test_a_batch_that_fails_does_not_stop_the_clock_of_its_use():
    clock = Clock()
    with clock.waiting(1):
        pass

    def use() -> None:
        with clock.using():
            time.sleep(0.02)
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert clock.rates()["seconds"] >= 0.02


def test_recent_waiting_is_told_apart_from_earlier():
    clock = Clock()
    assert clock.recent_wait_share() == 0
    for wait, use in ((0.0, 0.0), (0.05, 0.0)):
        with clock.waiting(1):
            time.sleep(wait)
        with clock.using():
            time.sleep(use)
    assert clock.recent_wait_share() > 0.9
    with clock.using():
        time.sleep(0.05)
    assert clock.recent_wait_share() < 0.1


def test_what_is_made_while_waiting_is_no_waiting():
    clock = Clock()
    for _ in range(3):
        with clock.waiting(1):
            with clock.fetching():
                time.sleep(0.01)
            with clock.making(1):
                time.sleep(0.04)
        with clock.using():
            time.sleep(0.05)
    rates = clock.rates()
    assert rates["wait_share"] == pytest.approx(0.1, abs=0.08)
    assert rates["accelerator_utilization"] == pytest.approx(0.5, abs=0.15)


def test_making_is_counted_by_its_own_thread():
    clock = Clock()
    with clock.fetching():
        time.sleep(0.03)
    with clock.making(16):
        time.sleep(0.01)
    assert 16 / clock.rates()["pairs_per_s_unhindered"] == pytest.approx(0.04, abs=0.03)
    assert clock.rates()["make_share"] > 0
