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
    """Read a network; nothing is unpickled, and nothing drawn at random.

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
    try:
        net = _net(json.loads(metadata["net"]))
        mode, training = check_mode(metadata["mode"]), json.loads(metadata["training"])
        # Weights of the file become those of the network, which has had none so far.
        net.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit its own description: {error}") from error
    card = ModelCard(
        mode=mode,
        net=net.config,
        training=training,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return net.to(device).eval(), card


def _net(config: dict[str, Any]) -> UNet:
    """Make the network without memory for its weights: a description may claim any size."""
    with torch.device("meta"):
        return UNet(UNetConfig(**{**config, "widths": tuple(config["widths"])}))
