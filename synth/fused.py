"""The fused kernel: crop, turn, move, age, and write aged, clean and mask, in one pass.

A recipe fits if it is made of Grayscale, ToneCurve, Grain and Texture alone. Each program takes a
tile of one photograph: it draws the photograph's parameters from its key (a handful of numbers,
cheaper to draw again in each tile than to fetch), gathers its pixels out of the pool or out of a
batch, and keeps all in registers until the results are written. The bits of every draw, and the
formulas, are those of the modules it is made of, which remain the reference.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import philox_triton
from .augment import FINE, Augment
from .grain import Grain
from .grayscale import Grayscale
from .modes import AGED_CHANNELS, CLEAN_CHANNELS, Mode
from .recipe import Recipe
from .texture import STEP, Texture
from .tone import ToneCurve

if TYPE_CHECKING:
    from ..textures import TextureBank

_KINDS: dict[type, int] = {Grayscale: 1, ToneCurve: 2, Grain: 3, Texture: 4}
"""As the kernel numbers them."""

_MOST_DEFECTS = 8
"""Their kinds are packed into one constant of the kernel, four bits each."""

FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernel can write."""

_NUMBERS = 8
"""Numbers that the kernel is given for each defect."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where the pixels of a batch of photographs lie in memory."""

    flat: Tensor
    """uint8 in 0..255 or floating point in [0, 1]; any shape, contiguous storage order."""
    offsets: Tensor
    """(B,) int64: element of each photograph's first pixel."""
    heights: Tensor
    """(B,) int64, in pixels."""
    widths: Tensor
    """(B,) int64, in pixels."""
    row_stride: int | None
    """Elements from one row to the next; None where photographs lie packed, (H, W, 3)."""
    column_stride: int
    """Elements from one pixel to the next."""
    channel_stride: int
    """Elements from one colour to the next."""

    @classmethod
    def of_batch(cls, photos: Tensor) -> "Pixels":
        """Describe a batch (B, 3, H, W), of any strides."""
        B, _, H, W = photos.shape
        place = torch.arange(B, device=photos.device)
        return cls(
            flat=photos,
            offsets=place * photos.stride(0),
            heights=torch.full_like(place, H),
            widths=torch.full_like(place, W),
            row_stride=photos.stride(2),
            column_stride=photos.stride(3),
            channel_stride=photos.stride(1),
        )


def fits(recipe: Recipe) -> bool:
    """Whether the kernel can age after this recipe."""
    kinds = [type(defect) for defect in recipe.defects]
    return (
        len(kinds) <= _MOST_DEFECTS
        and all(kind in _KINDS for kind in kinds)
        and kinds.count(Grayscale) <= 1
    )


def available(device: torch.device) -> bool:
    """Whether there is Triton for this device: CUDA, or the CPU under its interpreter."""
    if not philox_triton.HAS_TRITON:
        return False
    return device.type == "cuda" or (device.type == "cpu" and philox_triton.interpreted())


class FusedAgeing:
    """Ages batches after one recipe with one launch each."""

    def __init__(self, recipe: Recipe, *, mode: Mode, augment: Augment, dtype: torch.dtype) -> None:
        """Settle what the kernel does.

        Raises:
            ValueError: If the recipe has defects that the kernel does not know, or dtype is one
                that it cannot write.
        """
        if not fits(recipe):
            known = ", ".join(sorted(kind.__name__ for kind in _KINDS))
            raise ValueError(
                f"the fused kernel ages by {known} (grayscale once, {_MOST_DEFECTS} defects at "
                f"most), recipe {recipe.name!r} has others; use backend='compiled'"
            )
        if dtype not in FUSED_DTYPES:
            raise ValueError(
                f"the fused kernel writes float32, bfloat16 and float16, not {dtype}; use "
                "backend='eager'"
            )
        self._recipe, self._augment, self._dtype = recipe, augment, dtype
        self._mode: Mode = mode
        self._kinds = sum(_KINDS[type(d)] << (4 * i) for i, d in enumerate(recipe.defects))
        self._gray_at = next(
            (i for i, d in enumerate(recipe.defects) if type(d) is Grayscale), _MOST_DEFECTS
        )
        self._tables: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(
        self,
        pixels: Pixels,
        keys: Tensor,
        *,
        size: tuple[int, int],
        textures: "TextureBank | None",
        crop: bool = False,
        move: bool = True,
        channels_last: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Age a batch.

        Args:
            pixels: The photographs.
            keys: (B,) int64, on their device.
            size: Height and width of the results, in pixels.
            textures: Wear to draw from, if the recipe uses any.
            crop: Cut a square of `size` out of each photograph and turn it, as `sample_crops` draws
                it; else the photographs are of `size` and are taken whole.
            move: Whether the augmentation may rotate, zoom and shift.
            channels_last: Memory format of aged and clean.

        Returns:
            aged, clean and mask, as `Ageing` returns them.
        """
        (H, W), B, device = size, len(keys), keys.device
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def empty(channels: int) -> Tensor:
            shape = (B, channels, H, W)
            return torch.empty(shape, dtype=self._dtype, device=device, memory_format=layout)

        aged, clean = empty(AGED_CHANNELS[self._mode]), empty(CLEAN_CHANNELS[self._mode])
        mask = torch.empty((B, 1, H, W), dtype=torch.bool, device=device)
        if not mask.numel():
            return aged, clean, mask
        numbers, choices, counts = self._tables_on(device, textures, size)
        augment = self._augment
        bank = textures.textures if textures is not None else mask
        light = textures.light_ground if textures is not None else mask
        packed = pixels.row_stride is None

        def grid(meta: dict[str, int]) -> tuple[int, int, int]:
            return -(-W // (4 * meta["QUADS"])), -(-H // (meta["ROWS"] * meta["TILES"])), B

        _launcher()[grid](
            pixels.flat,
            pixels.offsets.contiguous(),
            pixels.heights.contiguous(),
            pixels.widths.contiguous(),
            0 if packed else pixels.row_stride,
            pixels.column_stride,
            pixels.channel_stride,
            keys.contiguous(),
            bank.view(torch.uint8),
            light.view(torch.uint8),
            choices,
            counts,
            numbers,
            aged,
            aged.stride(0),
            aged.stride(1),
            aged.stride(2),
            aged.stride(3),
            clean,
            clean.stride(0),
            clean.stride(1),
            clean.stride(2),
            clean.stride(3),
            mask.view(torch.uint8),
            H,
            W,
            bank.shape[-1],
            augment.p,
            2.0 * math.pi * augment.rotation_turns,
            augment.zoom,
            FINE * augment.translation * min(H, W),
            augment.brightness,
            augment.contrast,
            self._recipe.severity_sigma,
            KINDS=self._kinds,
            NUM_DEFECTS=len(self._recipe.defects),
            GRAY_AT=self._gray_at,
            PACKED=packed,
            BYTES=pixels.flat.dtype == torch.uint8,
            CROP=crop,
            MOVES=augment.moves and move,
            TONES=augment.tones,
            WORN=self._recipe.severity_sigma > 0,
            AGED_CHANNELS=aged.shape[1],
            CLEAN_CHANNELS=clean.shape[1],
            LAB=self._mode == "lab",
            # What is tuned for one size does for all like it.
            SIZE_CLASS=min(max(H, W), 1024).bit_length(),
            POWER_OF_2=bank.shape[-1] & (bank.shape[-1] - 1) == 0,
        )
        return aged, clean, mask

    def _tables_on(
        self, device: torch.device, textures: "TextureBank | None", size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the numbers of all defects, which textures each chooses from, and how many."""
        # Kept: copies to the GPU would wait for it.
        name: Any = (device, max(size))
        if textures is not None:
            name += (textures.names, textures.darkening, textures.size_px)
        if name not in self._tables:
            numbers = torch.zeros(_MOST_DEFECTS, _NUMBERS)
            chosen, counts = [], []
            for i, defect in enumerate(self._recipe.defects):
                choice: list[int] = []
                if isinstance(defect, ToneCurve):
                    numbers[i, :6] = torch.tensor((*defect.black, *defect.white, *defect.gamma))
                elif isinstance(defect, Grain):
                    numbers[i, :2] = torch.tensor(defect.sigma)
                elif isinstance(defect, Texture):
                    assert textures is not None
                    choice = textures.choose(defect.families).tolist()
                    least = math.ceil(STEP / defect.zoom[1])
                    span = max(math.floor(STEP / defect.zoom[0]) - least, 0) + 1
                    most = max(1, STEP * textures.size_px // max(size))
                    numbers[i, :5] = torch.tensor((*defect.alpha, least, span, most))
                chosen.append(choice)
                counts.append(len(choice))
            width = max(1, *counts)
            choices = torch.tensor([row + [0] * (width - len(row)) for row in chosen])
            made = (
                numbers.to(device),
                choices.to(device),
                torch.tensor([[count, width] for count in counts]).to(device),
            )
            if len(self._tables) > 16:
                self._tables.clear()
            self._tables[name] = made
            return made
        return self._tables[name]


_TUNINGS = [
    (4, 16, 8, 4),
    (8, 16, 8, 4),
    (4, 32, 8, 4),
    (8, 32, 4, 4),
    (8, 32, 8, 4),
    (4, 64, 8, 4),
    (2, 64, 16, 4),
    (8, 64, 8, 8),
]
"""Rows and quads of columns of a tile, tiles of a program, and warps."""

_launchers: dict[bool, Any] = {}


def _launcher() -> Any:
    """Return the kernel, tuned per card; under the interpreter, which cannot, as it is."""
    interpreted = philox_triton.interpreted()
    if interpreted not in _launchers:
        # Triton is optional, and decides when it is imported whether it interprets.
        import triton

        from .fused_kernel import age_tiles

        if interpreted:
            _launchers[interpreted] = _Fixed(age_tiles)
        else:
            configs = [
                triton.Config({"ROWS": rows, "QUADS": quads, "TILES": tiles}, num_warps=warps)
                for rows, quads, tiles, warps in _TUNINGS
            ]
            key = ["SIZE_CLASS", "KINDS", "PACKED", "CROP", "MOVES", "AGED_CHANNELS"]
            _launchers[interpreted] = triton.autotune(configs=configs, key=key)(age_tiles)
    return _launchers[interpreted]


class _Fixed:
    """A kernel with one tuning, launched like one that chooses."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **constants: Any) -> None:
            self._kernel[grid](*arguments, **constants, ROWS=8, QUADS=4, TILES=2)

        return launch
