"""What a training would take, tried out before it starts."""

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import nn

from agedphoto.datasets import AgedPairs
from agedphoto.datasets.memory import available_bytes
from agedphoto.train import TrainConfig
from agedphoto.train.memory import largest_batch, training_bytes
from agedphoto.train.objectives import Objective
from agedphoto.train.precision import Precision, uses_bf16
from agedphoto.train.step import Stepper

WARM_UP_STEPS = 2
MOST_STEPS = 30
MOST_SECONDS = 10.0


def check_memory(
    make_net: Callable[[], nn.Module],
    *,
    batch_size: int,
    side_px: int,
    precision: Precision,
    device: torch.device,
    name: str,
) -> None:
    """Raise ValueError if a batch will not fit into memory; says how large a one would."""
    bf16 = uses_bf16(device, precision)
    fixed, activations = training_bytes(make_net, batch_size=batch_size, side_px=side_px, bf16=bf16)
    free = available_bytes(device)
    if fixed + activations <= free:
        return
    fits = largest_batch(make_net, side_px=side_px, bf16=bf16, free_bytes=free)
    remedy = (
        f"use at most {fits}, and accumulate for more"
        if fits
        else f"use a smaller preset or {name} (it is {side_px})"
    )
    raise ValueError(
        f"batch_size {batch_size} takes about {_gib(fixed + activations)} GiB of the "
        f"{_gib(free)} GiB that are free on {device}; {remedy}"
    )


def probe(pairs: AgedPairs, config: TrainConfig, objective: Objective) -> dict[str, Any]:
    """Take a few steps on real pairs with a network that is thrown away.

    Returns:
        `memory_gib` estimated for this rank, `pairs_per_s` of this rank as measured, `hours` that
        all pairs would take, and `pixels_an_epoch`.
    """
    device, side_px = pairs.device, pairs.side_px
    fixed, activations = training_bytes(
        objective.make_net, batch_size=pairs.batch_size, side_px=side_px,
        bf16=uses_bf16(device, config.precision),
    )  # fmt: skip
    net = objective.make_net().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stepper = Stepper(
        net, net=net, average=objective.make_net().to(device),
        optimiser=torch.optim.AdamW(net.parameters(), fused=True), objective=objective,
        clip_norm=config.clip_norm, precision=config.precision, device=device,
    )  # fmt: skip
    steps, begun = 0, time.perf_counter()
    for number, batch in enumerate(islice(pairs, WARM_UP_STEPS + MOST_STEPS)):
        if number == WARM_UP_STEPS:
            stepper.tally()
            steps, begun = 0, time.perf_counter()
        stepper([batch], lr=0.0, decay=0.5)
        steps += 1
        if number > WARM_UP_STEPS and time.perf_counter() - begun > MOST_SECONDS:
            break
    # Waits for the device.
    stepper.tally()
    rate = steps * pairs.batch_size / (time.perf_counter() - begun)
    minutes = min(config.num_pairs / (rate * pairs.world_size) / 60, config.max_minutes)
    return {
        "pixels_an_epoch": len(pairs) * pairs.batch_size * pairs.world_size * side_px**2,
        "memory_gib": round(_gib(fixed + activations), 2),
        "pairs_per_s": float(f"{rate:.3g}"),
        "hours": float(f"{minutes / 60:.3g}"),
    }


def _gib(size: int) -> float:
    return float(f"{size / 2**30:.3g}")
