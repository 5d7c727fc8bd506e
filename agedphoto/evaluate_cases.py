"""What a network is given, and what it should have answered: noise, an aged photo, a clean one.

All is 8 bits deep but for the noise, which the published protocol adds without clipping. Networks
that see one channel are judged by luma (Rec. 601), of mode `color` by red, green and blue.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from agedphoto.age_tiles import age_tiled
from agedphoto.synth import Ageing, Mode, sample_keys
from agedphoto.synth.types import Keys
from agedphoto.training import HELD_OUT_EPOCH

Kind = Literal["awgn", "recipe", "identity"]
Levels = UInt8[np.ndarray, "H W *C"]
"""(H, W) luma, or (H, W, 3) sRGB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """One picture for the network."""

    aged: Float[Tensor, "C H W"]
    """What it sees, on the CPU; noise may leave [0, 1]."""
    aged_levels: Levels
    """The same, clipped and rounded: what doing nothing would answer."""
    clean: Levels
    """What it should answer."""
    mask: Bool[np.ndarray, "H W"] | None = None
    """True where damage hides the picture, if that is known."""


class Case(Protocol):
    """A way to make pictures for the network."""

    @property
    def kind(self) -> Kind:
        """What it is called in JSON."""
        ...

    @property
    def title(self) -> str:
        """What it is called on screen."""
        ...

    @property
    def protocol(self) -> str:
        """How it is measured, in words."""
        ...

    def make(self, name: str, photo: UInt8[np.ndarray, "H W 3"]) -> Given:
        """Make a picture of a photograph; the same arguments, the same picture."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Gaussian noise, as denoisers publish it (KAIR, main_test_ffdnet.py; Restormer's tests)."""

    sigma: float
    """Levels of 255."""
    mode: Mode

    kind: Kind = "awgn"

    @property
    def title(self) -> str:
        """See `Case.title`."""
        return f"awgn, sigma {self.sigma:g} of 255"

    @property
    def protocol(self) -> str:
        """See `Case.protocol`."""
        return (
            f"{_what(self.mode)}, 8 bits, divided by 255; Gaussian noise of sigma "
            f"{self.sigma:g}/255, drawn with numpy.random.seed(0) for each photo, neither clipped "
            "nor rounded; the answer clipped and rounded to 8 bits; PSNR over all pixels, no "
            "border left out. The aged picture is scored after the same clipping and rounding."
        )

    def make(self, name: str, photo: UInt8[np.ndarray, "H W 3"]) -> Given:
        """See `Case.make`; the noise is the same for all photos of one size."""
        clean = in_mode(photo, self.mode)
        # The stream of numpy.random.seed(0), but not the process's generator.
        noise = np.random.RandomState(0).normal(0, self.sigma / 255, clean.shape)
        noisy = (clean.astype(np.float32) / np.float32(255) + noise).astype(np.float32)
        return Given(aged=_planes(noisy), aged_levels=to_levels(noisy), clean=clean)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """Nothing: a clean photo is to come back as it was."""

    mode: Mode

    kind: Kind = "identity"
    title: str = "identity: clean in, clean out"

    @property
    def protocol(self) -> str:
        """See `Case.protocol`."""
        return (
            f"{_what(self.mode)} of the clean photo goes in; the answer, clipped and rounded to 8 "
            "bits, is compared with it over all pixels."
        )

    def make(self, name: str, photo: UInt8[np.ndarray, "H W 3"]) -> Given:
        """See `Case.make`."""
        clean = in_mode(photo, self.mode)
        return Given(aged=_planes(_unit(clean)), aged_levels=clean, clean=clean)


@dataclass(frozen=True, kw_only=True, slots=True)
class Aged:
    """A recipe's ageing, with keys that no training draws."""

    ageing: Ageing
    """Of mode `color` or `grayscale`."""
    mode: Mode
    seed: int
    device: torch.device
    textures: str
    """What the textures are called."""

    kind: Kind = "recipe"

    @property
    def title(self) -> str:
        """See `Case.title`."""
        return f"recipe {self.ageing.recipe.name}"

    @property
    def protocol(self) -> str:
        """See `Case.protocol`."""
        worn = f", textures {self.textures}" if self.ageing.recipe.uses_textures else ""
        return (
            f"The photo aged whole by recipe {self.ageing.recipe.name}{worn}, with a key of the "
            f"seed and its name that no training draws, then {_what(self.mode)}, rounded to 8 "
            "bits; the answer clipped and rounded to 8 bits; scores over all pixels, inside and "
            "outside of where damage hides the picture."
        )

    def make(self, name: str, photo: UInt8[np.ndarray, "H W 3"]) -> Given:
        """See `Case.make`."""
        H, W, _ = photo.shape
        keys = held_out_key(self.seed, name).to(self.device)
        done = age_tiled(self.ageing, photo, self.ageing.sample(keys, size=(H, W)), keys=keys)
        aged = done.aged
        if self.mode == "color" and aged.ndim == 2:
            aged = np.repeat(aged[:, :, None], 3, axis=2)
        return Given(
            aged=_planes(_unit(aged)),
            aged_levels=aged,
            clean=in_mode(photo, self.mode),
            mask=done.mask,
        )


def held_out_key(seed: int, name: str) -> Keys:
    """Return the key (1,) of a photograph: of seed and name alone, and of no epoch of training."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return sample_keys(
        seed, HELD_OUT_EPOCH, torch.tensor([number]), torch.zeros(1, dtype=torch.int64)
    )


def in_mode(picture: UInt8[np.ndarray, "H W 3"], mode: Mode) -> Levels:
    """Return what a network of this mode is judged by: luma, or in mode `color` all colours."""
    return picture if mode == "color" else luma_levels(picture)


def luma_levels(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """Return Rec. 601 luma, rounded to 8 bits."""
    return np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def to_levels(x: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Clip to [0, 1] and round to 0..255."""
    return np.rint(x.clip(0, 1) * 255).astype(np.uint8)


def _what(mode: Mode) -> str:
    return "sRGB" if mode == "color" else "luma (Rec. 601)"


def _unit(levels: Levels) -> Float[np.ndarray, "H W *C"]:
    return levels.astype(np.float32) / np.float32(255)


def _planes(picture: Float[np.ndarray, "H W *C"]) -> Float[Tensor, "C H W"]:
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1)))
