"""Settings: what is out of range is refused by name, and what is left is plain data."""

import dataclasses
import json
import math

import pytest
from nano import QUICK

from agedphoto.synth import MODES
from agedphoto.train import COLOR_PRESETS, PRESETS, ColorNet, TrainConfig, UNet, make_objective


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "huge"}, "unknown preset 'huge'; there are: tiny"),
        ({"num_pairs": 0}, "num_pairs must be above 0, got 0"),
        ({"max_minutes": -1.0}, "max_minutes must be above 0"),
        ({"max_minutes": math.nan}, "max_minutes must be above 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": math.inf}, "lr must be finite"),
        ({"clip_norm": math.inf}, "clip_norm must be finite"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, got 0"),
        ({"log_every": 0}, "log_every must be above 0"),
        ({"validate_every": 0}, "validate_every must be above 0"),
        ({"accumulate": 0}, "accumulate must be above 0, got 0"),
        ({"patience": 0}, "patience must be above 0, got 0"),
        ({"patience": math.nan}, "patience must be above 0, got nan"),
        ({"plateau_pairs": 0}, "plateau_pairs must be above 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be above 0"),
        ({"max_bad_steps": 0}, "max_bad_steps must be above 0"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes must be at least 0"),
        ({"mask_weight": -0.1}, "mask_weight must be at least 0"),
        ({"mask_weight": math.inf}, "mask_weight must be finite"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"weight_decay": math.inf}, "weight_decay must be finite"),
        ({"warmup_pairs": -1}, "warmup_pairs must be at least 0"),
        ({"ema_half_life": -1}, "ema_half_life must be at least 0"),
        ({"decay": 0.0}, "decay must be above 0 and at most 1, got 0"),
        ({"decay": 1.5}, "decay must be above 0 and at most 1, got 1.5"),
        ({"min_delta": 1.0}, "min_delta must be at least 0 and below 1, got 1"),
        ({"min_delta": -0.1}, "min_delta must be at least 0 and below 1"),
        ({"loss": "huber"}, "loss must be one of charbonnier, l1, mse, got 'huber'"),
        ({"schedule": "step"}, "schedule must be one of cosine, exponential, plateau, constant"),
        ({"keep": "first"}, "keep must be one of best, last, got 'first'"),
        ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, got 'fp16'"),
        ({"compile": "maybe"}, "compile must be one of auto, yes, no, graphs, got 'maybe'"),
        ({"init_seed": -1}, "seed must be a whole number"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**wrong)


def test_settings_are_saved_as_json_and_what_has_no_limit_is_none():
    kept = json.loads(json.dumps(TrainConfig(lr=0.5).to_dict(), allow_nan=False))
    assert kept.keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert kept["lr"] == 0.5
    assert kept["max_minutes"] is kept["patience"] is None
    assert TrainConfig(**{name: v for name, v in kept.items() if v is not None}).lr == 0.5


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False), ({"schedule": "plateau"}, True), ({"patience": 100.0}, True),
        ({"schedule": "exponential"}, False), ({"keep": "last"}, False),
    ],
)  # fmt: skip
def test_validation_is_needed_where_something_is_decided_by_it(settings, needed):
    assert TrainConfig(**settings).needs_validation is needed


def test_the_settings_of_these_tests_are_right(nano):
    assert TrainConfig(**QUICK).preset == "nano"


def test_both_kinds_of_network_have_the_same_presets():
    assert PRESETS.keys() == COLOR_PRESETS.keys() == {"tiny", "base", "large"}


@pytest.mark.parametrize("preset", ["tiny", "base", "large"])
@pytest.mark.parametrize("mode", MODES)
def test_every_preset_makes_a_network_for_every_mode(preset, mode):
    net = make_objective(mode=mode, preset=preset, loss="charbonnier", mask_weight=0.01).make_net()
    assert isinstance(net, ColorNet if mode == "lab" else UNet)
    # DESIGN.md: 26 M, and 28 M for colours.
    millions = {"large": 28 if mode == "lab" else 26}.get(preset)
    if millions:
        assert net.num_parameters / 1e6 == pytest.approx(millions, rel=0.06)
