"""Networks and batches that train in milliseconds."""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from agedphoto.datasets import Batch
from agedphoto.synth import LAB_SCALE, Mode, aged_in_mode, clean_in_mode
from agedphoto.train import ColorNetConfig, TrainConfig, UNetConfig
from agedphoto.train.objectives import Objective, make_objective
from agedphoto.train.step import Stepper

NANO = UNetConfig(widths=(8, 12), blocks=1, middle_blocks=1)
NANO_COLORS = ColorNetConfig(
    widths=(4, 8, 8, 8), blocks=(0, 1, 0, 0), attention_blocks=1, heads=2, dropout=0.1
)
QUICK: dict[str, Any] = {
    "preset": "nano", "precision": "fp32", "warmup_pairs": 0, "log_every": 8, "mask_weight": 0,
    "tensorboard": False,
}  # fmt: skip
"""Settings for `TrainConfig`, with the fixture `nano`."""


def quick(**changes: Any) -> TrainConfig:
    """Return the settings of QUICK but for some."""
    return TrainConfig(**QUICK | changes)


WHOLE: dict[str, Any] = {"view": "whole", "long_side_px": 32, "recipe": "tones"}
"""For pairs of mode lab."""


def make_batch(mode: Mode = "grayscale", count: int = 4, side_px: int = 32, seed: int = 0) -> Batch:
    """Colourful pictures with noise, and white rectangles as damage; whole ones in mode lab."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    photos = np.zeros((count, 3, side_px, side_px))
    damage = np.zeros((count, 1, side_px, side_px), bool)
    inside = np.zeros_like(damage)
    for photo, where, there in zip(photos, damage, inside, strict=True):
        for channel in photo:
            a, b, c = rng.uniform(-1, 1, 3)
            channel[:] = 0.45 + 0.2 * np.sin(6 * (a * x + b * y + c)) + 0.2 * (a * x > b * y)
        top, left = rng.integers(0, side_px - 8, 2)
        where[0, top : top + 8, left : left + 6] = True
        height = int(rng.integers(side_px // 2, side_px + 1))
        there[0, :height] = True
    shown = np.where(damage, 1.0, photos + rng.normal(0, 0.05, photos.shape)).clip(0, 1)
    clean, aged = (torch.from_numpy(one).float() for one in (photos, shown))
    where, there = torch.from_numpy(damage), torch.from_numpy(inside)
    whole = mode == "lab"
    return Batch(
        aged=aged_in_mode(aged, mode) * (there if whole else 1),
        clean=clean_in_mode(clean, mode) * (there if whole else 1),
        mask=where,
        keys=torch.from_numpy(rng.integers(-(2**62), 2**62, count)),
        valid=torch.ones(count, dtype=torch.bool),
        photos=tuple(range(count)),
        inside=there if whole else None,
    )


def nano_objective(mode: Mode = "grayscale", *, mask_weight: float = 0.01) -> Objective:
    """The task, with networks of preset `nano`."""
    return make_objective(mode=mode, preset="nano", loss="charbonnier", mask_weight=mask_weight)


def drawn(objective: Objective, seed: int = 0) -> nn.Module:
    """A network of which every weight matters; the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = objective.make_net()
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(0.5 / weight[0].numel() ** 0.5 * torch.randn_like(weight))
    return net


def make_stepper(
    objective: Objective, *, clip_norm: float = 1.0, device: torch.device | None = None
) -> tuple[Stepper, nn.Module, nn.Module, torch.optim.Optimizer]:
    """A stepper with its network, the average of it, and the optimiser."""
    place = device or torch.device("cpu")
    net = drawn(objective).to(place)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.0, fused=True)
    stepper = Stepper(
        net, net=net, average=average, optimiser=optimiser, objective=objective,
        clip_norm=clip_norm, precision="fp32", device=place,
    )  # fmt: skip
    return stepper, net, average, optimiser


def flat(net: nn.Module) -> torch.Tensor:
    """All weights in a row."""
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def flat_gradient(net: nn.Module) -> torch.Tensor:
    """All gradients in a row."""
    grads = [weight.grad for weight in net.parameters()]
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def in_units(lab: torch.Tensor) -> np.ndarray:
    """CIELAB (H, W, 3) in its own units, from a batch of one as networks answer it."""
    return (lab[0].double() * torch.tensor(LAB_SCALE)[:, None, None]).permute(1, 2, 0).numpy()
