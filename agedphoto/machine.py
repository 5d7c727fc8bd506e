"""What this machine is and what is installed on it, as plain data for reports."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from agedphoto.datasets.memory import available_bytes

PACKAGES = (
    "torch", "torchvision", "kornia", "webdataset", "imagecodecs", "safetensors", "fsspec",
    "aiohttp", "braceexpand", "jaxtyping", "numpy", "orjson", "pillow", "requests",
    "scikit-image", "tensorboard", "tifffile", "torchmetrics", "tqdm", "tyro", "urllib3",
)  # fmt: skip
"""What agedphoto cannot do without."""


def hardware(device: torch.device) -> dict[str, Any]:
    """Return the device by kind and name, the host's cores, and its free memory in GiB."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": str(device),
        "name": name,
        "cores": os.cpu_count(),
        "memory_gib": round(available_bytes(torch.device("cpu")) / 2**30, 1),
    }


def _processor() -> str:
    """The processor's own name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python and of what agedphoto builds on."""
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
    }
