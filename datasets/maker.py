"""Making a batch: what the plan asks for, cut out of the pool and aged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from ..synth import AgedPhotos, Ageing, Pixels, sample_crops, sample_keys, turn_crops
from ..synth.crops import sample_mirror
from .batch import Batch
from .decoders import Photo
from .index import ShardIndex
from .order import BatchOrder
from .pool import PhotoPool
from .views import cut_crops, place_whole, shrink, whole_size

View: TypeAlias = Literal["crop", "whole"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoSizes:
    """The photos that take part, as the pool holds them."""

    numbers: Int[np.ndarray, " N"]
    """Of each photo in the whole split: its keys depend on nothing else."""
    height: Int[np.ndarray, " N"]
    width: Int[np.ndarray, " N"]

    @classmethod
    def of(cls, index: ShardIndex, *, view: View, side_px: int) -> "PhotoSizes":
        """Choose the photos that are large enough, and say how large they are when decoded.

        Raises:
            ValueError: If there is none; says what would fit.
        """
        if not len(index):
            raise ValueError(f"there are no photographs in {index.root or 'these shards'}")
        if view == "whole":
            height, width = whole_size(index.height, index.width, side_px)
            return cls(numbers=np.arange(len(index)), height=height, width=width)
        short = np.minimum(index.height, index.width)
        numbers = np.flatnonzero(short >= side_px)
        if not len(numbers):
            splits = {index.shards[number].split for number in np.unique(index.shard)}
            raise ValueError(
                f"crop_px {side_px} is larger than every photo of split "
                f"{', '.join(map(repr, sorted(splits)))} in {index.root or 'these shards'}; the "
                f"largest short side is {short.max()} px, use at most that"
            )
        return cls(numbers=numbers, height=index.height[numbers], width=index.width[numbers])

    @property
    def bytes(self) -> Int[np.ndarray, " N"]:
        """Of each photo in the pool."""
        return 3 * self.height * self.width


def finish_for(view: View, side_px: int) -> Callable[[Photo], Photo] | None:
    """Return what is to be done with each photo once it is decoded."""
    return None if view == "crop" else lambda photo: shrink(photo, side_px)


class BatchMaker:
    """Makes batches for one device out of one pool."""

    def __init__(
        self,
        pool: PhotoPool,
        ageing: Ageing,
        *,
        sizes: PhotoSizes,
        view: View,
        side_px: int,
        device: torch.device,
    ) -> None:
        self._pool, self._ageing, self._sizes = pool, ageing, sizes
        self._view, self._side_px, self._device = view, side_px, device
        # A whole photo stays in its place: it shows what there is.
        self._moves = view == "crop" and ageing.augment.moves
        # Where the kernel can, it cuts crops out of the pool by itself.
        self._gathers = (
            view == "crop" and pool.device == device and ageing.backend_on(device) == "fused"
        )
        self._margin_px = ageing.augment.margin_px(side_px) if self._moves else 0

    def make(self, epoch: int, step: BatchOrder, instead: Mapping[int, int | None]) -> Batch:
        """Make one batch.

        Args:
            epoch: Goes into the keys.
            step: Photos and crops, by place.
            instead: For each photo the one in the pool to use; None leaves its place black.
        """
        self._ageing.turn_to(epoch)
        numbers = self._sizes.numbers
        keys = sample_keys(
            self._ageing.seed,
            epoch,
            torch.from_numpy(numbers[step.photos]),
            torch.from_numpy(step.crops),
        )
        used = [instead[photo] for photo in step.photos.tolist()]
        if self._gathers and None not in used:
            inside = None
            keys, (aged, clean, mask) = self._gather(used, keys)
        else:
            pixels, inside = self._take(used, keys)
            keys = keys.to(self._device)
            aged, clean, mask = self._ageing(
                pixels, keys, margin_px=self._margin_px, move=self._moves
            )
        there = np.array([photo is not None for photo in used])
        shown = inside
        if not there.all():
            known = torch.from_numpy(there).to(self._device)[:, None, None, None]
            shown = known if shown is None else shown & known
        if shown is not None:
            aged, clean, mask = aged * shown, clean * shown, mask & shown
        return Batch(
            aged=aged,
            clean=clean,
            mask=mask,
            keys=keys,
            valid=torch.from_numpy(step.valid & there).to(self._device),
            photos=tuple(-1 if photo is None else int(numbers[photo]) for photo in used),
            inside=inside,
        )

    def _gather(self, used: list[int | None], keys: Int[Tensor, " B"]) -> tuple[Tensor, AgedPhotos]:
        """Age crops straight out of the pool: one small copy to the GPU, one launch."""
        places = [self._pool.place(photo) for photo in used if photo is not None]
        table = torch.cat([keys[None], torch.tensor(places).T])
        if self._device.type == "cuda":
            # From pageable memory the copy would wait for what is under way.
            table = table.pin_memory().to(self._device, non_blocking=True)
        keys, offsets, heights, widths = table
        photos = Pixels(
            flat=self._pool.flat,
            offsets=offsets,
            heights=heights,
            widths=widths,
            row_stride=None,
            column_stride=3,
            channel_stride=1,
        )
        return keys, self._ageing.age_crops(photos, keys, crop_px=self._side_px)

    def _take(
        self, used: list[int | None], keys: Int[Tensor, " B"]
    ) -> tuple[UInt8[Tensor, "B 3 S S"], Bool[Tensor, "B 1 S S"] | None]:
        """Take the views out of the pool, and where in them the picture is."""
        pool, S = self._pool, self._side_px + 2 * self._margin_px
        photos = [None if photo is None else pool[photo] for photo in used]
        out = torch.empty(
            (len(used), S, S, 3),
            dtype=torch.uint8,
            device=pool.device,
            pin_memory=pool.device.type == "cpu" and self._device.type == "cuda",
        )
        if self._view == "whole":
            inside = place_whole(photos, sample_mirror(keys).tolist(), out)
            return self._planes(out), inside.to(self._device)
        # A photo that is missing has no size; any will do for a box in the black.
        known = np.array([0 if photo is None else photo for photo in used])
        # Boxes are drawn on the CPU, where the pool is addressed; they are the same anywhere.
        boxes = sample_crops(
            keys,
            torch.from_numpy(self._sizes.height[known]),
            torch.from_numpy(self._sizes.width[known]),
            crop_px=self._side_px,
        )
        cut_crops(photos, boxes.top.tolist(), boxes.left.tolist(), out, margin_px=self._margin_px)
        return turn_crops(self._planes(out), boxes.turn.to(self._device)), None

    def _planes(self, pixels: UInt8[Tensor, "B S S 3"]) -> UInt8[Tensor, "B 3 S S"]:
        # Contiguous: turning is three times faster than with the channels last.
        on_device = pixels.to(self._device, non_blocking=True)
        return on_device.permute(0, 3, 1, 2).contiguous()
