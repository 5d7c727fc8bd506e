"""Which of the others are installed, in which version, or why they cannot be used."""

import importlib
import os
import warnings
from importlib import metadata
from types import ModuleType

PEERS = {
    "kornia": "kornia",
    "torchvision": "torchvision",
    "torchcodec": "torchcodec",
    "albumentations": "albumentations",
    "webdataset": "webdataset",
    "nvidia.dali": "nvidia-dali-cuda130",
    "nvidia.nvimgcodec": "nvidia-nvimgcodec-cu13",
    "litdata": "litdata",
    "streaming": "mosaicml-streaming",
    "matplotlib": "matplotlib",
    "psutil": "psutil",
}
"""Module and the distribution that it comes in."""

_OTHER_NAMES = {
    "nvidia-dali-cuda130": "nvidia-dali-cuda120",
    "nvidia-nvimgcodec-cu13": "nvidia-nvimgcodec-cu12",
}


def peer_versions() -> dict[str, str | None]:
    """Return the version of each peer, None if it is absent; nothing is imported."""
    return {module: _version(package) for module, package in PEERS.items()}


def why_absent(module: str) -> str | None:
    """Say why a peer cannot be used here, and what to do; None if it can."""
    package = PEERS[module]
    version = _version(package)
    if version is None:
        return f"{package} is not installed; pip install {package}"
    if module == "albumentations" and not version.startswith("2.0."):
        return f"albumentations {version} is not of the MIT-licensed 2.0 line; install 2.0.8"
    try:
        load(module)
    except Exception as error:
        # Libraries that are missing or of another CUDA: ImportError, OSError, RuntimeError.
        return f"{package} cannot be imported ({type(error).__name__}: {error})"
    return None


def load(module: str) -> ModuleType:
    """Import a peer, without its news and warnings."""
    # It asks the network for newer versions of itself.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def _version(package: str) -> str | None:
    for name in (package, _OTHER_NAMES.get(package)):
        try:
            if name:
                return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
