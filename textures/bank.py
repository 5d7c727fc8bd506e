"""A bank of textures: square maps of what lies on a print, ready to be sampled at any offset.

Each tiles with itself, so a crop may start anywhere and wrap. One of 1024 px takes 10 to 140 ms of
a CPU core to draw, some 5 ms to load from the pack that is shipped, and 1 MiB to keep.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from .families import DARKENING, ROTA, draw, plan
from .pack import read_pack
from .scans import Ground, read_scans

Textures = UInt8[Tensor, "N S S"]


@dataclass(frozen=True, eq=False)
class TextureBank:
    """N square opacity maps with their names; treated as constant once made.

    Raises:
        ValueError: if the textures are not uint8 (N, S, S) with N at least 1, or do not have one
            name each.
    """

    textures: Textures
    """0 is clean, 255 hides everything; each repeats seamlessly beyond its sides."""

    names: tuple[str, ...]
    """Family and number, such as "mixed-0003"; no two alike."""

    darkening: frozenset[str] = frozenset()
    """Families on light ground, which darken the picture; all others are light on dark ground."""

    _on_device: dict[object, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.textures.shape), self.textures.dtype
        if dtype != torch.uint8 or len(shape) != 3 or shape[0] < 1 or shape[1] != shape[2]:
            raise ValueError(
                f"textures must be uint8 of shape (N, S, S) with N at least 1, got {dtype} of "
                f"shape {shape}; stack square maps and scale opacity 0..1 to 0..255"
            )
        if len(set(self.names)) != len(self.names) or len(self.names) != shape[0]:
            raise ValueError(
                f"names must be {shape[0]} different strings, one a texture, got "
                f"{len(self.names)} of which {len(set(self.names))} differ; number them"
            )
        # Kernels read maps row after row.
        object.__setattr__(self, "textures", self.textures.contiguous())
        # Now rather than at the first batch: a compiled step would be compiled again for it.
        _ = self.light_ground
        for chosen in ((), *((family,) for family in set(self.families))):
            if chosen or set(self.families) - self.darkening:
                self.choose(chosen)

    @classmethod
    def synthesize(
        cls,
        count: int = 64,
        *,
        size_px: int = 1024,
        seed: int = 0,
        families: Sequence[str] = ROTA,
        first: int = 0,
        progress: bool = False,
    ) -> "TextureBank":
        """Draw textures; each depends only on (seed, its number, size_px, its family).

        So a bank of 4 is the start of a bank of 64, and banks whose numbers do not overlap share no
        texture: synthesize(64) to train with, synthesize(16, first=1_000_000) to test with.

        Args:
            count: how many, at least 1.
            size_px: side of each, 64 to 8192. A smaller sheet carries marks of the same size at
                the same density, so it carries fewer; it is not a reduced picture of a larger one.
            seed: 0 or more.
            families: texture number i is of family i modulo their number; a family may be in it
                more than once. The default has the nine families in sixteen places.
            first: number of the first texture, 0 or more.
            progress: show a bar.

        Returns:
            A bank on the CPU. The same arguments give the same bytes under one version of NumPy;
            another version or processor may round a pixel differently.

        Raises:
            ValueError: if an argument is out of range or a family is unknown.
        """
        numbered = plan(count=count, size_px=size_px, seed=seed, first=first, families=families)
        sheets = np.empty((count, size_px, size_px), np.uint8)
        for i, (number, family) in enumerate(tqdm(numbered, "textures", disable=not progress)):
            sheets[i] = draw(seed=seed, index=number, size_px=size_px, family=family)
        names = tuple(f"{family}-{number:04d}" for number, family in numbered)
        return cls(torch.from_numpy(sheets), names, DARKENING)

    @classmethod
    def load(cls, folder: Path | str | None = None) -> "TextureBank":
        """Read a pack that `agedphoto textures` wrote; without a folder, the one that is shipped.

        The shipped pack is synthesize(64), bit for bit.

        Raises:
            ValueError: if the folder holds no pack, or files of it are missing or damaged.
        """
        opacities, entries = read_pack(Path(__file__).parent if folder is None else folder)
        light = {entry.family for entry in entries if entry.ground == "light"}
        # One and the same pack, whether all of its families are in it or not.
        known = {entry.family for entry in entries if entry.ground == "dark"}
        darkening = frozenset(light | (DARKENING - known))
        return cls(torch.from_numpy(opacities), tuple(e.name for e in entries), darkening)

    @classmethod
    def from_scans(
        cls, folder: Path | str, *, size_px: int = 1024, ground: Ground = "auto"
    ) -> "TextureBank":
        """Make textures of your own scans of dust, scratches, stains or paper.

        Any picture that Pillow reads, of 8 or 16 bits, in colour or not, at least 64 px on each
        side: its black level and the slow variation of its ground are taken off, its middle square
        is reduced to `size_px` (smaller ones are mirrored, none is enlarged), and its edges are
        blended to tile. Transparent pictures count by their alpha.

        Args:
            folder: of the scans; folders in it and files that are no pictures are left alone.
            size_px: side of each texture, at least 64.
            ground: "dark" if all show marks lighter than their ground, "light" if darker, "auto"
                to look at each.

        Returns:
            A bank of the families "scans" (they whiten) and "scans-light" (they darken), numbered
            in the order of the files' names.

        Raises:
            ValueError: if there is no scan, or some cannot be used: all of these are named.
        """
        plan(count=1, size_px=size_px, seed=0, first=0, families=ROTA)
        opacities, light = read_scans(folder, size_px=size_px, ground=ground)
        kinds = ["scans-light" if is_light else "scans" for is_light in light]
        names = tuple(f"{kind}-{number:04d}" for number, kind in enumerate(kinds))
        return cls(torch.from_numpy(opacities), names, frozenset({"scans-light"}))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size_px(self) -> int:
        """Side of every texture."""
        return self.textures.shape[-1]

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over names and bytes; the same wherever the textures lie."""
        digest = hashlib.sha256(
            repr((self.names, tuple(self.textures.shape), sorted(self.darkening))).encode()
        )
        digest.update(self.textures.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the textures, one for each."""
        return tuple(name.rpartition("-")[0] for name in self.names)

    @property
    def light_ground(self) -> Bool[Tensor, " N"]:
        """Which textures darken the picture, on the device of the textures."""
        return self._kept("ground", lambda: [family in self.darkening for family in self.families])

    def choose(self, families: tuple[str, ...] = ()) -> Int64[Tensor, " M"]:
        """Return the numbers of the textures of some families, on the device of the textures.

        Args:
            families: Names; none of them for all textures on dark ground.

        Raises:
            ValueError: If the bank has no texture of a family.
        """
        missing = [family for family in families if family not in self.families]
        wanted = families or tuple(sorted(set(self.families) - self.darkening))
        if missing or not wanted:
            raise ValueError(
                f"there are no textures {', '.join(map(repr, missing)) or 'on dark ground'} "
                f"in this bank of {', '.join(sorted(set(self.families)))}; use these, or a bank "
                "that has them"
            )
        return self._kept(
            families, lambda: [i for i, family in enumerate(self.families) if family in wanted]
        )

    def _kept(self, name: object, make: Callable[[], list[Any]]) -> Tensor:
        # Made once: a copy to the GPU would wait for it at every batch.
        if name not in self._on_device:
            self._on_device[name] = torch.tensor(make()).to(self.textures.device)
        return self._on_device[name]

    def to(self, device: torch.device | str) -> "TextureBank":
        """Return the bank with its textures on a device."""
        return TextureBank(self.textures.to(device), self.names, self.darkening)

    def subset(self, indices: Sequence[int]) -> "TextureBank":
        """Return the bank of the chosen textures, in the order given.

        Raises:
            ValueError: if an index is outside [0, len), appears twice, or there is none.
        """
        chosen = [int(i) for i in indices]
        outside = [i for i in chosen if not 0 <= i < len(self)]
        if outside or not chosen or len(set(chosen)) != len(chosen):
            raise ValueError(
                f"indices must be different numbers from 0 to {len(self) - 1}, at least one, got "
                f"{chosen}; make a larger bank to have more textures"
            )
        names = tuple(self.names[i] for i in chosen)
        return TextureBank(self.textures[torch.tensor(chosen)], names, self.darkening)
