"""Decoders: photographs of an index, read and decoded on threads ahead of time.

A decoder takes numbers of photographs and answers with futures, so who wants pixels never cares
where they are made. `cpu` decodes on threads, `dali` on the GPU; `auto` is judged by the trainer:
CPU threads take nothing from the GPU, so they come first, and DALI when training has to wait.
"""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
import torch
from torch.utils.data import get_worker_info

from .cpu import CpuDecoder, Photo
from .dali import DaliDecoder, dali_problem
from .index import ShardIndex
from .ranges import RangeReader
from .workers import Workers

DecoderName: TypeAlias = Literal["auto", "cpu", "dali"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

WAIT_LIMIT = 0.02
"""Share of time that training may wait for photographs before more is done about it."""

PATIENCE_REPORTS = 2
"""Reports in a row above the limit that it takes."""


class PhotoDecoder(Protocol):
    """What the pool asks of a decoder."""

    def submit(self, sample: int) -> "Future[Photo]":
        """Begin to read and decode a photograph; the future holds its pixels.

        They lie on the host or on the device, wherever they were decoded. Those on a device are
        complete, for every stream; who uses them on another stream than the one they are freed on
        tells PyTorch by `record_stream`.

        The future raises ValueError for a damaged photograph, OSError for one that cannot be read,
        and RuntimeError if it is not the photograph's fault; all messages name shard and key.

        Raises:
            RuntimeError: If the decoder is closed.
        """
        ...

    @property
    def name(self) -> str:
        """The decoder that new photographs go to: cpu or dali."""
        ...

    @property
    def reason(self) -> str:
        """Why that one, in words to show."""
        ...

    @property
    def cpu_seconds(self) -> float:
        """Processor time that reading and decoding have taken so far."""
        ...

    def report_wait(self, share: float) -> None:
        """Tell which share of the time since the last report training has waited, 0 to 1."""
        ...

    def close(self) -> None:
        """End all threads; what has not begun is cancelled. A second time it does nothing."""
        ...


class AutoDecoder:
    """One decoder, and from some moment on another with the same pixels; never back."""

    def __init__(self, first: PhotoDecoder, make_second: Callable[[str], PhotoDecoder]) -> None:
        """Begin with the first.

        Args:
            first: Takes all photographs until training waits.
            make_second: Makes the other decoder, given its reason. It is called on a thread, as to
                make it may take seconds; until it is there the first goes on.
        """
        self._current, self._make_second = first, make_second
        self._decoders = [first]
        self._reason = first.reason
        self._num_high = 0
        self._making: Future[None] | None = None
        self._maker = Workers(1, "make-decoder")
        self._lock = Lock()

    @property
    def name(self) -> str:
        """See `PhotoDecoder.name`."""
        return self._current.name

    @property
    def reason(self) -> str:
        """See `PhotoDecoder.reason`."""
        return self._reason

    @property
    def cpu_seconds(self) -> float:
        """See `PhotoDecoder.cpu_seconds`."""
        return sum(decoder.cpu_seconds for decoder in list(self._decoders))

    def submit(self, sample: int) -> "Future[Photo]":
        """See `PhotoDecoder.submit`."""
        return self._current.submit(sample)

    def report_wait(self, share: float) -> None:
        """See `PhotoDecoder.report_wait`; it takes several in a row above the limit."""
        self._num_high = self._num_high + 1 if share > WAIT_LIMIT else 0
        with self._lock:
            if self._num_high < PATIENCE_REPORTS or self._making or self._maker.closed:
                return
            reason = f"training waited {share:.1%} of the time for the {self._current.name} decoder"
            self._making = self._maker.submit(self._switch, reason)

    def close(self) -> None:
        """See `PhotoDecoder.close`."""
        self._maker.close()
        for decoder in self._decoders:
            decoder.close()

    def _switch(self, reason: str) -> None:
        try:
            second = self._make_second(reason)
        except Exception as error:
            # On a thread of its own nobody would ever hear of it.
            self._reason = f"{reason}, but there is no other: {error}"
            return
        self._decoders.append(second)
        self._current, self._reason = second, second.reason


def find_decoder(
    name: DecoderName = "auto",
    *,
    index: ShardIndex,
    reader: RangeReader,
    device: torch.device,
    num_threads: int | None = None,
    finish: Callable[[Photo], Photo] | None = None,
) -> PhotoDecoder:
    """Make the decoder of that name, or the one that suits device and photographs.

    On CUDA, `auto` takes DALI for JPEG, where the GPU has an engine of its own; which is settled at
    the start, as the pixels of JPEG depend on the decoder. Other photographs begin on CPU threads
    and go over to DALI when training waits for them, if most are HTJ2K and none is JPEG: DALI
    decodes nothing else on the GPU.

    Args:
        name: auto, cpu or dali.
        index: The photographs.
        reader: Reads their bytes.
        device: Where the pixels are wanted.
        num_threads: Decoding threads; None is one a core on the CPU, and four for DALI.
        finish: Applied to the pixels of each photograph, where they were decoded.

    Raises:
        ValueError: If the name is unknown, or DALI was asked for and cannot be used here; the
            message says why and what to do.
    """
    if name not in DECODERS:
        raise ValueError(f"unknown decoder {name!r}; there are: {', '.join(DECODERS)}")

    def cpu(reason: str) -> CpuDecoder:
        return CpuDecoder(
            index,
            reader,
            num_threads=num_threads,
            # A forked worker of a DataLoader must not touch CUDA, not even to pin memory.
            pinned=device.type == "cuda" and get_worker_info() is None,
            finish=finish,
            reason=reason,
        )

    def dali(reason: str) -> DaliDecoder:
        return DaliDecoder(
            index, reader, device=device, num_threads=num_threads, finish=finish, reason=reason
        )

    if name == "cpu":
        return cpu("it was asked for")
    if name == "dali":
        if problem := dali_problem(device):
            raise ValueError(f"decoder 'dali' cannot be used here: {problem}")
        try:
            return dali("it was asked for")
        except RuntimeError as error:
            raise ValueError(
                f"decoder 'dali' does not start: {error}; update the GPU's driver, or use "
                "decoder='cpu'"
            ) from error
    if device.type != "cuda":
        return cpu(f"on {device.type} the threads of the CPU decode")
    jpeg, htj2k = _share_of(index, ("jpg", "jpeg")), _share_of(index, ("j2c",))
    if jpeg > 0.5:
        if problem := dali_problem(device):
            return cpu(f"{jpeg:.0%} of the photographs are JPEG, but {problem}")
        try:
            return dali(f"{jpeg:.0%} of the photographs are JPEG, which the GPU decodes")
        except RuntimeError as error:
            return cpu(f"{jpeg:.0%} of the photographs are JPEG, but DALI does not start: {error}")
    if jpeg:
        return cpu(f"{jpeg:.0%} of the photographs are JPEG: one decoder from start to end")
    if htj2k <= 0.5:
        return cpu(f"{htj2k:.0%} of the photographs are HTJ2K, the GPU decodes no others of these")
    if finish is not None:
        return cpu("photographs are shrunk as they are decoded, and the GPU would round otherwise")
    if problem := dali_problem(device):
        return cpu(f"CPU threads come first, and there is no other: {problem}")
    return AutoDecoder(cpu("CPU threads leave the GPU to training"), dali)


def _share_of(index: ShardIndex, extensions: tuple[str, ...]) -> float:
    """Share of the photographs that have one of the extensions."""
    wanted = np.array([extension in extensions for extension in index.extensions], dtype=bool)
    return float(wanted[index.extension].mean()) if len(index) else 0.0
