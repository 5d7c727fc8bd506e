"""Training: the loss falls, the same seed gives the same weights, and a failure leaves no model."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from nano import QUICK, WHOLE, flat, quick

from agedphoto.datasets import AgedPairs, Batch
from agedphoto.synth import MODES
from agedphoto.train import (
    LabNet,
    TrainConfig,
    UNet,
    load_model,
    loop,
    net_config,
    train,
    validate,
)
from agedphoto.train.schedule import ema_decay, learning_rate
from agedphoto.training import fixed_pairs

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture
def make_pairs(make_shards, textures):
    """Return a function that opens small pairs; photographs are the same every time."""
    shards = make_shards([(40, 48), (56, 44), (48, 48)])
    opened = []

    def make(**options) -> AgedPairs:
        settings = {
            "recipe": "seed", "crop_px": 32, "batch_size": 4, "crops_per_photo": 8,
            "device": "cpu", "textures": textures, "rank": 0, "world_size": 1,
        } | options  # fmt: skip
        opened.append(AgedPairs(shards, **settings))
        return opened[-1]

    yield make
    for pairs in opened:
        pairs.close()


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls(make_pairs, tmp_path):
    config = TrainConfig(**{**QUICK, "log_every": 40}, num_pairs=160, lr=1e-2)
    done = train(make_pairs(), tmp_path / "run", config)
    losses = [record["loss"] for record in done.log]
    assert len(losses) == 4
    assert losses[-1] < 0.85 * losses[0]


def test_it_beats_doing_nothing_on_pairs_it_never_saw(make_pairs, tmp_path):
    held_out = list(make_pairs(seed=7))
    config = TrainConfig(**QUICK, num_pairs=160, lr=1e-2)
    done = train(make_pairs(), tmp_path / "run", config, validation=held_out)
    untrained = UNet(net_config("nano", "grayscale"))
    nothing = validate(untrained, held_out, torch.device("cpu"))
    assert done.log[-1]["psnr_db"] > nothing + 1


def test_the_same_seed_gives_the_same_weights_bit_for_bit(make_pairs, tmp_path):
    config = TrainConfig(**QUICK, num_pairs=24)
    torch.manual_seed(1)
    first = train(make_pairs(), tmp_path / "first", config).net
    torch.manual_seed(2)
    second = train(make_pairs(), tmp_path / "second", config).net
    assert torch.equal(flat(first), flat(second))
    other = train(make_pairs(), tmp_path / "third", TrainConfig(**QUICK, num_pairs=24, init_seed=1))
    assert not torch.equal(flat(first), flat(other.net))


def test_training_leaves_the_global_generator_alone(make_pairs, tmp_path):
    before = torch.get_rng_state()
    train(make_pairs(), tmp_path / "run", TrainConfig(**QUICK, num_pairs=4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_is_saved_under_its_name(make_pairs, tmp_path, mode):
    pairs = make_pairs(mode=mode, **WHOLE if mode == "lab" else {})
    done = train(pairs, tmp_path / "run", TrainConfig(**QUICK, num_pairs=4))
    net, card = load_model(tmp_path / "run" / "model.safetensors")
    assert card.mode == mode
    assert isinstance(net, LabNet if mode == "lab" else UNet)
    assert torch.equal(flat(net), flat(done.net))


@pytest.mark.parametrize("precision", ["auto", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_precision_of_pairs_and_network_trains(make_pairs, tmp_path, precision, dtype):
    config = TrainConfig(**{**QUICK, "precision": precision}, num_pairs=8)
    pairs = make_pairs(dtype=dtype)
    done = train(pairs, tmp_path / "run", config, validation=[next(iter(pairs))])
    assert math.isfinite(done.log[-1]["psnr_db"])
    assert flat(done.net).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_network_trains_alike(make_pairs, tmp_path):
    plain, compiled = (
        train(make_pairs(), tmp_path / way, TrainConfig(**QUICK, num_pairs=24, compile=way))
        for way in ("no", "yes")
    )
    torch.testing.assert_close(flat(compiled.net), flat(plain.net), rtol=0, atol=1e-4)


def test_the_average_follows_its_formula(make_pairs, tmp_path, monkeypatch):
    """With a half-life of 0 the average is the network, so runs of 1, 2, 3 steps show each step."""
    monkeypatch.setattr(loop, "learning_rate", lambda peak, **_: peak)

    def after(steps: int, half_life: int) -> torch.Tensor:
        run = tmp_path / f"{steps}-{half_life}"
        config = TrainConfig(**QUICK, num_pairs=4 * steps, ema_half_life=half_life)
        return flat(train(make_pairs(), run, config).net).double()

    expected = flat(_first_net()).double()
    for step in (1, 2, 3):
        decay = ema_decay(seen=4 * step, batch=4, half_life=10**9)
        expected = decay * expected + (1 - decay) * after(step, 0)
    torch.testing.assert_close(after(3, 10**9), expected, rtol=0, atol=1e-6)


def _first_net() -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet(net_config("nano", "grayscale"))


def test_it_stops_when_all_pairs_are_seen(make_pairs, tmp_path):
    done = train(make_pairs(), tmp_path / "run", TrainConfig(**QUICK, num_pairs=9))
    assert (done.seen_pairs, done.steps, done.stop) == (12, 3, "all pairs seen")


def test_it_goes_on_over_epochs(make_pairs, tmp_path):
    pairs = make_pairs()
    done = train(pairs, tmp_path / "run", TrainConfig(**QUICK, num_pairs=7 * 4))
    assert len(pairs) == 6
    assert done.steps == 7
    assert pairs.epoch == 1


def test_it_stops_when_the_time_is_up_with_the_rate_down(make_pairs, tmp_path):
    config = TrainConfig(**QUICK, num_pairs=10**9, max_minutes=1 / 60)
    done = train(make_pairs(), tmp_path / "run", config)
    assert done.stop == "time is up"
    assert 1 <= done.seconds < 10
    assert done.log[-1]["lr"] == pytest.approx(config.lr / 100)
    assert done.log[-1]["seen"] == done.seen_pairs < 10**6


def test_the_log_says_what_happened(make_pairs, tmp_path):
    pairs, run = make_pairs(), tmp_path / "run"
    config = TrainConfig(**QUICK, num_pairs=40, validate_every=20)
    done = train(pairs, run, config, validation=[next(iter(make_pairs()))])
    log = records(run)
    assert log == done.log
    assert [record["seen"] for record in log] == [8, 16, 20, 24, 32, 40]
    assert [record["psnr_db"] is None for record in log] == [True, True, False, True, True, False]
    assert log[-1].keys() == {
        "seen", "seconds", "loss", "psnr_db", "lr", "pairs_per_s", "wait_share",
        "bad_photos", "skipped_steps", "mse", "ssim", "identity_psnr_db",
    }  # fmt: skip
    for record in log:
        before = record["seen"] - 4
        assert record["lr"] == learning_rate(
            config.lr, seen=before, warmup=0, progress=before / config.num_pairs
        )
        assert record["loss"] > 0
        assert 0 <= record["wait_share"] <= 1
    seconds = [record["seconds"] for record in log]
    assert seconds == sorted(seconds)


def test_the_logged_loss_is_the_mean_since_the_line_before(make_pairs, tmp_path):
    each = train(
        make_pairs(), tmp_path / "each", TrainConfig(**{**QUICK, "log_every": 1}, num_pairs=24)
    )
    both = train(
        make_pairs(), tmp_path / "both", TrainConfig(**{**QUICK, "log_every": 8}, num_pairs=24)
    )
    losses = torch.tensor([record["loss"] for record in each.log]).reshape(3, 2).mean(1)
    torch.testing.assert_close(losses, torch.tensor([record["loss"] for record in both.log]))


def test_the_first_loss_is_that_of_doing_nothing(make_pairs, tmp_path):
    batch = next(iter(make_pairs()))
    done = train(make_pairs(), tmp_path / "run", TrainConfig(**QUICK, num_pairs=1))
    expected = ((batch.aged - batch.clean) ** 2 + 1e-6).sqrt().mean().item()
    assert done.log[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_pairs_that_only_fill_up_count_as_nothing(make_pairs, tmp_path):
    """18 samples in batches of 4: the fifth has two pairs and two repetitions.

    The mean is over all four places, so that ranks whose shares are filled up differently add up.
    """
    pairs = make_pairs(crops_per_photo=6, last_batch="pad")
    batches = list(make_pairs(crops_per_photo=6, last_batch="pad"))
    assert int(batches[-1].valid.sum()) == 2
    config = TrainConfig(**{**QUICK, "log_every": 1}, num_pairs=20, lr=1e-30)
    done = train(pairs, tmp_path / "run", config)
    last = batches[-1]
    difference = (last.aged - last.clean)[last.valid]
    expected = (difference**2 + 1e-6).sqrt().mean().item() * 2 / 4
    assert done.log[-1]["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_configuration_is_kept_beside_the_model_and_in_it(make_pairs, tmp_path):
    run = tmp_path / "run"
    config = TrainConfig(**QUICK, num_pairs=4)
    train(make_pairs(seed=5), run, config)
    kept = json.loads((run / "config.json").read_text())
    assert kept["train"]["num_pairs"] == 4
    assert kept["train"]["max_minutes"] is None
    assert kept["net"]["widths"] == [8, 12]
    assert kept["pairs"]["seed"] == 5
    assert kept["pairs"]["mode"] == "grayscale"
    assert kept["implied"]["pairs_an_epoch"] == 24
    assert kept["implied"]["ranks"] == 1
    _, card = load_model(run / "model.safetensors")
    outcome = card.training.pop("outcome")
    assert card.training == kept
    assert outcome["seen_pairs"] == 4
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json", "log.jsonl", "model.safetensors",
    ]  # fmt: skip


def test_a_folder_with_a_model_is_refused_and_stays_as_it_is(make_pairs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match="holds a model already; choose another folder"):
        train(make_pairs(), run, TrainConfig(**QUICK, num_pairs=4))
    assert [(path.name, path.read_bytes()) for path in run.iterdir()] == [
        ("model.safetensors", b"precious")
    ]


def test_a_folder_that_cannot_be_is_refused(make_pairs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write into"):
        train(make_pairs(), tmp_path / "file" / "run", TrainConfig(**QUICK, num_pairs=4))


@pytest.mark.parametrize("spoil", ["pairs", "weights"])
def test_training_that_diverges_is_an_error_and_saves_nothing(make_pairs, tmp_path, spoil):
    pairs, config = make_pairs(), TrainConfig(**QUICK, num_pairs=8)
    if spoil == "pairs":
        whole = pairs._maker.make

        def poisoned(*args):
            batch = whole(*args)
            batch.aged[:] = math.nan
            return batch

        pairs._maker.make = poisoned
    else:
        # The loss of the one and only step is finite; what the step makes of the weights is not.
        config = TrainConfig(**QUICK, num_pairs=1, lr=1e300)
    with pytest.raises(FloatingPointError, match=r"diverged after \d+ pairs .* lower lr"):
        train(pairs, tmp_path / "run", config)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.parametrize("in_a_row", [2, 3])
def test_steps_that_are_not_finite_are_left_out_until_there_are_too_many(
    make_pairs, tmp_path, in_a_row
):
    pairs = make_pairs()
    whole, count = pairs._maker.make, 0

    def poisoned(*args):
        nonlocal count
        count += 1
        batch = whole(*args)
        # The first one too, which shows that one alone is no reason to stop.
        if count == 1 or 3 <= count < 3 + in_a_row:
            batch.aged[:] = math.nan
        return batch

    pairs._maker.make = poisoned
    config = quick(log_every=4, num_pairs=40, max_bad_steps=3)
    run = tmp_path / "run"
    if in_a_row == 3:
        with pytest.raises(FloatingPointError, match=r"after 20 pairs \(3 steps in a row without"):
            train(pairs, run, config)
        assert not (run / "model.safetensors").exists()
        return
    done = train(pairs, run, config)
    assert [record["skipped_steps"] for record in done.log] == [1, 1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert [record["loss"] is None for record in done.log[:5]] == [True, False, True, True, False]
    assert flat(done.net).isfinite().all()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError, RuntimeError])
def test_a_training_that_is_broken_off_leaves_no_model(make_pairs, tmp_path, fault):
    pairs = make_pairs()
    whole, count = pairs._maker.make, 0

    def breaking(*args):
        nonlocal count
        count += 1
        if count == 5:
            raise fault("in the middle")
        return whole(*args)

    pairs._maker.make = breaking
    with pytest.raises(fault, match="in the middle"):
        train(pairs, tmp_path / "run", TrainConfig(**QUICK, num_pairs=400))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "log.jsonl",
    ]
    assert [record["seen"] for record in records(tmp_path / "run")] == [8, 16]


def test_a_full_disk_leaves_no_half_written_model(make_pairs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    pairs = make_pairs()
    whole = pairs._maker.make

    def last_batch(*args):
        monkeypatch.setattr("os.fsync", full)
        return whole(*args)

    pairs._maker.make = last_batch
    with pytest.raises(OSError, match="No space left"):
        train(pairs, tmp_path / "run", TrainConfig(**QUICK, num_pairs=4))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "log.jsonl",
    ]


def test_a_time_limit_gives_the_bar_an_end_in_sight(make_pairs, tmp_path, monkeypatch):
    bars = []

    class Bar(loop.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | {"file": (tmp_path / "bar").open("w")})
            self.totals = []
            bars.append(self)

        def update(self, n=1):
            self.totals.append((self.n + n, self.total))
            return super().update(n)

        def close(self):
            super().close()
            if not self.fp.closed:
                self.fp.close()

    monkeypatch.setattr(loop, "tqdm", Bar)
    config = TrainConfig(**QUICK, num_pairs=10**9, max_minutes=1 / 60)
    done = train(make_pairs(), tmp_path / "run", config, progress=True)
    (bar,) = bars
    assert bar.totals[-1] == (done.seen_pairs, done.seen_pairs)
    assert all(shown <= total for shown, total in bar.totals)
    half_way = bar.totals[len(bar.totals) // 2][1]
    assert done.seen_pairs / 3 < half_way < done.seen_pairs * 3


def test_without_a_time_limit_the_bar_ends_at_the_pairs(make_pairs, tmp_path, capsys):
    train(make_pairs(), tmp_path / "run", TrainConfig(**QUICK, num_pairs=16), progress=True)
    assert "16.0/16.0" in capsys.readouterr().err


def test_without_progress_nothing_is_printed(make_pairs, tmp_path, capfd):
    train(make_pairs(), tmp_path / "run", TrainConfig(**QUICK, num_pairs=16))
    assert capfd.readouterr() == ("", "")


def test_fixed_pairs_are_the_same_every_time(make_shards, textures):
    shards = make_shards([(40, 48), (56, 44), (48, 48)], split="valid")

    def fixed() -> list[Batch]:
        return fixed_pairs(
            shards, textures=textures, num_pairs=10, batch_size=4, crop_px=32, seed=3,
            recipe="seed", device="cpu",
        )  # fmt: skip

    first, second = fixed(), fixed()
    assert sum(int(batch.valid.sum()) for batch in first) >= 10
    assert len({int(key) for batch in first for key in batch.keys[batch.valid]}) >= 10
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.aged, other.aged)
        assert torch.equal(one.clean, other.clean)


def test_validation_is_the_psnr_of_all_valid_pixels(make_pairs):
    batches = list(make_pairs(crops_per_photo=6, last_batch="pad"))
    aged = torch.cat([batch.aged[batch.valid] for batch in batches]).clamp(0, 1)
    clean = torch.cat([batch.clean[batch.valid] for batch in batches])
    expected = -10 * torch.log10(((aged - clean) ** 2).mean()).item()
    net = UNet(net_config("nano", "grayscale"))
    assert validate(net, batches, torch.device("cpu")) == pytest.approx(expected, abs=1e-4)
