"""How to train: one dataclass, which is the command line's options and is saved as config.json."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from ..synth.keys import check_seed
from .losses import Loss
from .precision import Precision
from .schedule import Schedule
from .unet import find_preset

Compile: TypeAlias = Literal["auto", "yes", "no", "graphs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to train. Progress is counted in pairs, over all ranks."""

    preset: str = "base"
    """Shape of the network: tiny, base or large."""
    num_pairs: int = 1_000_000
    """Pairs to see."""
    max_minutes: float = math.inf
    """Stop after this time, if sooner; the learning rate comes down in time for it."""
    loss: Loss = "charbonnier"
    """What is brought down; mode lab has its own, the cross-entropy of colours."""
    mask_weight: float = 0.01
    """Weight of the second head, which learns where damage is; 0 leaves it out. Not in mode lab."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Of AdamW."""
    schedule: Schedule = "cosine"
    """How the learning rate falls: cosine, exponential (by decay each epoch), plateau, constant."""
    warmup_pairs: int = 2_000
    """Pairs over which the learning rate rises."""
    decay: float = 0.95
    """What exponential multiplies the rate by after each epoch."""
    plateau_pairs: int = 100_000
    """Plateau halves the rate after so many pairs without improvement on the validation pairs."""
    ema_half_life: int = 10_000
    """Half-life of the averaged weights, which are the ones that are kept."""
    clip_norm: float = 1.0
    """Gradients of a larger norm are scaled down to it."""
    accumulate: int = 1
    """Batches whose gradients are added up for one step."""
    patience: float = math.inf
    """Stop after so many pairs without improvement on the validation pairs."""
    min_delta: float = 0.001
    """What counts as improvement, as a share of the best score so far."""
    keep: Literal["best", "last"] = "best"
    """Which averaged weights are the result: those that scored best on the validation pairs, if
    there are any, or the last."""
    max_bad_steps: int = 20
    """Steps without a finite gradient are left out; with so many in a row training ends."""
    log_every: int = 1_000
    """Pairs between two lines of the log."""
    validate_every: int = 10_000
    """Pairs between two validations."""
    checkpoint_minutes: float = 5.0
    """Time between two checkpoints, from which a training that was broken off goes on."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto is bf16 where the device does it fast."""
    compile: Compile = "auto"
    """Whether to compile the network; auto does so on CUDA; graphs replays CUDA graphs, too, which
    pays for small networks."""
    tensorboard: bool = True
    """Write curves and pictures for TensorBoard."""
    init_seed: int = 0
    """Seed of the first weights."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        find_preset(self.preset)
        for name in (
            "num_pairs", "max_minutes", "lr", "clip_norm", "log_every", "validate_every",
            "accumulate", "patience", "plateau_pairs", "keep_checkpoints", "max_bad_steps",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in (
            "warmup_pairs", "ema_half_life", "mask_weight", "weight_decay", "checkpoint_minutes",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("lr", "clip_norm", "mask_weight", "weight_decay"):
            if math.isinf(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, got {self.decay}")
        if not 0 <= self.min_delta < 1:
            raise ValueError(f"min_delta must be at least 0 and below 1, got {self.min_delta}")
        for name, known in (
            ("precision", get_args(Precision)), ("compile", get_args(Compile)),
            ("loss", get_args(Loss)), ("schedule", get_args(Schedule)), ("keep", ("best", "last")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        check_seed(self.init_seed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; what is infinite is None."""
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }

    @property
    def needs_validation(self) -> bool:
        """Whether something is decided by validation pairs."""
        return self.schedule == "plateau" or not math.isinf(self.patience)
