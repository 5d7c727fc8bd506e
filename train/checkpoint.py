"""A trained network on disk: safetensors, with everything needed to use it in the metadata."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from ..datasets.files import write_bytes
from ..synth import Mode, check_mode
from .colornet import ColorNet, ColorNetConfig
from .lab import LabNet
from .unet import UNet, UNetConfig

FORMAT = "agedphoto-1"

Net: TypeAlias = UNet | LabNet


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What a file of weights says of itself."""

    mode: Mode
    net: dict[str, Any]
    """Shape of the network; for lab those of `color` and `luminance`, which may be None."""
    training: dict[str, Any]
    """The configuration it was trained with, and what came of it."""
    sha256: str = ""
    """Of the file; empty for a network that was not loaded from one."""


def save_model(
    path: Path,
    net: Net,
    *,
    mode: Mode,
    training: dict[str, Any],
    stored: torch.dtype = torch.float32,
) -> None:
    """Write the weights, at once or not at all.

    Args:
        path: File to write.
        net: What to write.
        mode: What it sees and answers.
        training: The configuration it was trained with, and what came of it.
        stored: Type of the weights in the file; a network that is read computes in float32 again.
            Buffers, such as running means, stay as they are.

    Raises:
        ValueError: If a weight is too large for that type.
    """
    trained = {name for name, _ in net.named_parameters()}
    weights = {}
    for name, weight in net.state_dict().items():
        weight = weight.detach().cpu().contiguous()
        if name in trained:
            rounded = weight.to(stored)
            if not torch.equal(rounded.isfinite(), weight.isfinite()):
                raise ValueError(f"{name} has weights too large for {stored}; store them wider")
            weight = rounded
        weights[name] = weight
    metadata = {
        "format": FORMAT,
        "mode": mode,
        "net": json.dumps(net_shape(net)),
        "training": json.dumps(training),
    }
    write_bytes(path, _in_order(safetensors.torch.save(weights, metadata)))


def load_model(path: Path, *, device: torch.device | None = None) -> tuple[Net, ModelCard]:
    """Read a network; nothing is unpickled, and nothing drawn at random.

    It is a `LabNet` for mode lab, a `UNet` for the others.

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
        mode, training = check_mode(metadata["mode"]), json.loads(metadata["training"])
        shape = json.loads(metadata["net"])
        net = _make_net(shape, mode)
        # Weights of the file become those of the network, which has had none so far.
        net.load_state_dict(
            {
                name: weight.float() if weight.is_floating_point() else weight
                for name, weight in weights.items()
            },
            assign=True,
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit its own description: {error}") from error
    card = ModelCard(
        mode=mode,
        net=shape,
        training=training,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return net.to(device).eval(), card


def net_shape(net: Net) -> dict[str, Any]:
    """Return what a network of the same shape is made from, as plain data."""
    if isinstance(net, UNet):
        return dataclasses.asdict(net.config)
    return {
        "color": dataclasses.asdict(net.color.config),
        "luminance": dataclasses.asdict(net.luminance.config) if net.luminance else None,
    }


def _in_order(file: bytes) -> bytes:
    """Return a safetensors file with its header sorted: the same network, the same bytes.

    The library writes the metadata in the order of a hash table that is seeded anew each time.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    # The data that follow stay aligned.
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def _make_net(shape: dict[str, Any], mode: Mode) -> Net:
    """Make the network without memory for its weights: a description may claim any size."""
    with torch.device("meta"):
        if mode != "lab":
            return UNet(UNetConfig(**_with_tuples(shape)))
        luminance = shape["luminance"]
        return LabNet(
            ColorNet(ColorNetConfig(**_with_tuples(shape["color"]))),
            UNet(UNetConfig(**_with_tuples(luminance))) if luminance else None,
        )


def _with_tuples(shape: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON did: it knows lists only."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in shape.items()
    }
