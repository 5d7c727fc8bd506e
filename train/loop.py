"""Training: one function, read top to bottom. Progress is counted in pairs seen."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..datasets import AgedPairs, Batch
from ..datasets.files import check_writable, write_json
from ..synth import AGED_CHANNELS, CLEAN_CHANNELS, Mode, check_mode
from ..synth.keys import check_seed
from .checkpoint import save_model
from .metrics import squared_error
from .precision import Precision, autocast
from .schedule import ema_decay, learning_rate
from .unet import UNet, UNetConfig, find_preset

MODEL_NAME = "model.safetensors"
LOG_NAME = "log.jsonl"
CONFIG_NAME = "config.json"

Compile: TypeAlias = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to train."""

    preset: str = "base"
    """Shape of the network: tiny, base or large."""
    num_pairs: int = 1_000_000
    """Pairs to see, over all ranks."""
    max_minutes: float = math.inf
    """Stop after this time, if sooner; the learning rate comes down in time for it."""
    lr: float = 1e-3
    """Peak learning rate."""
    warmup_pairs: int = 2_000
    """Pairs over which the learning rate rises."""
    ema_half_life: int = 10_000
    """Half-life, in pairs, of the averaged weights, which are the ones that are kept."""
    clip_norm: float = 1.0
    """Gradients of a larger norm are scaled down to it."""
    log_every: int = 1_000
    """Pairs between two lines of the log."""
    validate_every: int = 10_000
    """Pairs between two validations."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto is bf16 where the device does it fast."""
    compile: Compile = "auto"
    """Whether to compile the network; auto does so on CUDA."""
    init_seed: int = 0
    """Seed of the first weights."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        find_preset(self.preset)
        for name in ("num_pairs", "max_minutes", "lr", "clip_norm", "log_every", "validate_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_pairs", "ema_half_life"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("lr", "clip_norm"):
            if math.isinf(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        for name, known in (("precision", get_args(Precision)), ("compile", get_args(Compile))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        check_seed(self.init_seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What came of it."""

    net: UNet
    """With the averaged weights, in evaluation mode."""
    seen_pairs: int
    steps: int
    seconds: float
    stop: str
    """Why it ended."""
    log: list[dict[str, Any]]
    """The records of log.jsonl."""
    stats: dict[str, float]
    """Of the pairs, see `AgedPairs.stats`."""


def net_config(preset: str, mode: Mode) -> UNetConfig:
    """Return a preset with the channels of a mode."""
    answer = CLEAN_CHANNELS[check_mode(mode)]
    return dataclasses.replace(
        find_preset(preset),
        in_channels=AGED_CHANNELS[mode],
        out_channels=answer,
        # Luma is close to L and to each of red, green and blue; a and b start from gray.
        residual_channels=1 if mode == "lab" else answer,
    )


def charbonnier(restored: Tensor, clean: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(d^2 + epsilon^2) for each picture (Charbonnier et al., ICIP 1994)."""
    return (restored.float() - clean).square().add(epsilon**2).sqrt().mean(dim=(1, 2, 3))


def train(
    pairs: AgedPairs,
    run: Path,
    config: TrainConfig,
    *,
    validation: list[Batch] | None = None,
    progress: bool = False,
) -> TrainResult:
    """Train a network on pairs and leave it in folder `run`.

    Under torchrun every rank calls this, with its own `pairs`; the caller has made the process
    group, with gloo for tensors on the CPU if max_minutes is finite. Rank 0 writes config.json and
    log.jsonl, and at the end model.safetensors: a training that is broken off leaves no model.

    Args:
        pairs: Where to train on; goes through as many epochs as needed.
        run: Folder for the results; it must not hold a model yet.
        config: How to train.
        validation: Batches to measure the averaged network on; none if None.
        progress: Show a progress bar.

    Raises:
        ValueError: If `run` holds a model or cannot be written.
        FloatingPointError: If the loss or the weights are not finite; no model is kept.
    """
    main = pairs.rank == 0
    device = pairs.device
    mode = pairs.ageing.mode
    check_run(run)
    check_writable(run)

    # Network, its average, optimiser.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.init_seed)
        net = UNet(net_config(config.preset, mode)).to(device)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net).eval().requires_grad_(False)
    fused = device.type in ("cpu", "cuda")
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=fused)
    model = net
    if config.compile == "yes" or (config.compile == "auto" and device.type == "cuda"):
        model = torch.compile(model)
    if pairs.world_size > 1:
        model = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            static_graph=True,
        )

    described = describe(pairs, config, net)
    if main:
        write_json(run / CONFIG_NAME, described)
        (run / LOG_NAME).write_text("")
    bar = tqdm(
        total=config.num_pairs,
        desc="train",
        unit="pair",
        unit_scale=True,
        disable=not (progress and main),
    )

    log: list[dict[str, Any]] = []
    losses: list[Tensor] = []
    seen = steps = 0
    global_batch = pairs.batch_size * pairs.world_size
    stop = ""
    begun = time.perf_counter()
    with bar:
        for batch in _endless(pairs):
            # Schedule.
            elapsed = _agreed(time.perf_counter() - begun, pairs, config)
            done = max(seen / config.num_pairs, elapsed / (60 * config.max_minutes))
            lr = learning_rate(config.lr, seen=seen, warmup=config.warmup_pairs, progress=done)
            for group in optimiser.param_groups:
                group["lr"] = lr

            # Step.
            with autocast(device, config.precision):
                restored = model(batch.aged.float())
            valid = batch.valid.float()
            loss = (charbonnier(restored, batch.clean) * valid).sum() / valid.sum().clamp(min=1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
            optimiser.step()
            seen, steps = seen + global_batch, steps + 1
            decay = ema_decay(seen=seen, batch=global_batch, half_life=config.ema_half_life)
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
            losses.append(loss.detach())

            # Stop?
            if seen >= config.num_pairs:
                stop = "all pairs seen"
            elif elapsed >= 60 * config.max_minutes:
                stop = "time is up"

            # Show. The bar ends at the pairs that there will have been by then, at this pace.
            if stop or steps > 1:
                bar.total = seen if stop else max(seen, round((seen - global_batch) / done))
            bar.update(global_batch)

            # Log.
            measure = validation and (stop or _passed(config.validate_every, seen, global_batch))
            if stop or measure or _passed(config.log_every, seen, global_batch):
                mean = _mean_over_ranks(torch.stack(losses).mean(), pairs).item()
                losses.clear()
                if not (math.isfinite(mean) and _is_finite(average)):
                    raise FloatingPointError(
                        f"training diverged after {seen} pairs (loss {mean:g}); lower lr "
                        f"(it is {config.lr:g})"
                    )
                quality = validate(average, validation, device) if validation and measure else None
                seconds = time.perf_counter() - begun
                record = {
                    "seen": seen,
                    "seconds": round(seconds, 3),
                    "loss": mean,
                    "psnr_db": quality,
                    "lr": lr,
                    "pairs_per_s": round(seen / seconds, 1),
                    "wait_share": round(pairs.stats()["wait_share"], 4),
                    "bad_photos": int(pairs.stats()["bad_photos"]),
                }
                log.append(record)
                if main:
                    with (run / LOG_NAME).open("a") as file:
                        file.write(json.dumps(record) + "\n")
                shown = {"loss": f"{mean:.4f}", "wait": f"{record['wait_share']:.0%}"}
                if quality is not None:
                    shown["psnr"] = f"{quality:.2f}"
                bar.set_postfix(shown, refresh=False)
            if stop:
                break

    # Keep.
    seconds = time.perf_counter() - begun
    outcome = {"seen_pairs": seen, "steps": steps, "seconds": round(seconds, 1), "stop": stop}
    if main:
        save_model(run / MODEL_NAME, average, mode=mode, training={**described, "outcome": outcome})
    return TrainResult(
        net=average,
        seen_pairs=seen,
        steps=steps,
        seconds=seconds,
        stop=stop,
        log=log,
        stats=pairs.stats(),
    )


def check_run(run: Path) -> None:
    """Raise ValueError if there is a model in the folder of a training; make nothing."""
    if (run / MODEL_NAME).exists():
        raise ValueError(f"{run} holds a model already; choose another folder or move it away")


@torch.no_grad()
def validate(net: UNet, batches: list[Batch], device: torch.device) -> float:
    """Return the PSNR in dB of the mean squared error over all valid pairs."""
    errors = [
        squared_error(net(batch.aged.to(device).float()), batch.clean.to(device))[
            batch.valid.to(device)
        ]
        for batch in batches
    ]
    return -10 * math.log10(max(torch.cat(errors).mean().item(), 1e-12))


def describe(pairs: AgedPairs, config: TrainConfig, net: UNet) -> dict[str, Any]:
    """Return all that the training depends on, and what it implies, as plain data."""
    settings = dataclasses.asdict(config)
    if math.isinf(config.max_minutes):
        settings["max_minutes"] = None
    return {
        "train": settings,
        "net": dataclasses.asdict(net.config),
        "pairs": {
            "mode": pairs.ageing.mode,
            "recipe": pairs.ageing.recipe.to_dict(),
            **{
                name: value
                for name, value in pairs.state_dict().items()
                if name not in ("version", "epoch", "samples")
            },
        },
        "implied": {
            "parameters": net.num_parameters,
            "ranks": pairs.world_size,
            "photos": pairs.num_photos,
            "pairs_an_epoch": len(pairs) * pairs.batch_size * pairs.world_size,
            "device": str(pairs.device),
        },
    }


def _endless(pairs: AgedPairs) -> Iterator[Batch]:
    """Go through one epoch after the other."""
    while True:
        yield from pairs


def _agreed(elapsed: float, pairs: AgedPairs, config: TrainConfig) -> float:
    """Return rank 0's clock where it decides anything: all ranks must stop at the same step."""
    if pairs.world_size == 1 or math.isinf(config.max_minutes):
        return elapsed
    # On the CPU: a number from the GPU would make every step wait for the one before.
    clock = torch.tensor(elapsed, dtype=torch.float64)
    dist.broadcast(clock, src=0)
    return clock.item()


def _passed(every: int, seen: int, batch: int) -> bool:
    """Whether the last step has reached or passed a multiple of `every` pairs."""
    return seen // every > (seen - batch) // every


def _is_finite(net: UNet) -> bool:
    return all(bool(weight.isfinite().all()) for weight in net.parameters())


def _mean_over_ranks(value: Tensor, pairs: AgedPairs) -> Tensor:
    if pairs.world_size > 1:
        dist.all_reduce(value)
        value = value / pairs.world_size
    return value
