"""How far a restored picture is from the clean one: what training brings down."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

Loss: TypeAlias = Literal["charbonnier", "l1", "mse"]

_Pictures: TypeAlias = Float[Tensor, "B C H W"]
_Each: TypeAlias = Float[Tensor, " B"]


def charbonnier(restored: _Pictures, clean: _Pictures, *, epsilon: float = 1e-3) -> _Each:
    """Return the mean of sqrt(d^2 + epsilon^2) for each picture (Charbonnier et al., ICIP 1994)."""
    return (restored.float() - clean).square().add(epsilon**2).sqrt().mean(dim=(1, 2, 3))


def l1(restored: _Pictures, clean: _Pictures) -> _Each:
    """Return the mean absolute difference for each picture."""
    return (restored.float() - clean).abs().mean(dim=(1, 2, 3))


def mse(restored: _Pictures, clean: _Pictures) -> _Each:
    """Return the mean squared difference for each picture."""
    return (restored.float() - clean).square().mean(dim=(1, 2, 3))


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "mse": mse,
}
