"""Decoders: photographs of an index, read and decoded on threads ahead of time.

A decoder takes numbers of photographs and answers with futures, so who wants pixels never cares
where they are made.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Protocol, TypeAlias

import torch
from jaxtyping import UInt8
from torch import Tensor

from .index import ShardIndex
from .ranges import RangeReader

Photo: TypeAlias = UInt8[Tensor, "H W 3"]


class PhotoDecoder(Protocol):
    """What the pool asks of a decoder."""

    def submit(self, sample: int) -> "Future[Photo]":
        """Begin to read and decode a photograph; the future holds its pixels.

        They lie on the host or on the device, wherever they were decoded. The future raises
        ValueError for a damaged photograph and OSError for one that cannot be read; both messages
        name shard and key.
        """
        ...

    @property
    def cpu_seconds(self) -> float:
        """Processor time that reading and decoding have taken so far."""
        ...

    def close(self) -> None:
        """End all threads; what has not begun is cancelled."""
        ...


class CpuDecoder:
    """imagecodecs on threads: it lets go of the interpreter while it decodes."""

    def __init__(
        self,
        index: ShardIndex,
        reader: RangeReader,
        *,
        num_threads: int | None = None,
        finish: Callable[[Photo], Photo] | None = None,
    ) -> None:
        """Start no more than `num_threads` threads, one a core if None.

        Args:
            index: The photographs.
            reader: Reads their bytes.
            num_threads: Decoding threads.
            finish: Applied to the pixels of each photograph, on its thread.
        """
        self._index, self._reader, self._finish = index, reader, finish
        self._threads = ThreadPoolExecutor(num_threads or os.cpu_count() or 1, "decode")
        self._cpu_seconds = 0.0
        self._lock = Lock()

    def submit(self, sample: int) -> "Future[Photo]":
        """See `PhotoDecoder.submit`."""
        return self._threads.submit(self._decode, sample)

    @property
    def cpu_seconds(self) -> float:
        """See `PhotoDecoder.cpu_seconds`."""
        return self._cpu_seconds

    def close(self) -> None:
        """See `PhotoDecoder.close`."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _decode(self, sample: int) -> Photo:
        begun = time.thread_time()
        try:
            photo = torch.from_numpy(self._index.read(sample, self._reader))
            return self._finish(photo) if self._finish else photo
        finally:
            with self._lock:
                self._cpu_seconds += time.thread_time() - begun
