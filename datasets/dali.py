"""Decoding with NVIDIA DALI: JPEG and HTJ2K on the GPU, PNG and WebP on DALI's own CPU threads.

    threads read bytes --> what is ready becomes a batch --> DALI --> copied to torch memory

Bytes are fed in, so the order of samples stays ours, and DALI sees plain photographs only (see
`plain`); all others are decoded on the reading threads as `decode_photo` does it. That is also the
judge of a photograph that DALI refuses, so which photographs are bad does not depend on the
decoder. Without loss the pixels are those of the CPU; JPEG may differ by the rounding of its
transform.

A GPU decode still takes CPU time, for entropy decoding and for handing over: it is counted, and the
threads are few unless asked otherwise.
"""

import atexit
import importlib
import importlib.util
import os
import re
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock, Semaphore
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from .cpu import Photo, decode_on_host, with_place
from .cputime import LibraryClock
from .index import ShardIndex
from .plain import plain_size
from .ranges import RangeReader
from .workers import EXIT_PATIENCE_S, Workers, num_cores

OLDEST_DALI = (2, 2)
"""The first whose decoders are nvImageCodec's."""

DALI_THREADS = 4
"""Threads of a pipeline unless asked otherwise: more of them is what eats the CPU."""

NUM_READERS = 8
"""Reading threads; they mostly wait."""

MOST_REFUSED = 64
"""If DALI has refused so many good photographs and decoded none, the fault is its own."""

_ENCODED = "encoded"
_BUILDING = Lock()
"""The environment is changed meanwhile: one at a time."""


def dali_problem(device: torch.device) -> str | None:
    """Say why DALI cannot decode for a device here, and what to do; None if it can."""
    if device.type not in ("cuda", "cpu"):
        return f"DALI decodes for cuda and cpu, not for {device.type}; use decoder='cpu'"
    if device.type == "cuda" and get_worker_info() is not None:
        return (
            "this is a worker process of a DataLoader, where the GPU cannot decode; use "
            "num_workers=0, the threads are ours, or decoder='cpu'"
        )
    if not sys.platform.startswith("linux"):
        return "DALI is made for Linux only; use decoder='cpu'"
    extra = "cuda12" if (torch.version.cuda or "").startswith("12.") else "cuda13"
    remedy = f"pip install 'agedphoto[{extra}]'"
    try:
        if importlib.util.find_spec("nvidia.dali") is None:
            return f"DALI is not installed; {remedy}"
    except (ImportError, ValueError):
        return f"DALI is not installed; {remedy}"
    try:
        version = importlib.import_module("nvidia.dali").__version__
    except Exception as error:
        # Libraries that are missing or of another CUDA: ImportError, OSError, RuntimeError.
        return f"DALI cannot be imported ({type(error).__name__}: {error}); {remedy}"
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_DALI:
        oldest = ".".join(map(str, OLDEST_DALI))
        return f"DALI {version} is too old, {oldest} is needed; pip install -U 'agedphoto[{extra}]'"
    if device.type == "cuda":
        if torch.version.cuda is None:
            return "this torch is built without CUDA; install one with it, or use decoder='cpu'"
        if not torch.cuda.is_available():
            return "torch sees no GPU; see that nvidia-smi lists one, or use decoder='cpu'"
    return None


@dataclass(frozen=True, slots=True)
class _Job:
    """A photograph that was read and waits for DALI."""

    sample: int
    data: bytes
    future: "Future[Photo]"


class DaliDecoder:
    """A reading pool, and one thread that runs one DALI pipeline."""

    name = "dali"

    def __init__(
        self,
        index: ShardIndex,
        reader: RangeReader,
        *,
        device: torch.device,
        num_threads: int | None = None,
        batch_photos: int = 16,
        finish: Callable[[Photo], Photo] | None = None,
        hw_decoder_load: float = 0.65,
        reason: str = "it was asked for",
    ) -> None:
        """Import DALI and build the pipeline.

        Args:
            index: The photographs.
            reader: Reads their bytes.
            device: cuda, where pixels stay on the device, or cpu.
            num_threads: DALI's threads; None is 4, or less where there are fewer cores.
            batch_photos: Photographs decoded at a time, at most; fewer if no more are ready.
            finish: Applied to the pixels of each photograph, where they lie.
            hw_decoder_load: Share of JPEG left to the GPU's fixed-function engine, 0 to 1; the
                more threads, the lower it should be.
            reason: Why this decoder was taken.

        Raises:
            ValueError: If DALI cannot be used here, see `dali_problem`, or an argument is out of
                range.
            RuntimeError: If DALI fails to start, as with a driver too old for it.
        """
        if problem := dali_problem(device):
            raise ValueError(f"cannot decode with DALI: {problem}")
        if batch_photos < 1:
            raise ValueError(f"batch_photos must be at least 1, got {batch_photos}")
        if not 0 <= hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load must be 0 to 1, got {hw_decoder_load}")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.reason = reason
        self.num_on_host = 0
        """Photographs that DALI was not given, or could not do, and the CPU did."""
        self._index, self._reader, self._finish = index, reader, finish
        self._batch_photos = batch_photos
        self._pid = os.getpid()
        self._lock = Lock()
        self._cpu_seconds = 0.0
        self._num_decoded = self._num_refused = 0
        self._ready: deque[_Job] = deque()
        # Bytes that wait for DALI are bounded, however much is asked for ahead.
        self._room = Semaphore(2 * batch_photos)
        self._closed = False
        self._pipeline = _Pipeline(
            device=device,
            num_threads=min(DALI_THREADS, num_cores()) if num_threads is None else num_threads,
            batch_photos=batch_photos,
            hw_decoder_load=hw_decoder_load,
        )
        self._runner = Workers(1, "dali")
        self._readers = Workers(NUM_READERS, "read")
        # DALI shuts all pipelines down when the interpreter ends. What is registered after it was
        # imported comes before that, and not in the midst of a batch.
        self._at_exit = partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)
        weakref.finalize(self, atexit.unregister, self._at_exit)

    def submit(self, sample: int) -> "Future[Photo]":
        """See `PhotoDecoder.submit`."""
        if self._pid != os.getpid():
            raise RuntimeError(
                "this decoder was made in another process; DALI does not survive a fork, make the "
                "decoder in the process that uses it"
            )
        future: Future[Photo] = Future()
        reading = self._readers.submit(self._read, sample, future)
        reading.add_done_callback(lambda done: done.cancelled() and future.cancel())
        return future

    @property
    def cpu_seconds(self) -> float:
        """See `PhotoDecoder.cpu_seconds`.

        Of our threads, and of DALI's with all that they start. What the driver does on threads of
        its own is not in it.
        """
        return self._cpu_seconds + self._pipeline.cpu_seconds

    def report_wait(self, share: float) -> None:
        """Do nothing: this decoder stays what it is."""

    def close(self) -> None:
        """See `PhotoDecoder.close`."""
        self._end(None)
        atexit.unregister(self._at_exit)

    def _end(self, patience_s: float | None) -> None:
        if self._pid != os.getpid():
            return
        self._closed = True
        for _ in range(NUM_READERS):
            self._room.release()
        self._readers.close(patience_s)
        self._runner.close(patience_s)
        with suppress(IndexError):
            while True:
                future = self._ready.popleft().future
                if not future.done():
                    future.set_exception(CancelledError())
        self._pipeline.close()

    def _read(self, sample: int, future: "Future[Photo]") -> None:
        """Read a photograph, and hand it to DALI or decode it here."""
        if not future.set_running_or_notify_cancel():
            return
        begun = time.thread_time()
        self._room.acquire()
        is_waiting = False
        try:
            if self._closed:
                raise CancelledError
            data = self._index.read_bytes(sample, self._reader)
            size = plain_size(data, self._index.extensions[self._index.extension[sample]])
            if size:
                self._index.check_size(sample, *size)
                self._ready.append(_Job(sample, data, future))
                is_waiting = True
                self._runner.submit(self._run_ready)
            else:
                self._decode_on_host(sample, data, future)
        except CancelledError as error:
            future.set_exception(error)
        except Exception as error:
            future.set_exception(with_place(error, self._index.place(sample)))
        finally:
            if not is_waiting:
                self._room.release()
            self._count(time.thread_time() - begun)

    def _run_ready(self) -> None:
        """Decode what is ready, up to a batch; whoever comes later finds nothing left to do."""
        begun = time.thread_time()
        jobs: list[_Job] = []
        with suppress(IndexError):
            while len(jobs) < self._batch_photos:
                jobs.append(self._ready.popleft())
        for _ in jobs:
            self._room.release()
        if jobs:
            self._decode(jobs)
        self._count(time.thread_time() - begun)

    def _decode(self, jobs: Sequence[_Job]) -> None:
        try:
            photos = self._pipeline.run([job.data for job in jobs], self._finish)
        except Exception as error:
            # Not the error itself: its frames keep the pipeline, with all its threads and memory.
            fault, is_systemic = _reason(error), _is_of_the_device(error)
        else:
            self._num_decoded += len(jobs)
            for job, photo in zip(jobs, photos, strict=True):
                job.future.set_result(photo)
            return
        is_systemic |= not self._num_decoded and self._num_refused >= MOST_REFUSED
        if len(jobs) > 1 and not is_systemic:
            # One bad photograph fails the batch: find out which.
            for job in jobs:
                self._decode([job])
            return
        for job in jobs:
            try:
                if is_systemic:
                    raise RuntimeError(f"DALI fails: {fault}; use decoder='cpu'")
                self._decode_on_host(job.sample, job.data, job.future)
                self._num_refused += 1
            except Exception as error:
                job.future.set_exception(with_place(error, self._index.place(job.sample)))

    def _decode_on_host(self, sample: int, data: bytes, future: "Future[Photo]") -> None:
        pinned = self._pipeline.device.type == "cuda"
        photo = decode_on_host(self._index, sample, data, pinned=pinned)
        finished = self._finish(photo) if self._finish else photo
        with self._lock:
            self.num_on_host += 1
        future.set_result(finished)

    def _count(self, seconds: float) -> None:
        with self._lock:
            self._cpu_seconds += seconds


def _close_at_exit(decoder: "weakref.ref[DaliDecoder]") -> None:
    if alive := decoder():
        alive._end(EXIT_PATIENCE_S)


class _Pipeline:
    """One DALI pipeline from bytes to pixels, built again after an error; for one thread."""

    def __init__(
        self, *, device: torch.device, num_threads: int, batch_photos: int, hw_decoder_load: float
    ) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self._num_threads, self._batch_photos = num_threads, batch_photos
        self._hw_decoder_load = hw_decoder_load
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._clock = LibraryClock("[DALI]")
        self._pipeline = self._build()

    def run(self, encoded: Sequence[bytes], finish: Callable[[Photo], Photo] | None) -> list[Photo]:
        """Decode a batch; the pixels are there when it returns.

        Raises:
            Exception: Whatever DALI raises, for all photographs if one of them is bad.
        """
        self._pipeline = self._pipeline or self._build()
        try:
            buffers = [np.frombuffer(data, np.uint8) for data in encoded]
            self._pipeline.feed_input(_ENCODED, buffers)
            # Without a stream of ours it returns when all is decoded, the engines for JPEG, which
            # heed no stream order, included.
            with self._clock.running():
                (batch,) = self._pipeline.run()
            pictures = [batch[number] for number in range(len(encoded))]
        except Exception:
            # "Current pipeline object is no longer valid."
            self.close()
            raise
        if self._stream is None:
            photos = [torch.from_numpy(np.array(picture)) for picture in pictures]
            return [finish(photo) for photo in photos] if finish else photos
        from nvidia.dali.plugin.pytorch import feed_ndarray

        with torch.cuda.stream(self._stream):
            photos: list[Photo] = []
            for picture in pictures:
                photo = torch.empty(picture.shape(), dtype=torch.uint8, device=self.device)
                feed_ndarray(picture, photo, cuda_stream=self._stream)
                photos.append(finish(photo) if finish else photo)
        # DALI may write over its own memory from here on, and any stream may read ours.
        self._stream.synchronize()
        return photos

    @property
    def cpu_seconds(self) -> float:
        """Processor time of DALI's threads so far."""
        return self._clock.seconds

    def close(self) -> None:
        """Drop the pipeline; its threads end."""
        self._pipeline = None

    def _build(self) -> Any:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline

        is_cuda = self.device.type == "cuda"
        with _BUILDING, _quiet_opencv():
            pipeline = Pipeline(
                batch_size=self._batch_photos,
                num_threads=self._num_threads,
                device_id=self.device.index if is_cuda else None,
                prefetch_queue_depth=1,
            )
            with pipeline:
                encoded = fn.external_source(name=_ENCODED, dtype=types.DALIDataType.UINT8, ndim=1)
                options: dict[str, Any] = {}
                if is_cuda:
                    # Every rank of a machine would tie its threads to the same first cores.
                    options = {"affine": False, "hw_decoder_load": self._hw_decoder_load}
                picture = fn.decoders.image(
                    encoded,
                    device="mixed" if is_cuda else "cpu",
                    output_type=types.DALIImageType.RGB,
                    # Only those that need no turning come here.
                    adjust_orientation=False,
                    jpeg_fancy_upsampling=True,
                    **options,
                )
                pipeline.set_outputs(picture)
            pipeline.build()
        return pipeline


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep the OpenCV inside DALI from writing to stderr, unless the user has set what it writes.

    It warns of every codestream without a colour space, which is all of ours. It reads the level
    once, when a pipeline loads it; other copies of OpenCV do not see it.
    """
    name = "OPENCV_LOG_LEVEL"
    if name in os.environ:
        yield
        return
    os.environ[name] = "SILENT"
    try:
        yield
    finally:
        del os.environ[name]


def _is_of_the_device(error: Exception) -> bool:
    """Whether it is no photograph's fault."""
    return bool(
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or re.search(r"CUDA (runtime|driver|error)|cudaError|CUDA_ERROR", str(error))
    )


def _reason(error: Exception) -> str:
    """The telling line of a message of DALI's, which is one of many."""
    told = str(error).partition("encountered:")[2] or str(error)
    lines = [line.strip() for line in told.splitlines()]
    return next((line for line in lines if line and "pipeline" not in line), str(error))
