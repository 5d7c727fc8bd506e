"""Learning rate and averaging, as functions of progress."""

import math


def learning_rate(peak: float, *, seen: int, warmup: int, progress: float) -> float:
    """Rise linearly over `warmup` pairs, then follow half a cosine down to a hundredth of the peak.

    Args:
        peak: Highest rate.
        seen: Pairs seen so far.
        warmup: Pairs of the rise; 0 for none.
        progress: Share of the whole training that is done, 0 to 1.
    """
    rise = min(1.0, (seen + 1) / warmup) if warmup else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return peak * rise * (0.01 + 0.99 * fall)


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
