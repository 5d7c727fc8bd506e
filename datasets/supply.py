"""The supply of photos: from the decoder into the pool, before they are needed.

The order of samples is known for all time, so what is wanted next is no guess. Photos are decoded
in the order in which batches will ask for them, as far ahead as the pool has room.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from threading import Lock
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int

from .decoders import Photo, PhotoDecoder
from .order import BatchOrder
from .pool import PhotoPool

OnError: TypeAlias = Literal["raise", "skip", "substitute"]

DECODING_BYTES = 2_000_000_000
"""Of decoded photos on their way to the pool, beyond those that are needed at once."""

AHEAD_SHARE = 0.75
"""Of the pool, for photos that the batches ahead want; the rest holds those wanted again later."""


class Lookahead:
    """The next batches of a plan, and the photos that they want."""

    def __init__(
        self,
        steps: Iterator[BatchOrder],
        *,
        photo_bytes: Int[np.ndarray, " N"],
        most_batches: int,
        most_bytes: int,
    ) -> None:
        """Look at the plan.

        Args:
            steps: The plan, from the next batch on.
            photo_bytes: Size of each photo in the pool.
            most_batches: How far to look ahead, at least 1.
            most_bytes: What the photos of all these batches may take; the next batch is looked at
                in any case.
        """
        self._steps, self._photo_bytes = steps, photo_bytes
        self._most_batches, self._most_bytes = most_batches, most_bytes
        self._ahead: deque[tuple[BatchOrder, list[int]]] = deque()
        self._following: BatchOrder | None = None
        self._uses: dict[int, int] = {}
        self._bytes = 0

    def next(self) -> tuple[BatchOrder, Collection[int]]:
        """Return the next batch, and what it and those after it want, most urgent first.

        Raises:
            IndexError: After the last batch of the plan.
        """
        while len(self._ahead) < self._most_batches:
            self._following = self._following or next(self._steps, None)
            if self._following is None:
                break
            photos = list(dict.fromkeys(self._following.photos.tolist()))
            added = sum(
                int(self._photo_bytes[photo]) for photo in photos if photo not in self._uses
            )
            if self._ahead and self._bytes + added > self._most_bytes:
                break
            self._ahead.append((self._following, photos))
            self._following = None
            self._bytes += added
            for photo in photos:
                self._uses[photo] = self._uses.get(photo, 0) + 1
        return self._ahead[0][0], self._uses.keys()

    def done(self) -> None:
        """Go on to the batch after it."""
        _, photos = self._ahead.popleft()
        for photo in photos:
            self._uses[photo] -= 1
            if not self._uses[photo]:
                del self._uses[photo]
                self._bytes -= int(self._photo_bytes[photo])


class PhotoSupply:
    """Photos by number, decoded into a pool; one user at a time, who holds `lock`."""

    def __init__(
        self,
        decoder: PhotoDecoder,
        pool: PhotoPool,
        *,
        samples: Int[np.ndarray, " N"],
        photo_bytes: Int[np.ndarray, " N"],
        most_decoding: int,
        on_error: OnError,
        max_bad: int,
    ) -> None:
        """Take a decoder and a pool.

        Args:
            decoder: Reads and decodes.
            pool: Holds the photos.
            samples: Number of each photo in the decoder's index.
            photo_bytes: Size of each photo in the pool.
            most_decoding: Photos that may be on their way at a time, beyond those needed at once.
            on_error: What to do about a photo that cannot be read or decoded: raise the error;
                skip it, nothing is there in its place; or substitute the next good one.
            max_bad: More bad photos than that raise an error whatever `on_error` says.
        """
        self.decoder, self.pool = decoder, pool
        self.bad: dict[int, str] = {}
        """Photos that could not be had, and why."""
        self.num_decoded = 0
        self.lock = Lock()
        self._samples, self._photo_bytes = samples, photo_bytes
        self._most_decoding = most_decoding
        self._on_error, self._max_bad = on_error, max_bad
        self._decoding: dict[int, Future[Photo]] = {}

    def bring(self, needed: Iterable[int], wanted: Collection[int]) -> dict[int, int | None]:
        """Wait until the photos of a batch are in the pool; begin to decode what is wanted later.

        Returns:
            For each photo needed the one to use in its place: itself, a substitute, or None.

        Raises:
            ValueError: If a photo is damaged and `on_error` is raise, or too many are.
            OSError: If a photo cannot be read and `on_error` is raise.
        """
        needed = list(dict.fromkeys(needed))
        while True:
            instead = {photo: self._substitute(photo) for photo in needed}
            used = dict.fromkeys(photo for photo in instead.values() if photo is not None)
            self._request(used, wanted)
            self._store(used, keep=set(wanted) | set(used))
            if not any(photo in self.bad for photo in used):
                return instead

    def _substitute(self, photo: int) -> int | None:
        if photo not in self.bad:
            return photo
        if self._on_error == "skip":
            return None
        # A function of what is bad alone, so it is the same on any rank and after any resume.
        following = (
            other % len(self._samples) for other in range(photo + 1, photo + len(self._samples))
        )
        found = next((other for other in following if other not in self.bad), None)
        if found is None:
            raise ValueError(f"every photo is bad; the last: {self.bad[photo]}")
        return found

    def _request(self, needed: Collection[int], wanted: Collection[int]) -> None:
        # What is no longer wanted, as after a change of epoch, makes room for what is.
        for photo in [p for p in self._decoding if p not in wanted and p not in needed]:
            self._decoding.pop(photo).cancel()
        for photo in needed:
            self._begin(photo)
        on_the_way = sum(int(self._photo_bytes[photo]) for photo in self._decoding)
        for photo in wanted:
            if len(self._decoding) >= self._most_decoding or on_the_way >= DECODING_BYTES:
                break
            if photo not in self.bad and self._begin(photo):
                on_the_way += int(self._photo_bytes[photo])

    def _begin(self, photo: int) -> bool:
        """Begin to decode a photo if nobody has; say whether that was so."""
        if photo in self.pool or photo in self._decoding:
            return False
        self._decoding[photo] = self.decoder.submit(int(self._samples[photo]))
        return True

    def _store(self, needed: Collection[int], keep: Collection[int]) -> None:
        """Put photos into the pool: those needed, once they are there, and what else is ready."""
        for photo, decoding in list(self._decoding.items()):
            is_needed = photo in needed
            # One that failed waits until it is needed: the same batch raises in every run.
            if not is_needed and not (decoding.done() and not decoding.exception()):
                continue
            # What stands in for bad photos was not planned for; what is needed now comes first.
            has_room = self.pool.has_room(int(self._photo_bytes[photo]), keep=keep)
            if not (is_needed or has_room):
                continue
            del self._decoding[photo]
            try:
                pixels = decoding.result()
            except (ValueError, OSError) as error:
                self._note_bad(photo, error)
                continue
            self.pool.put(photo, pixels, keep=keep if has_room else needed)
            self.num_decoded += 1

    def _note_bad(self, photo: int, error: ValueError | OSError) -> None:
        if self._on_error == "raise":
            raise error
        self.bad[photo] = str(error)
        if len(self.bad) > self._max_bad:
            raise ValueError(
                f"{len(self.bad)} photos are bad, max_bad is {self._max_bad}; the last: {error}"
            ) from error
