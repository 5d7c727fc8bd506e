"""Keys: one 64-bit number for each aged crop, a pure function of (seed, epoch, sample, crop).

Never of rank, worker, batch position or time: the same crop ages alike on one GPU or eight, and
after any resume.
"""

import torch

from .philox import WORD, philox4x32, word
from .types import Indices, Keys


def sample_keys(seed: int, epoch: int, samples: Indices, crops: Indices) -> Keys:
    """Make the keys of some crops.

    For one seed, different (epoch, sample, crop) give different 128-bit Philox blocks, of which a
    key is the first half: among n keys, about n**2 / 2**65 pairs are alike.

    Args:
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**32 - 1.
        samples: Number of the photo in its set, from 0; numbers below 0 are free for other uses.
        crops: Number of the crop in its photo, 0 to 2**32 - 1.

    Raises:
        ValueError: If seed or epoch is out of range.
    """
    check_seed(seed)
    check_epoch(epoch)
    # In narrower integers the words would wrap.
    samples, crops = samples.to(torch.int64), crops.to(torch.int64)
    counter = (
        word(epoch, like=samples),
        samples & WORD,
        (samples >> 32) & WORD,
        crops & WORD,
    )
    key = (word(seed & WORD, like=samples), word(seed >> 32, like=samples))
    low, high, _, _ = philox4x32(counter, key)
    # The sign bit is bit 63: shifting a word of 2**31 or more makes a negative int64, as meant.
    return low | (high << 32)


def check_seed(seed: int) -> int:
    """Return `seed`, or raise ValueError if it is not a whole number in [0, 2**64)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
    return seed


def check_epoch(epoch: int) -> int:
    """Return `epoch`, or raise ValueError if it is not a whole number in [0, 2**32)."""
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch < 2**32:
        raise ValueError(f"epoch must be a whole number from 0 to 2**32 - 1, got {epoch!r}")
    return epoch
