"""Decoders of photos by the libraries there are, all called alike.

`open_decoder` gives a function that takes encoded photos and what is to be done with each: uint8
(H, W, 3), as an array or a tensor, on the host or on the device.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
import torch

from agedphoto.datasets.dali import dali_problem

from .ladder import read_pillow, read_torchvision
from .peers import load, why_absent

Kind = Literal["pillow", "imagecodecs", "torchvision", "torchcodec", "dali", "nvimgcodec"]
Use = Callable[[Any], Any]
BATCH = 16
"""Photos of a batch, for those that decode batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder:
    """One way to decode; plain data, to be sent to a process of its own."""

    name: str
    kind: Kind
    formats: tuple[str, ...]
    device: Literal["cpu", "cuda"] = "cpu"
    why_not: str | None = None


def decoders(device: torch.device) -> list[Decoder]:
    """Return all of them, those that cannot be had here with the reason."""
    no_gpu = None if device.type == "cuda" else "it needs a CUDA device"
    everything, usual = ("png", "jpeg", "webp", "htj2k"), ("png", "jpeg", "webp")
    cuda = torch.device("cuda")
    return [
        Decoder(name="Pillow", kind="pillow", formats=everything),
        Decoder(name="imagecodecs", kind="imagecodecs", formats=everything),
        Decoder(
            name="torchvision", kind="torchvision", formats=usual, why_not=why_absent("torchvision")
        ),
        Decoder(
            name="TorchCodec", kind="torchcodec", formats=usual, why_not=why_absent("torchcodec")
        ),
        Decoder(
            name="DALI, cpu", kind="dali", formats=everything,
            why_not=dali_problem(torch.device("cpu")),
        ),
        Decoder(
            name="DALI, mixed", kind="dali", formats=everything, device="cuda",
            why_not=no_gpu or dali_problem(cuda),
        ),
        Decoder(
            name="nvImageCodec", kind="nvimgcodec", formats=everything, device="cuda",
            why_not=no_gpu or why_absent("nvidia.nvimgcodec"),
        ),
    ]  # fmt: skip


@contextmanager
def open_decoder(
    decoder: Decoder, device: torch.device, threads: int
) -> Iterator[Callable[..., None]]:
    """Make a decoder ready: `decode(photos, use, in_order=False)`."""
    if decoder.kind in _ONE_BY_ONE:
        one = _ONE_BY_ONE[decoder.kind]
        with ThreadPoolExecutor(threads) as pool:

            def decode(photos: Sequence[bytes], use: Use, *, in_order: bool = False) -> None:
                if in_order:
                    for photo in pool.map(one, photos):
                        use(photo)
                else:
                    list(pool.map(lambda data: use(one(data)), photos))

            yield decode
        return
    batch = (_dali if decoder.kind == "dali" else _nvimgcodec)(decoder, device, threads)

    def decode_batches(photos: Sequence[bytes], use: Use, *, in_order: bool = False) -> None:
        for first in range(0, len(photos), BATCH):
            for photo in batch(photos[first : first + BATCH]):
                use(photo)

    yield decode_batches


def _imagecodecs(data: bytes) -> np.ndarray:
    if data.startswith(b"\xff\x4f\xff\x51"):
        return imagecodecs.htj2k_decode(data)
    if data.startswith(b"\x89PNG"):
        return imagecodecs.png_decode(data)
    if data.startswith(b"RIFF"):
        return imagecodecs.webp_decode(data)
    return imagecodecs.jpeg8_decode(data)


def _torchcodec(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchcodec.decoders import decode_image  # pyright: ignore[reportMissingImports]
    return decode_image(data, mode="RGB").permute(1, 2, 0).numpy()


_ONE_BY_ONE: dict[str, Callable[[bytes], np.ndarray]] = {
    "pillow": read_pillow,
    "imagecodecs": _imagecodecs,
    "torchvision": read_torchvision,
    "torchcodec": _torchcodec,
}


def _dali(
    decoder: Decoder, device: torch.device, threads: int
) -> Callable[[Sequence[bytes]], list[Any]]:
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline
    from nvidia.dali.types import DALIDataType, DALIImageType

    is_cuda = decoder.device == "cuda"
    pipeline = Pipeline(
        batch_size=BATCH, num_threads=threads, prefetch_queue_depth=1, exec_async=False,
        exec_pipelined=False, device_id=(device.index or 0) if is_cuda else None,
    )  # fmt: skip
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1, no_copy=True)
        photos: Any = fn.decoders.image(
            encoded, device="mixed" if is_cuda else "cpu", output_type=DALIImageType.RGB,
            # The pixels of libjpeg-turbo.
            jpeg_fancy_upsampling=True,
        )  # fmt: skip
        pipeline.set_outputs(photos)
    pipeline.build()

    def batch(photos: Sequence[bytes]) -> list[Any]:
        pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data in photos])
        (done,) = pipeline.run()
        if not is_cuda:
            # Views: the next run overwrites them.
            return [np.asarray(done[number]) for number in range(len(photos))]
        from nvidia.dali.plugin.pytorch import feed_ndarray

        pictures = []
        for number in range(len(photos)):
            picture = torch.empty(done[number].shape(), dtype=torch.uint8, device=device)
            feed_ndarray(done[number], picture, cuda_stream=torch.cuda.current_stream(device))
            pictures.append(picture)
        return pictures

    return batch


def _nvimgcodec(
    decoder: Decoder, device: torch.device, threads: int
) -> Callable[[Sequence[bytes]], list[Any]]:
    nvimgcodec = load("nvidia.nvimgcodec")
    opened = nvimgcodec.Decoder(device_id=device.index or 0, max_num_cpu_threads=threads)

    def batch(photos: Sequence[bytes]) -> list[Any]:
        done = opened.decode([np.frombuffer(data, np.uint8) for data in photos])
        if any(photo is None for photo in done):
            raise RuntimeError("nvImageCodec did not decode all photos")
        return [torch.as_tensor(photo, device=device) for photo in done]

    return batch
