"""Which textures are laid on photographs: a bank that stays, or one made afresh every epoch."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..textures import TextureBank
from .endless import endless_textures
from .keys import check_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class EndlessTextures:
    """A bank made afresh on the device every epoch, a function of seed and epoch alone.

    No texture comes twice, so a network cannot learn the marks by heart.
    """

    seed: int = 0
    """0 to 2**64 - 1."""
    count: int = 64
    """Textures of an epoch."""
    size_px: int = 1024
    """Side of each."""

    def __post_init__(self) -> None:
        """Check the seed; the others are checked as textures are made."""
        check_seed(self.seed)


class Banks:
    """Hands out the bank of the epoch, on the device where it is wanted."""

    def __init__(self, textures: TextureBank | EndlessTextures | None) -> None:
        """Settle where they come from; None is the pack that is shipped, read when first wanted."""
        self._endless = textures if isinstance(textures, EndlessTextures) else None
        self._bank = None if isinstance(textures, EndlessTextures) else textures
        self._epoch = 0

    def turn_to(self, epoch: int) -> None:
        """Go to an epoch; what is endless is then made afresh."""
        if self._endless is not None and epoch != self._epoch:
            self._bank = None
        self._epoch = epoch

    def on(self, device: torch.device) -> TextureBank:
        """Return the bank on `device`; it stays there until wanted on another."""
        if self._bank is None and self._endless is not None:
            self._bank = endless_textures(
                self._endless.seed,
                self._epoch,
                count=self._endless.count,
                size_px=self._endless.size_px,
                device=device,
            )
        elif self._bank is None:
            self._bank = TextureBank.load()
        if self._bank.textures.device != device:
            self._bank = self._bank.to(device)
        return self._bank

    @property
    def fingerprint(self) -> str:
        """What tells these textures from others; the same wherever they lie."""
        if self._endless is not None:
            return repr(self._endless)
        if self._bank is None:
            self._bank = TextureBank.load()
        return self._bank.fingerprint


def find_textures(name: str) -> TextureBank | EndlessTextures | None:
    """Return textures by name: `pack` those that are shipped, `endless`, or a folder.

    Raises:
        ValueError: If a folder holds neither a pack nor scans; see `TextureBank`.
    """
    if name == "pack":
        return None
    if name == "endless":
        return EndlessTextures()
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(
            f"unknown textures {name!r}; there are: pack, endless, or name a folder of scans of "
            "dust, scratches and stains"
        )
    is_pack = (folder / "textures.json").is_file()
    return TextureBank.load(folder) if is_pack else TextureBank.from_scans(folder)
