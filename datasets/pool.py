"""The pool: decoded photos in one flat uint8 buffer, each (H, W, 3) at its offset, on the device or
in host memory.

It decouples the decode rate from the training rate: a photo is decoded once and cropped many times.
It is a cache whose user knows what comes next, so what is in it changes the speed and nothing else.
If all photos fit, each is decoded once for the whole training.

Photos of any sizes lie side by side. When there is room but no gap is wide enough, the photos are
moved together: one pass over the memory, and better than losing a part of it for good. To make that
rare, a sixteenth of the memory is given up to gaps first.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    height: int
    width: int

    @property
    def bytes(self) -> int:
        return 3 * self.height * self.width

    @property
    def end(self) -> int:
        return self.offset + self.bytes


class PhotoPool:
    """Decoded photos by number, at most `capacity_bytes` of them."""

    def __init__(self, capacity_bytes: int, *, device: torch.device, pinned: bool = False) -> None:
        """Take the memory.

        Args:
            capacity_bytes: Size of the buffer.
            device: Where it lies.
            pinned: Host memory that a GPU can fetch from by itself; for device cpu.
        """
        if capacity_bytes < 3:
            raise ValueError(f"capacity_bytes must hold at least one pixel, got {capacity_bytes}")
        # Within inference mode it could not be written to outside of it.
        with torch.inference_mode(False):
            self._flat = torch.empty(
                capacity_bytes, dtype=torch.uint8, device=device, pin_memory=pinned
            )
        self._capacity_bytes = capacity_bytes
        # In order of last use, oldest first.
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._used_bytes = 0
        # (offset, end) of what is free, in order of offset; no two touch.
        self._gaps = [(0, capacity_bytes)]

    @property
    def capacity_bytes(self) -> int:
        """Size of the buffer."""
        return self._capacity_bytes

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self._flat.device

    @property
    def used_bytes(self) -> int:
        """Bytes of the photos in it."""
        return self._used_bytes

    @property
    def photos(self) -> Collection[int]:
        """Numbers of the photos in it, longest unused first."""
        return self._places.keys()

    def __contains__(self, photo: int) -> bool:
        return photo in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, photo: int) -> UInt8[Tensor, "H W 3"]:
        """Return a view of a photo; it is good until the next `put`."""
        place = self._places[photo]
        self._places.move_to_end(photo)
        return self._flat[place.offset : place.end].view(place.height, place.width, 3)

    @property
    def flat(self) -> UInt8[Tensor, " bytes"]:
        """The buffer; `place` says where in it a photo lies."""
        return self._flat

    def place(self, photo: int) -> tuple[int, int, int]:
        """Return (offset, height, width) of a photo in `flat`; good until the next `put`."""
        place = self._places[photo]
        self._places.move_to_end(photo)
        return place.offset, place.height, place.width

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Say that a stream uses the memory, which then is given to nobody before that is done."""
        if self._flat.device.type == "cuda":
            self._flat.record_stream(stream)

    def release(self) -> None:
        """Give the memory back; the pool cannot be used any more."""
        self._flat = self._flat.new_empty(0)

    def has_room(self, size: int, *, keep: Collection[int]) -> bool:
        """Whether so many bytes fit beside the photos to keep."""
        kept = sum(place.bytes for photo, place in self._places.items() if photo in keep)
        return size <= self.capacity_bytes - kept

    def put(
        self, photo: int, pixels: UInt8[Tensor, "H W 3"], *, keep: Collection[int] = ()
    ) -> None:
        """Copy a photo in, making room at the cost of those longest unused and not in `keep`.

        From pinned memory to a GPU the copy is only enqueued, on the current stream.

        Raises:
            ValueError: If it cannot fit beside those to keep.
        """
        height, width, _ = pixels.shape
        size = 3 * height * width
        if photo in self._places:
            self._drop(photo)
        place = _Place(self._take(photo, size, keep), height, width)
        target = self._flat[place.offset : place.end].view(height, width, 3)
        # PyTorch keeps the pinned source from being used again before the copy is done.
        target.copy_(pixels, non_blocking=True)
        if pixels.device.type == "cuda":
            # It was made on another stream, which must not use its memory again before that.
            pixels.record_stream(torch.cuda.current_stream(pixels.device))
        self._places[photo] = place
        self._used_bytes += size

    def _take(self, photo: int, size: int, keep: Collection[int]) -> int:
        """Take `size` bytes of the first gap that is wide enough, and return their offset."""
        while (gap := self._find_gap(size)) is None:
            free = self.capacity_bytes - self.used_bytes
            oldest = next((other for other in self._places if other not in keep), None)
            if free >= size and (oldest is None or free >= self.capacity_bytes // 16):
                self._move_together()
            elif oldest is not None:
                self._drop(oldest)
            else:
                raise ValueError(
                    f"photo {photo} of {size:,} bytes does not fit into the pool of "
                    f"{self.capacity_bytes:,} bytes beside {len(self._places)} photos of "
                    f"{self.used_bytes:,} bytes still wanted; use a larger pool_bytes or a smaller "
                    "batch_size"
                )
        offset, end = self._gaps[gap]
        self._gaps[gap : gap + 1] = [(offset + size, end)] if offset + size < end else []
        return offset

    def _find_gap(self, size: int) -> int | None:
        return next((i for i, (begin, end) in enumerate(self._gaps) if end - begin >= size), None)

    def _drop(self, photo: int) -> None:
        place = self._places.pop(photo)
        self._used_bytes -= place.bytes
        begin, end = place.offset, place.end
        after = bisect_left(self._gaps, (begin, end))
        first, last = after, after
        if after < len(self._gaps) and self._gaps[after][0] == end:
            end, last = self._gaps[after][1], after + 1
        if after > 0 and self._gaps[after - 1][1] == begin:
            begin, first = self._gaps[after - 1][0], after - 1
        self._gaps[first:last] = [(begin, end)]

    def _move_together(self) -> None:
        end = 0
        for photo, place in sorted(self._places.items(), key=lambda item: item[1].offset):
            if place.offset != end:
                # Through a copy: the old and the new place may overlap.
                self._flat[end : end + place.bytes] = self._flat[place.offset : place.end].clone()
                self._places[photo] = _Place(end, place.height, place.width)
            end += place.bytes
        self._gaps = [(end, self.capacity_bytes)] if end < self.capacity_bytes else []
