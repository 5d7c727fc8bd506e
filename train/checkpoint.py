"""A trained network on disk: safetensors, with everything needed to use it in the metadata."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from ..datasets.files import write_bytes
from ..synth import Mode, check_mode
from .unet import UNet, UNetConfig

FORMAT = "agedphoto-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What a file of weights says of itself."""

    mode: Mode
    net: UNetConfig
    training: dict[str, Any]
    """The configuration it was trained with, and what came of it."""
    sha256: str = ""
    """Of the file; empty for a network that was not loaded from one."""


def save_model(path: Path, net: UNet, *, mode: Mode, training: dict[str, Any]) -> None:
    """Write the weights, at once or not at all."""
    weights = {
        name: weight.detach().cpu().contiguous() for name, weight in net.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "mode": mode,
        "net": json.dumps(dataclasses.asdict(net.config)),
        "training": json.dumps(training),
    }
    write_bytes(path, safetensors.torch.save(weights, metadata))


def load_model(path: Path, *, device: torch.device | None = None) -> tuple[UNet, ModelCard]:
    """Read a network; nothing is unpickled.

    Raises:
        ValueError: If the file is missing, is not one of agedphoto's, or is damaged.
    """
    if not path.is_file():
        raise ValueError(f"no such model: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} is a safetensors file, but not a model of agedphoto "
                    f"(format {metadata.get('format')!r}, expected {FORMAT!r})"
                )
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    config = json.loads(metadata["net"])
    config["widths"] = tuple(config["widths"])
    net = UNet(UNetConfig(**config))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its own description: {error}") from None
    card = ModelCard(
        mode=check_mode(metadata["mode"]),
        net=net.config,
        training=json.loads(metadata["training"]),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return net.to(device).eval(), card
