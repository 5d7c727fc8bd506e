"""Decoding on the CPU: imagecodecs on threads, which lets go of the interpreter while it decodes.

For a CUDA device the pixels are decoded into pinned host memory, so that the copy that follows
needs no thread of its own and does not wait.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import TypeAlias

import imagecodecs
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .codecs import decode_photo
from .index import ShardIndex
from .plain import plain_size
from .ranges import RangeReader
from .workers import Workers, num_cores

Photo: TypeAlias = UInt8[Tensor, "H W 3"]

_DECODE_INTO: dict[str, Callable[..., np.ndarray]] = {
    "j2c": imagecodecs.htj2k_decode,
    "png": imagecodecs.png_decode,
    "webp": imagecodecs.webp_decode,
}
"""Lossless ones, whose pixels are beyond doubt."""


class CpuDecoder:
    """The decoder that is always there."""

    name = "cpu"

    def __init__(
        self,
        index: ShardIndex,
        reader: RangeReader,
        *,
        num_threads: int | None = None,
        pinned: bool = False,
        finish: Callable[[Photo], Photo] | None = None,
        reason: str = "it was asked for",
    ) -> None:
        """Start no more than `num_threads` threads, one a core if None.

        Args:
            index: The photographs.
            reader: Reads their bytes.
            num_threads: Decoding threads.
            pinned: Decode into pinned memory, for a copy to a CUDA device.
            finish: Applied to the pixels of each photograph, on its thread.
            reason: Why this decoder was taken.

        Raises:
            ValueError: If `num_threads` is below 1.
        """
        self.reason = reason
        self._index, self._reader, self._finish, self._pinned = index, reader, finish, pinned
        self._threads = Workers(num_cores() if num_threads is None else num_threads, "decode")
        self._cpu_seconds = 0.0
        self._lock = Lock()

    def submit(self, sample: int) -> "Future[Photo]":
        """See `PhotoDecoder.submit`."""
        return self._threads.submit(self._decode, sample)

    @property
    def cpu_seconds(self) -> float:
        """See `PhotoDecoder.cpu_seconds`."""
        return self._cpu_seconds

    def report_wait(self, share: float) -> None:
        """Do nothing: this decoder stays what it is."""

    def close(self) -> None:
        """See `PhotoDecoder.close`."""
        self._threads.close()

    def _decode(self, sample: int) -> Photo:
        begun = time.thread_time()
        try:
            data = self._index.read_bytes(sample, self._reader)
            if not self._finish:
                return decode_on_host(self._index, sample, data, pinned=self._pinned)
            photo = self._finish(decode_on_host(self._index, sample, data, pinned=False))
            return photo.pin_memory() if self._pinned else photo
        except Exception as error:
            raise with_place(error, self._index.place(sample))  # noqa: B904 (it sets the cause)
        finally:
            with self._lock:
                self._cpu_seconds += time.thread_time() - begun


def decode_on_host(index: ShardIndex, sample: int, data: bytes, *, pinned: bool) -> Photo:
    """Decode the bytes of a photograph into host memory, straight into its place if it is plain.

    Raises:
        ValueError: If it cannot be decoded or is not of the size that the index says.
    """
    extension = index.extensions[index.extension[sample]]
    if extension in _DECODE_INTO and (size := plain_size(data, extension)):
        index.check_size(sample, *size)
        photo = torch.empty((*size, 3), dtype=torch.uint8, pin_memory=pinned)
        try:
            _DECODE_INTO[extension](data, out=photo.numpy())
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"damaged .{extension} data of {len(data)} bytes: {error}") from error
        return photo
    decoded = decode_photo(data, extension)
    index.check_size(sample, decoded.shape[0], decoded.shape[1])
    photo = torch.from_numpy(decoded)
    return photo.pin_memory() if pinned else photo


def with_place(error: Exception, place: str) -> Exception:
    """Return the error with the place in its message.

    ValueError and OSError stay what they are; any other becomes a RuntimeError, which is nobody's
    damaged photograph.
    """
    if place in str(error):
        return error
    kind = next((kind for kind in (ValueError, OSError) if isinstance(error, kind)), RuntimeError)
    named = kind(f"{place}: {str(error) or type(error).__name__}")
    named.__cause__ = error
    return named
