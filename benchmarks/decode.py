"""How fast photos are decoded: four formats, all decoders that can be had, K crops of each photo.

A photo is decoded from memory, whole, and K crops of 256 px are copied out of it, into memory of
the device where that is a GPU. All cores work: decoders of one photo on threads, those of batches
with as many threads of their own. Before anything is timed a decoder shows its pixels: of formats
without loss they are those that were encoded, of JPEG within a level and a half on average of what
libjpeg-turbo makes.

Processor time is the whole process's, so work on threads of a library counts too.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from agedphoto.datasets import Format, encode_photo, find_photos, read_photo

from .apart import run_apart
from .decoders import Decoder, decoders, open_decoder
from .made_up import make_photo
from .record import Record, Recorder, Spread
from .settings import Settings
from .timing import wait

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp", "htj2k")
CROPS = (1, 4, 16)
MADE_SIZE, SMALL_SIZE = (1356, 2040), (256, 384)
JPEG_SLACK = 1.5
"""Levels of 255, on average."""


def run(settings: Settings, recorder: Recorder) -> Record:
    """Encode, check and measure."""
    quick = settings.quick
    count = 4 if quick else 64 if settings.large else 24
    crop_px, runs = (64, 2) if quick else (256, 5)
    recorder.settings = {
        "photos": "given" if settings.photos else "made up", "count": count, "crop_px": crop_px,
        "runs": runs, "threads": settings.cores,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _encode(settings, count, folder)
        for decoder in decoders(settings.device):
            if decoder.why_not:
                recorder.miss("decoding", decoder.name, decoder.why_not)
                continue
            for format in FORMATS:
                if format not in decoder.formats:
                    recorder.miss("decoding", f"{decoder.name}, {format}", "it does not decode it")
                    continue
                _measure(settings, decoder, format, folder, crop_px, runs, recorder)
    return recorder.finish()


def _encode(settings: Settings, count: int, folder: Path) -> None:
    """Write every photo in every format, and what is to come out."""
    if settings.photos:
        paths = find_photos(settings.photos)
        photos = [read_photo(paths[number % len(paths)]) for number in range(count)]
    else:
        size = SMALL_SIZE if settings.quick else MADE_SIZE
        photos = [make_photo(number, size) for number in range(count)]
    jobs = [(format, number) for format in FORMATS for number in range(count)]

    def write(job: tuple[Format, int]) -> None:
        format, number = job
        (folder / f"{number:04d}.{format}").write_bytes(encode_photo(photos[number], format))

    with ThreadPoolExecutor(settings.cores) as threads:
        list(threads.map(write, jobs))
    for number, photo in enumerate(photos):
        np.save(folder / f"{number:04d}.npy", photo)


def _measure(
    settings: Settings,
    decoder: Decoder,
    format: Format,
    folder: Path,
    crop_px: int,
    runs: int,
    recorder: Recorder,
) -> None:
    arguments = (decoder, format, folder, str(settings.device), settings.cores, crop_px, runs)
    try:
        # Libraries for a GPU want it to themselves; on a CPU they can follow each other.
        found = run_apart(measure, *arguments) if settings.large else measure(*arguments)
    except Exception as error:
        recorder.fail("decoding", f"{decoder.name}, {format}", error)
        return
    for K, one in found.items():
        spread = Spread.of_rates(one["photos"], one["seconds"])
        recorder.add(
            "decoding", decoder.name, "photos/s", spread,
            more={
                "crops_per_s": spread.median * K,
                "mb_in_per_s": spread.median * one["bytes"] / one["photos"] / 1e6,
                "mb_out_per_s": spread.median * one["pixels"] / one["photos"] * 3 / 1e6,
                "cpu_s_per_1000": statistics.median(one["cpu_s"]) / one["photos"] * 1000,
            },
            format=format, K=K,
        )  # fmt: skip


def measure(
    decoder: Decoder,
    format: Format,
    folder: Path,
    device: str,
    threads: int,
    crop_px: int,
    runs: int,
) -> dict[int, dict[str, Any]]:
    """Check one decoder on one format, then time it for each K."""
    paths = sorted(folder.glob(f"*.{format}"))
    encoded = [path.read_bytes() for path in paths]
    where = torch.device(device)
    with open_decoder(decoder, where, threads) as decode:
        pixels = _check(decode, encoded, paths, format)
        found = {}
        for K in CROPS:
            rng = np.random.default_rng(0)

            def pass_over(K: int = K, rng: np.random.Generator = rng) -> None:
                decode(encoded, lambda photo: _cut(photo, K, crop_px, where, rng))

            pass_over()
            seconds, cpu_s = [], []
            for _ in range(runs):
                wait(where)
                begun, cpu_begun = time.perf_counter(), time.process_time()
                pass_over()
                wait(where)
                seconds.append(time.perf_counter() - begun)
                cpu_s.append(time.process_time() - cpu_begun)
            found[K] = {
                "photos": len(encoded), "bytes": sum(map(len, encoded)), "pixels": pixels,
                "seconds": seconds, "cpu_s": cpu_s,
            }  # fmt: skip
    return found


def _check(
    decode: Callable[..., None], encoded: list[bytes], paths: list[Path], format: Format
) -> int:
    """Raise RuntimeError unless the pixels are right; return how many there are."""
    got: list[np.ndarray] = []
    decode(encoded, lambda photo: got.append(_as_array(photo)), in_order=True)
    pixels = 0
    for photo, data, path in zip(got, encoded, paths, strict=True):
        pixels += photo.shape[0] * photo.shape[1]
        if format == "jpeg":
            wanted = imagecodecs.jpeg8_decode(data)
            apart = np.abs(photo.astype(np.int16) - wanted).mean()
            if apart > JPEG_SLACK:
                raise RuntimeError(f"{path.name} is {apart:.1f} levels off")
        elif not np.array_equal(photo, np.load(path.with_suffix(".npy"))):
            raise RuntimeError(f"{path.name} is not what was encoded")
    return pixels


def _as_array(photo: np.ndarray | Tensor) -> np.ndarray:
    return photo.cpu().numpy() if isinstance(photo, Tensor) else np.array(photo)


def _cut(
    photo: np.ndarray | Tensor,
    count: int,
    side_px: int,
    device: torch.device,
    rng: np.random.Generator,
) -> Tensor:
    """Copy crops out of a photo, to the device."""
    pixels = photo if isinstance(photo, Tensor) else torch.from_numpy(photo)
    H, W, _ = pixels.shape
    out = torch.empty((count, side_px, side_px, 3), dtype=torch.uint8, device=pixels.device)
    # Of one generator on several threads any numbers will do.
    for crop in out:
        top, left = int(rng.random() * (H - side_px + 1)), int(rng.random() * (W - side_px + 1))
        crop.copy_(pixels[top : top + side_px, left : left + side_px])
    return out.to(device, non_blocking=True)
