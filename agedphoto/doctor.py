"""`agedphoto doctor`: what is here, what `auto` would take and why, and a remedy for each fault."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from agedphoto import __version__
from agedphoto.datasets import decode_photo, encode_photo
from agedphoto.datasets.codecs import CODECS
from agedphoto.datasets.memory import available_bytes
from agedphoto.machine import PACKAGES
from agedphoto.restore import shipped_models
from agedphoto.synth import find_device
from agedphoto.train.precision import bf16_is_fast

DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the examination."""

    name: str
    value: str
    remedy: str = ""
    """What to do about it; empty if nothing need be done."""
    broken: bool = False
    """Whether agedphoto cannot work as it is."""

    @property
    def mark(self) -> str:
        """How the line begins: `ok`, `--` for something absent, `XX` for a fault."""
        return "XX" if self.broken else "--" if self.remedy else "ok"


def examine() -> list[Finding]:
    """Examine this machine."""
    return [*_versions(), *_devices(), *_decoders(), *_choices(), *_surroundings()]


def _versions() -> Iterator[Finding]:
    yield Finding(name="agedphoto", value=__version__)
    yield Finding(name="python", value=f"{platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        try:
            yield Finding(name=package, value=metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(
                name=package, value="missing", remedy=f"pip install {package}", broken=True
            )


def _devices() -> Iterator[Finding]:
    cpu = torch.device("cpu")
    bf16 = "bf16 in hardware" if bf16_is_fast(cpu) else "no bf16 in hardware"
    free = available_bytes(cpu) / 2**30
    yield Finding(
        name="cpu", value=f"{os.cpu_count()} cores, {free:.1f} GiB of memory free, {bf16}"
    )
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            yield Finding(
                name=f"cuda:{number}",
                value=f"{torch.cuda.get_device_name(number)}, {free / 2**30:.1f} of "
                f"{total / 2**30:.1f} GiB free, CUDA {torch.version.cuda}",
            )
    elif torch.version.cuda is None:
        yield Finding(
            name="cuda",
            value=f"this torch ({torch.__version__}) is built without CUDA",
            remedy="with an NVIDIA GPU, install a CUDA build of torch; without one all is well",
        )
    else:
        yield Finding(
            name="cuda",
            value=f"no GPU found (torch is built for CUDA {torch.version.cuda})",
            remedy="with an NVIDIA GPU, see that `nvidia-smi` works; without one all is well",
        )
    if torch.backends.mps.is_available():
        yield Finding(name="mps", value="Apple GPU found")


def _decoders() -> Iterator[Finding]:
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for format, codec in CODECS.items():
        try:
            decoded = decode_photo(encode_photo(photo, format), codec.extension)
        except (ValueError, RuntimeError, OSError) as error:
            yield Finding(
                name=f"decode {format}",
                value=f"fails: {error}",
                remedy="pip install --force-reinstall imagecodecs",
                broken=format == "htj2k",
            )
            continue
        exact = np.array_equal(decoded, photo)
        yield Finding(
            name=f"decode {format}", value="imagecodecs, " + ("bit-exact" if exact else "lossy")
        )
    found = [name for name in DALI if _is_installed(name)]
    if found:
        yield Finding(name="dali", value=", ".join(f"{n} {metadata.version(n)}" for n in found))
    else:
        yield Finding(
            name="dali",
            value="not installed",
            remedy="only needed to decode on an NVIDIA GPU: pip install 'agedphoto[cuda13]'",
        )


def _choices() -> Iterator[Finding]:
    device = find_device("auto")
    reason = {"cuda": "a CUDA device is there", "mps": "an Apple GPU is there"}.get(
        device.type, "no GPU is there"
    )
    yield Finding(name="auto device", value=f"{device}, because {reason}")
    precision, because = (
        ("bf16", "the device does it in hardware")
        if bf16_is_fast(device)
        else ("fp32", "the device has no fast bf16")
    )
    yield Finding(name="auto precision", value=f"{precision} for training, because {because}")
    yield Finding(
        name="auto decoder",
        value=f"cpu, {os.cpu_count()} threads of imagecodecs: they take no time from the GPU",
    )
    pool = available_bytes(device) // 2
    yield Finding(
        name="auto pool",
        value=f"up to {pool / 2**30:.1f} GiB on {device}, half of what is free: about "
        f"{pool // (2040 * 1356 * 3):,} photos of 2040 x 1356 px",
    )
    models = ", ".join(shipped_models())
    yield Finding(
        name="models",
        value=models or "none come with this installation",
        remedy="" if models else "train one: agedphoto train, or agedphoto demo",
    )


def _surroundings() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding(
        name="disk",
        value=f"{free:.1f} GB free here",
        remedy="shards of DIV2K need 2.5 GB" if free < 5 else "",
    )
    for name in ("datasets", "train"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin and "agedphoto" in origin.read_text(errors="replace")[:2000]:
            yield Finding(
                name=f"import {name}",
                value=f"finds agedphoto's own folder {origin.parent}",
                remedy="export PYTHONSAFEPATH=1, or work in another folder",
            )


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
