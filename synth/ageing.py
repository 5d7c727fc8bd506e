"""Ageing: clean photographs in, aged / clean pairs and the damage mask out, on the same device.

Everything drawn comes from the photograph's key, so a photograph ages alike in any batch.
"""

import dataclasses
from typing import NamedTuple

import torch

from ..textures import TextureBank
from .augment import Augment
from .keys import check_seed, sample_keys
from .modes import Mode, aged_in_mode, check_mode, clean_in_mode
from .recipe import Recipe
from .recipes import find_recipe
from .scene import Scene
from .types import Images, InMode, Keys, Mask, Params, Photos

WINDOW_STEP = 16
"""Windows of a picture begin at multiples of this: JPEG's blocks, twice subsampled, lie so."""


class AgedPhotos(NamedTuple):
    """A batch of pairs; where nothing was changed they share memory with the photos given."""

    aged: InMode
    clean: InMode
    mask: Mask


class Ageing:
    """Ages batches of photographs after a recipe.

    Example:
        aged, clean, mask = Ageing("seed", seed=0)(photos)  # (B, 3, H, W), uint8 or float
    """

    def __init__(
        self,
        recipe: str | Recipe = "seed",
        *,
        seed: int = 0,
        mode: Mode = "color",
        textures: TextureBank | None = None,
        dtype: torch.dtype = torch.float32,
        augment: bool = True,
    ) -> None:
        """Settle the recipe.

        Args:
            recipe: Name of a recipe, or one of your own.
            seed: 0 to 2**64 - 1; used where a call gives no keys.
            mode: Channels of aged and clean, see `synth.modes`.
            textures: Wear to draw from; 64 textures of 1024 px if None, drawn at the first call.
            dtype: Floating-point type of aged and clean.
            augment: Whether the clean photo is varied first, as the recipe has it; to age a
                photograph in its place, False.

        Raises:
            ValueError: If the recipe or the mode is unknown, the seed out of range, or dtype not
                floating point.
        """
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be floating point, got {dtype}; use torch.float32")
        self.recipe = find_recipe(recipe)
        self.seed = check_seed(seed)
        self.mode: Mode = check_mode(mode)
        self.dtype = dtype
        self.augment = self.recipe.augment if augment else Augment()
        self._textures = textures
        self._photos_seen = 0

    def __call__(
        self,
        photos: Photos,
        keys: Keys | None = None,
        *,
        margin_px: int = 0,
        move: bool = True,
    ) -> AgedPhotos:
        """Age a batch.

        Args:
            photos: (B, 3, H, W), uint8 in 0..255 or floating point in [0, 1].
            keys: One int64 key for each photograph, on any device. None numbers the photographs
                seen by this object and derives their keys from the seed, so every call draws anew
                and a fresh object repeats the sequence.
            margin_px: What lies around the pictures proper, on each side, for the augmentation to
                move in; it is cut off.
            move: Whether the augmentation may rotate, zoom and shift; brightness it varies anyway.

        Raises:
            ValueError: If the shape or the type of photos or keys does not fit.
        """
        clean = _as_float32(photos)
        B, _, H, W = clean.shape
        H, W = H - 2 * margin_px, W - 2 * margin_px
        if keys is None:
            keys = self._next_keys(B)
        if keys.shape != (B,) or keys.dtype != torch.int64:
            raise ValueError(
                f"keys must be int64 of shape ({B},), one for each photograph, "
                f"got {keys.dtype} of shape {tuple(keys.shape)}"
            )
        keys = keys.to(clean.device)
        augment = self.augment if move else dataclasses.replace(self.augment, p=0.0)
        if augment.moves or augment.tones or margin_px:
            drawn = augment.sample(keys, side_px=min(H, W))
            clean = augment.apply(clean, drawn, margin_px=margin_px)
        return self.apply(clean, self.sample(keys, size=(H, W)), keys=keys)

    def sample(self, keys: Keys, *, size: tuple[int, int]) -> list[Params]:
        """Draw the parameters of every defect for pictures of `size` (H, W), in recipe order."""
        return [
            defect.sample(scene)
            for defect, scene in zip(self.recipe.defects, self._scenes(keys, size), strict=True)
        ]

    def apply(
        self,
        clean: Photos,
        params: list[Params],
        *,
        keys: Keys,
        size: tuple[int, int] | None = None,
        top: int = 0,
        left: int = 0,
    ) -> AgedPhotos:
        """Age photographs as `sample` has drawn it; the same arguments, the same result.

        Args:
            clean: (B, 3, H, W), uint8 in 0..255 or floating point in [0, 1].
            params: What `sample` returned, or what you made of it.
            keys: Those that were given to `sample`.
            size: Height and width of the whole pictures, if these are windows of larger ones.
            top: First row of the window; a multiple of 16.
            left: First column of the window; a multiple of 16.

        Raises:
            ValueError: If the photographs are of a wrong shape or type, or params are of another
                recipe.
        """
        if len(params) != len(self.recipe.defects):
            raise ValueError(
                f"params are of {len(params)} defects, but recipe {self.recipe.name!r} has "
                f"{len(self.recipe.defects)}; give what `sample` of this recipe has drawn"
            )
        if top % WINDOW_STEP or left % WINDOW_STEP:
            raise ValueError(
                f"top and left must be multiples of {WINDOW_STEP}, the grid of JPEG's blocks, got "
                f"{top} and {left}"
            )
        x = clean = _as_float32(clean)
        scenes = self._scenes(keys, size or (x.shape[2], x.shape[3]), top, left)
        hidden = torch.zeros_like(x[:, :1], dtype=torch.bool)
        # A caller's autocast would round the convolutions of a defect to bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            for defect, drawn, scene in zip(self.recipe.defects, params, scenes, strict=True):
                x, mask = defect.apply(x, drawn, scene)
                if mask is not None:
                    hidden = hidden | mask
            aged, clean = aged_in_mode(x, self.mode), clean_in_mode(clean, self.mode)
        return AgedPhotos(
            aged.to(self.dtype).contiguous(), clean.to(self.dtype).contiguous(), hidden
        )

    def _scenes(
        self, keys: Keys, size: tuple[int, int], top: int = 0, left: int = 0
    ) -> list[Scene]:
        textures = self.textures_on(keys.device) if self.recipe.uses_textures else None
        severity = self.recipe.severity(keys)
        return [
            Scene(
                keys=keys,
                op=op,
                size=size,
                severity=severity,
                textures=textures,
                top=top,
                left=left,
            )
            for op in range(len(self.recipe.defects))
        ]

    def textures_on(self, device: torch.device) -> TextureBank:
        """Return the texture bank on `device`; it stays there until wanted on another."""
        if self._textures is None:
            self._textures = TextureBank.synthesize()
        if self._textures.textures.device != device:
            self._textures = self._textures.to(device)
        return self._textures

    def _next_keys(self, count: int) -> Keys:
        samples = torch.arange(self._photos_seen, self._photos_seen + count)
        self._photos_seen += count
        return sample_keys(self.seed, 0, samples, torch.zeros_like(samples))


def _as_float32(photos: Photos) -> Images:
    if photos.ndim != 4 or photos.shape[1] != 3:
        raise ValueError(
            f"photos must have the shape (B, 3, H, W), got {tuple(photos.shape)}; "
            "repeat a gray channel three times, add a batch dimension to a single photograph"
        )
    if photos.dtype == torch.uint8:
        return photos.to(torch.float32) / 255.0
    if not photos.dtype.is_floating_point:
        raise ValueError(
            f"photos must be uint8 or floating point, got {photos.dtype}; scale them to 0..255 and "
            "use .to(torch.uint8)"
        )
    # In bfloat16, luma and grain would be rounded to 1/256.
    return photos.to(torch.float32)
