"""Ranges that parameters are drawn from: a pair (smallest, largest), both within stated limits."""

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

Range: TypeAlias = tuple[float, float]


def check_range(name: str, value: Range, *, low: float, high: float) -> None:
    """Raise ValueError unless value is a pair with low <= value[0] <= value[1] <= high."""
    paired = isinstance(value, tuple) and len(value) == 2
    if not (paired and low <= value[0] <= value[1] <= high):
        raise ValueError(
            f"{name} must be a pair (smallest, largest) within {low:g} to {high:g}, got {value!r}"
        )


def spread(u: Float[Tensor, "..."], value: Range) -> Float[Tensor, "..."]:
    """Map u in [0, 1) onto the range."""
    return value[0] + u * (value[1] - value[0])
