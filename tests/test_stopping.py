"""When training stops, when the learning rate comes down, and which weights are kept."""

import math
from pathlib import Path

import pytest
import torch
from nano import QUICK, flat, make_batch, quick

from agedphoto.train import TrainConfig, TrainResult, load_model, loop, train
from agedphoto.train.stopping import Best, EarlyStopping, Plateau

pytestmark = pytest.mark.usefixtures("nano")


def test_only_what_is_lower_is_better():
    best = Best()
    assert best.improve(0.5, 10)
    assert not best.improve(0.5, 20)
    assert not best.improve(0.6, 30)
    assert (best.score, best.seen) == (0.5, 10)
    assert best.improve(0.499, 40)
    assert (best.score, best.seen) == (0.499, 40)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_min_delta_is_a_share_of_the_best_score(scale):
    best = Best(score=1.0 * scale, seen=1)
    assert not best.improve(0.91 * scale, 2, min_delta=0.1)
    assert best.improve(0.89 * scale, 3, min_delta=0.1)


def test_a_score_that_is_no_number_is_no_improvement():
    best = Best()
    assert not best.improve(math.nan, 1)
    assert not best.improve(math.inf, 1)


def stopped_at(scores: list[float], *, patience: float, min_delta: float = 0.0) -> int | None:
    """The number of pairs at which scores, ten pairs apart, end a training."""
    stopping = EarlyStopping(patience=patience, min_delta=min_delta, best=Best())
    for number, score in enumerate(scores, start=1):
        if stopping.over(score, 10 * number):
            return 10 * number
    return None


def test_patience_is_counted_in_pairs_since_the_best():
    assert stopped_at([3, 2, 2, 2, 2, 2], patience=30) == 50
    assert stopped_at([3, 2, 2, 1, 1, 1], patience=30) is None
    assert stopped_at([3, 2, 2, 1, 1, 1, 1], patience=30) == 70
    assert stopped_at([3, 2.9, 2.8, 2.7, 2.6], patience=20) is None


def test_improvement_below_min_delta_does_not_count():
    slow = [1.0, 0.99, 0.98, 0.97, 0.96, 0.95]
    assert stopped_at(slow, patience=30) is None
    assert stopped_at(slow, patience=30, min_delta=0.05) == 40


def test_small_steps_add_up_to_an_improvement():
    """The score to beat is the one that counted, not the last."""
    slow = [1.0 * 0.98**n for n in range(9)]
    assert stopped_at(slow, patience=40, min_delta=0.05) is None


def test_without_an_end_to_patience_it_never_stops():
    assert stopped_at([1.0] * 1000, patience=math.inf) is None


def test_plateau_halves_the_share_after_its_patience_and_again_after_as_long():
    plateau = Plateau(patience=20, factor=0.5, min_delta=0.0, best=Best())
    shares = []
    for number, score in enumerate([3, 2, 2, 2, 2, 2, 1, 1, 1], start=1):
        plateau.update(score, 10 * number)
        shares.append(plateau.share)
    assert shares == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


# ---------------------------------------------------------------- in a training


@pytest.fixture
def trained(open_pairs, tmp_path, monkeypatch):
    """Return a function that trains with validation scores that are made up.

    It returns the result, and the averaged weights at each validation.
    """

    def run(scores: list[float], name: str = "run", **settings) -> tuple[TrainResult, list]:
        shown = []

        def measure(objective, net, *_, **__):
            shown.append(flat(net))
            return {"psnr_db": 1.0, "mse": scores[len(shown) - 1]}

        monkeypatch.setattr(loop, "measure", measure)
        config = quick(**{"validate_every": 8, "num_pairs": 8 * len(scores)} | settings)
        done = train(open_pairs(), tmp_path / name, config, validation=[make_batch(side_px=16)])
        return done, shown

    return run


def test_it_stops_early_and_says_so(trained, tmp_path):
    done, shown = trained([0.5, 0.4, 0.41, 0.4, 0.42, 0.39], patience=24)
    assert done.stop == "no improvement since 16 pairs"
    assert (done.seen_pairs, len(shown)) == (40, 5)
    card = load_model(tmp_path / "run" / "model.safetensors")[1]
    assert card.training["outcome"]["stop"] == "no improvement since 16 pairs"
    assert card.training["outcome"]["kept_pairs"] == 16


def test_slow_improvement_is_none_if_min_delta_says_so(trained):
    scores = [0.5, 0.499, 0.498, 0.497, 0.496]
    assert trained(scores, "patient", patience=24)[0].stop == "all pairs seen"
    stopped = trained(scores, "strict", patience=24, min_delta=0.1)[0]
    assert stopped.stop == "no improvement since 8 pairs"


def test_plateau_halves_the_rate_that_is_logged(trained):
    scores = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    done, _ = trained(scores, schedule="plateau", plateau_pairs=16, lr=1e-3)
    rates = [record["lr"] for record in done.log]
    # The rate of a line is that of the step before it.
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4])


def test_the_exponential_rate_falls_by_a_twentieth_each_epoch(trained, open_pairs):
    """As Keras' LearningRateScheduler with `lr * 0.95`, from the second epoch on."""
    batches = len(open_pairs())
    assert batches == 7
    done, _ = trained([1.0] * 15, schedule="exponential", lr=1e-3)
    rates = [record["lr"] for record in done.log]
    assert rates == pytest.approx([1e-3] * 7 + [0.95e-3] * 7 + [0.95**2 * 1e-3])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_that_scored_best_are_kept_or_the_last(trained, tmp_path, keep):
    done, shown = trained([0.5, 0.1, 0.9], keep=keep, lr=1e-2)
    assert not torch.equal(shown[1], shown[2])
    assert torch.equal(flat(done.net), shown[1 if keep == "best" else 2])
    net, card = load_model(tmp_path / "run" / "model.safetensors")
    assert torch.equal(flat(net), flat(done.net))
    assert card.training["outcome"]["kept_pairs"] == (16 if keep == "best" else 24)


def test_without_validation_the_last_weights_are_kept(open_pairs, tmp_path):
    done = train(open_pairs(), tmp_path / "run", TrainConfig(**QUICK, num_pairs=24))
    net, card = load_model(tmp_path / "run" / "model.safetensors")
    assert torch.equal(flat(net), flat(done.net))
    assert card.training["outcome"]["kept_pairs"] == 24


@pytest.mark.parametrize("settings", [{"patience": 100.0}, {"schedule": "plateau"}])
@pytest.mark.parametrize("validation", [None, []])
def test_what_validation_decides_is_refused_without_it(
    open_pairs, tmp_path: Path, settings, validation
):
    config = TrainConfig(**QUICK, num_pairs=8, **settings)
    with pytest.raises(ValueError, match="plateau need validation pairs; give some"):
        train(open_pairs(), tmp_path / "run", config, validation=validation)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_ends_training(trained, tmp_path, score):
    with pytest.raises(FloatingPointError, match=r"diverged after 16 pairs .*score"):
        trained([0.5, score, 0.1])
    assert not (tmp_path / "run" / "model.safetensors").exists()
