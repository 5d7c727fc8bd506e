"""Learning rate and averaging, as functions of progress."""

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["cosine", "exponential", "plateau", "constant"]


def learning_rate(
    peak: float,
    *,
    schedule: Schedule = "cosine",
    seen: int,
    warmup: int,
    progress: float,
    epochs: float = 0.0,
    decay: float = 0.95,
    share: float = 1.0,
) -> float:
    """Rise linearly over `warmup` pairs, then follow the schedule.

    cosine: half a cosine down to a hundredth of the peak. exponential: times `decay` after each
    epoch, as in Keras' LearningRateScheduler. plateau: the share that `Plateau` leaves. constant.

    Args:
        peak: Highest rate.
        schedule: Name of the schedule.
        seen: Pairs seen so far.
        warmup: Pairs of the rise; 0 for none.
        progress: Share of the whole training that is done, 0 to 1.
        epochs: Epochs done.
        decay: For exponential.
        share: For plateau.
    """
    rise = min(1.0, (seen + 1) / warmup) if warmup else 1.0
    if schedule == "cosine":
        half = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        fall = 0.01 + 0.99 * half
    elif schedule == "exponential":
        fall = decay ** math.floor(epochs)
    else:
        fall = share
    return peak * rise * fall


def ema_decay(*, seen: int, batch: int, half_life: int) -> float:
    """Return the weight that the average keeps at this step.

    The half-life is `half_life` pairs, but at most a tenth of what has been seen: early weights
    are forgotten soon (as in the code of Karras et al., "Elucidating the design space of
    diffusion-based generative models", NeurIPS 2022, where it is a twentieth).

    Args:
        seen: Pairs seen, those of this step among them.
        batch: Pairs of a step.
        half_life: In pairs; 0 keeps nothing.
    """
    return 0.5 ** (batch / max(min(half_life, seen / 10), 1e-8))
