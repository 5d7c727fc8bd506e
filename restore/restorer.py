"""Restorer: a trained network that takes pictures and returns pictures of the same kind.

A network of mode `grayscale` restores the luma of a colour picture and leaves its colours alone:
the change of the luma is added to red, green and blue alike, which keeps Cb and Cr.

    picture -> rows of it, as floats -> tiles -> network -> rows of the result, as they were stored

Beside the picture and its result there is only one row of tiles in memory.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..synth import Mode, find_device, grayscale
from ..train import LabNet, ModelCard, Net
from .colorize import TEMPERATURE, find_colors, with_colors
from .fill import fill
from .memory import is_out_of_memory, tile_px_for
from .models import find_model
from .pictures import as_floats, store_rows, take_mask, take_picture
from .tiles import check_tiles, count_tiles, overlap_px_for, tiled_strips

Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)

AUTO_TILE_PX = {"cpu": 1024, "mps": 512, "cuda": 1536}
"""The largest tiles that `auto` takes, less where memory is short. Larger ones share less with
their neighbours, which is done twice, and take more memory: `large` some 2 GiB for 1024 px."""
AT_ONCE_PX = {"cuda": 4 << 20}
"""Tiles go through the network together up to so many pixels; elsewhere one by one, for a CPU gains
nothing. A GPU is busy with one tile of 1024 px, but not with one of 256 px."""


class Options(TypedDict, total=False):
    """How to restore, see `Restorer.__call__`."""

    strength: float
    mask: Any
    damage: Any
    saturation: float
    temperature: float
    tile: int | Literal["auto"]
    on_tile: Callable[[], object]


class Restorer:
    """Restores pictures.

    Example:
        restored = Restorer.from_pretrained("grayscale")(Image.open("grandmother.jpg"))
    """

    def __init__(
        self,
        net: Net,
        card: ModelCard,
        *,
        device: str | torch.device = "auto",
        compile: bool = False,
    ) -> None:
        """Use a network, see `from_pretrained` for one from a file."""
        self.device = find_device(device)
        self.net = net.to(self.device).eval()
        self.card = card
        self._tiled = net.luminance if isinstance(net, LabNet) else net
        """What goes over a picture in tiles; None for colours without a network for luminance."""
        if self._tiled is not None and self.device.type in ("cuda", "cpu"):
            self._tiled.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled = (
            torch.compile(self._tiled, dynamic=False) if compile and self._tiled else None
        )
        self._stride = self._tiled.config.stride if self._tiled else 1
        self._overlap_px = overlap_px_for(self._tiled.config) if self._tiled else 0
        self._auto_tile_px: int | None = None
        self._one_by_one = False
        """Since memory ran out with several tiles at once."""

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, device: str | torch.device = "auto", compile: bool = False
    ) -> "Restorer":
        """Load a model by name, or from a file of weights (.safetensors) or a folder of a training.

        A string that is the name of a model means that model; a folder of the same name in the
        current folder is `./name`.

        Args:
            model: Which.
            device: See `find_device`.
            compile: Compile the network for whole tiles, when the first of them comes. It takes a
                minute the first time, less later, for torch keeps what it has compiled on disk;
                it pays for many large photos on a GPU.

        Raises:
            ValueError: If there is no such model, or the file is not one.
        """
        # The device first: a wrong one is found before weights are read.
        device = find_device(device)
        return cls(*find_model(model), device=device, compile=compile)

    @property
    def mode(self) -> Mode:
        """What the network sees and answers, see `synth.modes`."""
        return self.card.mode

    @property
    def finds_damage(self) -> bool:
        """Whether the network can tell where the damage is, for `return_mask`."""
        return self._tiled is not None and self._tiled.config.mask_head

    @overload
    def __call__(
        self, picture: Picture, *, return_mask: Literal[False] = False, **options: Unpack[Options]
    ) -> Picture: ...

    @overload
    def __call__(
        self, picture: Picture, *, return_mask: Literal[True], **options: Unpack[Options]
    ) -> tuple[Picture, Picture]: ...

    @overload
    def __call__(
        self, picture: Sequence[Picture], *, return_mask: bool = False, **options: Unpack[Options]
    ) -> list[Any]: ...

    def __call__(
        self,
        picture: Any,
        *,
        strength: float = 1.0,
        mask: Any = None,
        damage: Any = None,
        return_mask: bool = False,
        saturation: float = 1.0,
        temperature: float = TEMPERATURE,
        tile: int | Literal["auto"] = "auto",
        on_tile: Callable[[], object] = lambda: None,
    ) -> Any:
        """Restore a picture, or a list of them.

        Args:
            picture: A Pillow image; an array (H, W), (H, W, 1) or (H, W, 3), uint8, uint16 or
                floating point in [0, 1]; or a tensor (C, H, W) or (B, C, H, W) with 1 or 3
                channels, uint8 or floating point in [0, 1].
            strength: 0 returns a copy of the picture, 1 restores it fully.
            mask: Where to restore, of the size of the picture: an image, an array (H, W) or a
                tensor (H, W), (1, H, W); white, 1 or True is restored, black stays exactly as it
                is. None is everywhere. For a list of pictures a list of masks.
            damage: Where there is nothing of the photograph left, as `mask`: from half of white on,
                pixels are first filled from around, then restored. For a list a list.
            return_mask: Return a pair: the picture, and where the network found damage.
            saturation: Mode lab: of the colours; 0 is gray, 1 as the network has them.
            temperature: Mode lab: lower is more vivid and has more patches; 0.38 is usual.
            tile: Side in pixels of the tiles that large pictures are done in. Where memory runs
                out they are halved, with a warning; a GPU too small for the smallest is left for
                the CPU.
            on_tile: Called after each tile, for a progress bar.

        Returns:
            A picture of the same kind, size and depth; in all modes but `grayscale`, a gray one
            comes back as RGB. Transparency is kept. Pillow images of other modes than L, RGB and
            16 bits, with or without transparency, come back in one of these: bilevel as L, the
            rest as 8-bit sRGB. A returned mask is of the same kind and depth and has one channel.
            Of a list a list.

        Raises:
            ValueError: If an argument is not as described, the network cannot find damage, or the
                smallest tile does not fit into memory.
        """
        options = {
            "strength": strength,
            "return_mask": return_mask,
            "saturation": saturation,
            "temperature": temperature,
            "tile": tile,
            "on_tile": on_tile,
        }
        if isinstance(picture, list | tuple):
            masks = _one_each("mask", mask, len(picture))
            damages = _one_each("damage", damage, len(picture))
            return [
                self(one, mask=its_mask, damage=its_damage, **options)
                for one, its_mask, its_damage in zip(picture, masks, damages, strict=True)
            ]
        self.check(strength=strength, tile=tile, saturation=saturation, temperature=temperature)
        if return_mask and not self.finds_damage:
            raise ValueError(
                "this model cannot tell where the damage is: it has no mask head; leave out "
                "return_mask, or take a model trained with mask_weight above 0"
            )
        if isinstance(picture, Tensor) and picture.ndim == 4 and len(picture):
            done = self(
                list(picture),
                mask=None if mask is None else list(mask),
                damage=None if damage is None else list(damage),
                **options,
            )
            if not return_mask:
                return torch.stack(done)
            return tuple(torch.stack(part) for part in zip(*done, strict=True))
        taken = take_picture(picture)
        H, W, C = taken.pixels.shape
        task = _Task(
            pixels=taken.pixels,
            result=np.empty((H, W, C if self.mode == "grayscale" else 3), taken.pixels.dtype),
            found=np.empty((H, W, 1), taken.pixels.dtype) if return_mask else None,
            strength=strength,
            where=None if mask is None else take_mask("mask", mask, (H, W)),
            holes=None if damage is None else take_mask("damage", damage, (H, W)) >= 0.5,
            saturation=saturation,
            temperature=temperature,
            tile=tile,
            on_tile=on_tile,
        )
        if strength or return_mask:
            self._restore(task)
        restored = taken.give_back(task.result) if strength else taken.copy()
        if task.found is None:
            return restored
        return restored, taken.give_back(task.found, is_mask=True)

    def check(
        self,
        *,
        strength: float = 1.0,
        tile: int | Literal["auto"] = "auto",
        saturation: float = 1.0,
        temperature: float = TEMPERATURE,
    ) -> int:
        """Return the side of the tiles in pixels, or raise ValueError if an option does not fit."""
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be 0 to 1, got {strength}")
        if not 0 <= saturation < float("inf"):
            raise ValueError(f"saturation must be at least 0, got {saturation}; 1 is as answered")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, got {temperature}; try {TEMPERATURE}")
        if tile == "auto":
            tile = self._find_tile_px()
        elif isinstance(tile, bool) or not isinstance(tile, int):
            raise ValueError(f"tile must be 'auto' or a whole number of pixels, got {tile!r}")
        check_tiles(tile, self._overlap_px, stride=self._stride)
        return tile

    def count_tiles(self, height: int, width: int, tile: int | Literal["auto"] = "auto") -> int:
        """Return how many tiles a picture takes."""
        tile_px = self.check(tile=tile)
        if not self._tiled:
            return 1
        tiles = count_tiles(height, width, tile_px=tile_px, overlap_px=self._overlap_px)
        return tiles + isinstance(self.net, LabNet)

    def _find_tile_px(self) -> int:
        """Return the side of tiles that fit into memory now; the same for all pictures."""
        if self._auto_tile_px is None:
            most = AUTO_TILE_PX.get(self.device.type, 512)
            if self._tiled is not None:
                most = min(most, tile_px_for(self._tiled.config, self.device))
            self._auto_tile_px = self._on_grid(most)
        return self._auto_tile_px

    def _count_at_once(self, tile_px: int) -> int:
        """Return how many tiles go through the network together."""
        if self._tiled is None or self._compiled or self._one_by_one:
            return 1
        fit = tile_px_for(self._tiled.config, self.device) ** 2
        return max(1, min(AT_ONCE_PX.get(self.device.type, 0), fit) // tile_px**2)

    def _on_grid(self, tile_px: int) -> int:
        """Return a side near the wanted one that the network can do, at least the smallest."""
        return -(-max(tile_px, 2 * self._overlap_px) // self._stride) * self._stride

    def _restore(self, task: "_Task") -> None:
        """Restore into `task.result`, and the damage into `task.found`."""
        H, W, _ = task.pixels.shape
        filled = None
        if task.holes is not None:
            filled = fill(as_floats(task.pixels, 0, H), torch.from_numpy(task.holes))

        def read(top: int, bottom: int) -> Tensor:
            if filled is not None:
                return filled[:, top:bottom]
            return as_floats(task.pixels, top, bottom)

        def aged(top: int, bottom: int) -> Tensor:
            rows = torch.empty(3 if self.mode == "color" else 1, bottom - top, W)
            for part in _parts(top, bottom, W):
                x = read(part.start, part.stop)
                x = x if self.mode == "color" else grayscale(x[None])[0]
                rows[:, part.start - top : part.stop - top] = x
            return rows

        luma = torch.empty(1, H, W) if isinstance(self.net, LabNet) else None
        for part, answer, damage in self._strips(aged, (H, W), task):
            if task.found is not None and damage is not None:
                store_rows(damage, task.found, part)
            if luma is not None:
                luma[:, part] = answer.clamp(0, 1)
                continue
            for piece in _parts(part.start, part.stop, W):
                rows = answer[:, piece.start - part.start : piece.stop - part.start].clamp(0, 1)
                if self.mode == "grayscale":
                    # One channel or three: the luma changes, the colours stay.
                    before = read(piece.start, piece.stop)
                    rows = (before + (rows - grayscale(before[None])[0])).clamp(0, 1)
                task.store(rows, piece)
        if luma is not None:
            self._color(luma, task)

    def _color(self, luma: Tensor, task: "_Task") -> None:
        """Give the restored luma (1, H, W) its colours."""
        assert isinstance(self.net, LabNet)
        colors = find_colors(
            self.net.color,
            luma[None],
            saturation=task.saturation,
            temperature=task.temperature,
        )
        for part in _parts(0, *luma.shape[1:]):
            strip = luma[None, :, part]
            ab = colors.enlarge(strip, top=part.start)
            task.store(with_colors(strip, ab)[0].clamp(0, 1), part)
        task.on_tile()

    def _strips(
        self, aged: Callable[[int, int], Tensor], size: tuple[int, int], task: "_Task"
    ) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield rows, the network's answer to them, and where it found damage, if asked."""
        with_mask = task.found is not None
        if self._tiled is None:
            for part in _parts(0, *size):
                yield part, aged(part.start, part.stop), None
            return
        done = 0
        tile_px = self.check(tile=task.tile)
        device = self.device
        while True:
            at_once = self._count_at_once(tile_px)
            try:
                for part, answer in tiled_strips(
                    self._network(tile_px, with_mask),
                    aged,
                    size=size,
                    stride=self._stride,
                    tile_px=tile_px,
                    overlap_px=self._overlap_px,
                    device=device,
                    at_once=at_once,
                    on_tile=task.on_tile,
                ):
                    # Begun anew with smaller tiles, what is done already is passed over: tiles of
                    # any size give the same answer.
                    first = max(part.start, done)
                    if first >= part.stop:
                        continue
                    answer = answer[:, first - part.start :]
                    part, done = slice(first, part.stop), part.stop
                    yield (
                        part,
                        answer[:-1] if with_mask else answer,
                        answer[-1:] if with_mask else None,
                    )
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                smallest = self._on_grid(0)
                less, what = tile_px, "tiles"
                if at_once > 1:
                    what, after = f"{at_once} tiles", "going on with one at a time"
                elif tile_px > smallest:
                    less = self._on_grid(tile_px // 2)
                    after = f"going on with tiles of {less} px"
                elif device.type != "cpu":
                    after = "going on on the CPU"
                else:
                    raise ValueError(
                        f"not enough memory on {device} for tiles of {tile_px} px, the smallest "
                        "of this model; close other programs, or take a smaller model"
                    ) from error
                warnings.warn(
                    f"not enough memory on {device} for {what} of {tile_px} px; {after}",
                    stacklevel=2,
                )
            # For good: what did not fit once will not fit the next time.
            if at_once > 1:
                self._one_by_one = True
                continue
            if tile_px == less:
                device = self.device = torch.device("cpu")
                self.net.to(device)
            tile_px = self._auto_tile_px = less

    def _network(self, tile_px: int, with_mask: bool) -> Callable[[Tensor], Tensor]:
        """Return what tiles of this side go through."""
        net, compiled = self._tiled, self._compiled
        assert net is not None

        def apply(x: Tensor) -> Tensor:
            # Whole tiles alone: those of every other size would have to be compiled, too.
            is_whole = x.shape[-2:] == (tile_px, tile_px)
            return _answer(compiled if compiled and is_whole else net, x, with_mask)

        return apply


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """One picture to restore, and how."""

    pixels: np.ndarray
    """(H, W, C), as given."""
    result: np.ndarray
    """(H, W, 1) or (H, W, 3), to be written."""
    found: np.ndarray | None
    """(H, W, 1), to be written: where the damage is."""
    strength: float
    where: np.ndarray | None
    """(H, W) float32 in [0, 1]; None is everywhere."""
    holes: np.ndarray | None
    """(H, W) bool."""
    saturation: float
    temperature: float
    tile: int | Literal["auto"]
    on_tile: Callable[[], object]

    def store(self, answer: Tensor, part: slice) -> None:
        """Write rows between the picture as it was and the answer (C, h, W).

        What lies outside of the mask comes out as it went in, to the last bit.
        """
        before = as_floats(self.pixels, part.start, part.stop).expand_as(answer)
        if self.where is None:
            store_rows(torch.lerp(before, answer, self.strength), self.result, part)
            return
        weight = torch.from_numpy(self.where[part]) * self.strength
        store_rows(torch.lerp(before, answer, weight), self.result, part)
        outside = self.where[part] == 0
        self.result[part][outside] = self.pixels[part][outside]


_STRIP_PX = 1 << 20
"""What is converted and coloured at a time, in pixels: it takes copies."""


def _parts(top: int, bottom: int, width: int) -> Iterator[slice]:
    """Cut rows of a picture into strips."""
    rows = max(1, _STRIP_PX // width)
    for first in range(top, bottom, rows):
        yield slice(first, min(first + rows, bottom))


def _answer(net: Callable[..., Any], x: Tensor, with_mask: bool) -> Tensor:
    """Return (B, D, h, w) float32; with the mask, as shares in [0, 1], as a last channel."""
    x = x.contiguous(memory_format=torch.channels_last)
    # bf16 on GPUs: a change of the picture is small, and rounding is relative to it.
    with torch.autocast("cuda", torch.bfloat16, enabled=x.is_cuda):
        if not with_mask:
            return net(x).float()
        restored, logits = net(x, with_mask=True)
        return torch.cat([restored.float(), logits.float().sigmoid()], 1)


def _one_each(name: str, values: Any, count: int) -> Sequence[Any]:
    """Return one value for each picture of a list."""
    if values is None:
        return [None] * count
    if not isinstance(values, list | tuple) or len(values) != count:
        got = f"{len(values)}" if isinstance(values, list | tuple) else type(values).__name__
        raise ValueError(f"{name} of {count} pictures must be a list of as many, got {got}")
    return values
