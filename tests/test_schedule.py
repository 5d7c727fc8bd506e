"""Learning rate and averaging are functions of progress alone."""

import itertools
import math

import pytest

from agedphoto.train.schedule import ema_decay, learning_rate


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, 1.0), (0.25, 0.01 + 0.99 * 0.853553), (0.5, 0.505), (1.0, 0.01), (7.0, 0.01)],
)
def test_the_rate_falls_along_a_cosine_to_a_hundredth(progress, expected):
    rate = learning_rate(2.0, seen=1000, warmup=0, progress=progress)
    assert rate == pytest.approx(2.0 * expected, rel=1e-5)


def test_the_rate_rises_linearly_over_the_warm_up():
    rates = [learning_rate(1.0, seen=seen, warmup=100, progress=0) for seen in range(200)]
    assert rates[:100] == pytest.approx([(seen + 1) / 100 for seen in range(100)])
    assert rates[100:] == [1.0] * 100


def test_after_the_warm_up_the_rate_never_rises():
    rates = [
        learning_rate(1.0, seen=seen, warmup=50, progress=seen / 1000) for seen in range(50, 1001)
    ]
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))


def test_half_of_the_average_is_forgotten_in_a_half_life():
    decay = ema_decay(seen=10**9, batch=64, half_life=640)
    assert decay**10 == pytest.approx(0.5)


def test_the_half_life_is_at_most_a_tenth_of_what_was_seen():
    assert ema_decay(seen=1000, batch=100, half_life=10**6) == pytest.approx(0.5)
    assert ema_decay(seen=32, batch=32, half_life=10**6) == pytest.approx(0.5**10)


def test_no_half_life_keeps_nothing_of_the_average():
    assert ema_decay(seen=10**6, batch=1, half_life=0) == 0


def test_batches_of_any_size_average_alike():
    one = ema_decay(seen=10**9, batch=64, half_life=10_000)
    assert ema_decay(seen=10**9, batch=1, half_life=10_000) == pytest.approx(math.pow(one, 1 / 64))


def test_the_exponential_rate_is_that_of_keras():
    """`LearningRateScheduler(lambda epoch, lr: lr * 0.95 if epoch else lr)`, epoch by epoch."""
    expected = 2e-4
    for epoch in range(40):
        expected = expected * 0.95 if epoch else expected
        for part in (0.0, 0.5, 0.999):
            rate = learning_rate(
                2e-4, schedule="exponential", seen=10**6, warmup=0, progress=0.5,
                epochs=epoch + part, decay=0.95,
            )  # fmt: skip
            assert rate == pytest.approx(expected)


def test_plateau_is_the_share_that_is_left_and_constant_is_constant():
    options = {"seen": 10**6, "warmup": 0, "progress": 0.7, "epochs": 9.0}
    assert learning_rate(2.0, schedule="plateau", share=0.25, **options) == 0.5
    assert learning_rate(2.0, schedule="constant", **options) == 2.0


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "plateau", "constant"])
def test_every_schedule_warms_up(schedule):
    rates = [
        learning_rate(1.0, schedule=schedule, seen=seen, warmup=100, progress=0)
        for seen in (0, 49, 99)
    ]
    assert rates == pytest.approx([0.01, 0.5, 1.0])
