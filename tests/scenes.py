"""A scene to try a defect in."""

import torch
from torch import Tensor

from agedphoto.synth import Scene
from agedphoto.textures import TextureBank


def scene(
    keys: Tensor,
    *,
    size: tuple[int, int],
    op: int = 0,
    textures: TextureBank | None = None,
    severity: float = 1.0,
    top: int = 0,
    left: int = 0,
) -> Scene:
    """Make a scene in which all photographs are equally worn."""
    return Scene(
        keys=keys,
        op=op,
        size=size,
        severity=torch.full((len(keys),), severity, device=keys.device),
        textures=textures,
        top=top,
        left=left,
    )
