"""One batch of aged / clean pairs."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One batch of pairs, on the device."""

    aged: Float[Tensor, "B C H W"]
    """What the network sees, see `synth.modes` for the channels."""
    clean: Float[Tensor, "B D H W"]
    """What it is to answer."""
    mask: Bool[Tensor, "B 1 H W"]
    """True where damage hides the picture."""
    keys: Int[Tensor, " B"]
    """The 64-bit key that each pair was made from."""
    valid: Bool[Tensor, " B"]
    """False for pairs that only fill up the last batch, or whose photo could not be read."""
    photos: tuple[int, ...]
    """Number of the photo in its split; -1 where there is none."""
    inside: Bool[Tensor, "B 1 H W"] | None = None
    """Of whole photos: where the picture is, for it rarely fills its square. None for crops."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on another device."""
        return replace(
            self,
            **{
                name: tensor.to(device, non_blocking=non_blocking)
                for name, tensor in self.tensors().items()
            },
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
