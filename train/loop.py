"""Training: one function, read top to bottom. Progress is counted in pairs seen."""

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..datasets import AgedPairs, Batch
from ..datasets.files import check_writable
from .agreement import Agreement
from .board import Board
from .checkpoint import Net, load_model, net_shape, save_model
from .colornet import ColorNet
from .config import TrainConfig
from .lab import LabNet
from .objectives import Objective, make_objective
from .run_folder import RunFolder
from .schedule import ema_decay, learning_rate
from .signals import noting_signals
from .step import Stepper
from .stopping import Best, EarlyStopping, Plateau
from .unet import UNet

PRIOR_PAIRS = 2048
"""Of the first epoch, looked at before training starts where the network has to know colours."""


class StoppedError(Exception):
    """Training was asked to stop and has; the same command goes on."""


class FinishedError(ValueError):
    """The folder holds this training, and it has come to its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What came of it."""

    net: Net
    """The averaged weights that are the result, in evaluation mode."""
    seen_pairs: int
    steps: int
    seconds: float
    stop: str
    """Why it ended."""
    log: list[dict[str, Any]]
    """The records of log.jsonl; on other ranks than 0 only those since it was last started."""
    stats: dict[str, float]
    """Of the pairs, see `AgedPairs.stats`."""


def train(
    pairs: AgedPairs,
    run: Path,
    config: TrainConfig,
    *,
    validation: list[Batch] | None = None,
    init: Net | None = None,
    luminance: UNet | None = None,
    progress: bool = False,
) -> TrainResult:
    """Train a network on pairs and leave it in folder `run`; go on where a training was broken off.

    Under torchrun every rank calls this, with its own `pairs` and all of `validation`; the caller
    has made the process group, with gloo for tensors on the CPU. Rank 0 writes, see `run_folder`.
    There is a model.safetensors only once the training has come to its end.

    Args:
        pairs: Where to train on; goes through as many epochs as needed.
        run: Folder for the results; if it holds a training with the same settings that was broken
            off, that goes on.
        config: How to train.
        validation: Batches to measure the averaged network on; none if None.
        init: Network to start from; of the same shape.
        luminance: For mode lab, the network that restores luminance, to be kept in the model.
        progress: Show a progress bar.

    Raises:
        ValueError: If `run` holds another training or a finished one, or cannot be written; if
            something needs validation pairs and there are none; if init has another shape.
        StoppedError: After SIGTERM or SIGINT; a checkpoint was written.
        FloatingPointError: If no step was taken for `max_bad_steps` in a row; no model is kept.
        OSError: If a checkpoint cannot be written; older ones are kept.
    """
    main, alone = pairs.rank == 0, pairs.world_size == 1
    device, mode = pairs.device, pairs.ageing.mode
    folder = RunFolder(run)
    objective = make_objective(
        mode=mode, preset=config.preset, loss=config.loss, mask_weight=config.mask_weight,
        long_side_px=pairs.side_px,
    )  # fmt: skip
    if config.needs_validation and not validation:
        raise ValueError("early stopping and schedule plateau need validation pairs; give some")

    # Network.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.init_seed)
        net = objective.make_net().to(device)
    if init is not None:
        start_from(net, init)
    if device.type == "cuda" and not alone:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    net = net.to(memory_format=torch.channels_last)
    described = describe(pairs, config, net, luminance=luminance, fine_tuned=init is not None)
    check_run(run, described)
    check_writable(run)

    # Resume.
    state = folder.load()
    _check_shared(0 if state is None else state["seen"], run, alone=alone)
    if state is not None:
        net.load_state_dict(state["net"])
        pairs.load_state_dict(state["pairs"])
    else:
        # A first look at the pairs is not training, which starts from the first pair all the same.
        place = pairs.state_dict()
        objective.prepare(net, islice(pairs, -(-PRIOR_PAIRS // _global(pairs))), alone=alone)
        pairs.load_state_dict(place)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay,
        fused=True,
    )  # fmt: skip
    stepper = Stepper(
        _wrap(net, config, device, alone=alone), net=net, average=average, optimiser=optimiser,
        objective=objective, clip_norm=config.clip_norm, precision=config.precision, device=device,
        graphs=config.compile == "graphs",
    )  # fmt: skip
    best = Best()
    stopping = EarlyStopping(patience=config.patience, min_delta=config.min_delta, best=Best())
    plateau = Plateau(
        patience=config.plateau_pairs, factor=0.5, min_delta=config.min_delta, best=Best()
    )
    seen = steps = 0
    before_s = 0.0
    log: list[dict[str, Any]] = []
    if state is not None:
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        stepper.load_state_dict(state["stepper"])
        seen, steps, before_s = state["seen"], state["steps"], state["seconds"]
        _restore(best, state["best"])
        _restore(stopping.best, state["stopping"])
        _restore(plateau.best, state["plateau"]["best"])
        plateau.share, plateau.since = state["plateau"]["share"], state["plateau"]["since"]
    if main:
        if state is None:
            folder.begin(described)
        folder.sweep(keep=config.keep_checkpoints)
        log = folder.cut_log(seen)
    del state
    board = Board(run, seen=seen) if main and config.tensorboard else None
    held_out = (validation or [])[pairs.rank :: pairs.world_size]

    def save() -> None:
        # Each rank knows the losses of its own pairs since the last record.
        counted = stepper.state_dict()
        if not alone:
            dist.all_reduce(counted["loss"])
            counted["loss"] /= dist.get_world_size()
        if not main:
            return
        folder.save(
            {
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "stepper": counted,
                "pairs": pairs.state_dict(),
                "seen": seen,
                "steps": steps,
                "seconds": before_s + time.perf_counter() - begun,
                "best": dataclasses.asdict(best),
                "stopping": dataclasses.asdict(stopping.best),
                "plateau": {
                    "best": dataclasses.asdict(plateau.best),
                    "share": plateau.share,
                    "since": plateau.since,
                },
            },
            keep=config.keep_checkpoints,
        )

    bar = tqdm(
        total=config.num_pairs, initial=seen, desc="train", unit="pair", unit_scale=True,
        disable=not (progress and main),
    )  # fmt: skip
    global_batch = _global(pairs) * config.accumulate
    pairs_an_epoch = len(pairs) * _global(pairs)
    agreement = Agreement(alone=alone, seconds=before_s)
    begun, saved = time.perf_counter(), before_s
    first_seen, stop, interrupted = seen, "", ""
    with bar, noting_signals() as asked:
        for batches in _grouped(pairs, config.accumulate):
            # Agree.
            elapsed, stopping_now = agreement.exchange(
                before_s + time.perf_counter() - begun, asked=asked.name is not None
            )

            # Schedule.
            done = max(seen / config.num_pairs, elapsed / (60 * config.max_minutes))
            lr = learning_rate(
                config.lr, schedule=config.schedule, seen=seen, warmup=config.warmup_pairs,
                progress=done, epochs=seen / pairs_an_epoch, decay=config.decay,
                share=plateau.share,
            )  # fmt: skip

            # Step.
            seen, steps = seen + global_batch, steps + 1
            decay = ema_decay(seen=seen, batch=global_batch, half_life=config.ema_half_life)
            stepper(batches, lr=lr, decay=decay)

            # Stop?
            if seen >= config.num_pairs:
                stop = "all pairs seen"
            elif elapsed >= 60 * config.max_minutes:
                stop = "time is up"
            elif stopping_now:
                interrupted = asked.name or "a signal to another rank"

            # Measure.
            summary: dict[str, float | None] = {}
            if validation and (stop or _passed(config.validate_every, seen, global_batch)):
                summary = measure(objective, average, held_out, device, alone=alone)
                score = objective.score(summary)
                if not math.isfinite(score):
                    raise FloatingPointError(_diverged(seen, config, f"score {score:g}"))
                if best.improve(score, seen) and main:
                    _keep(folder.best, average, mode, luminance, described, seen)
                if stopping.over(score, seen) and not stop:
                    stop = f"no improvement since {stopping.best.seen:,} pairs"
                plateau.update(score, seen)
                if board:
                    board.pictures(*_shown(objective, average, held_out[0], device), seen=seen)

            # Show. The bar ends at the pairs that there will have been by then, at this pace.
            if stop or steps > 1:
                bar.total = seen if stop else max(seen, round((seen - global_batch) / done))
            bar.update(global_batch)

            # Log.
            if stop or summary or _passed(config.log_every, seen, global_batch):
                tally = stepper.tally()
                none_taken = bool(stop) and tally["skipped"] == steps
                if tally["longest_row"] >= config.max_bad_steps or none_taken:
                    reason = f"{tally['longest_row']} steps in a row without a finite gradient"
                    raise FloatingPointError(_diverged(seen, config, reason))
                if not _is_finite(average):
                    raise FloatingPointError(_diverged(seen, config, "weights are not finite"))
                stats = pairs.stats()
                since_s = time.perf_counter() - begun
                record = {
                    "seen": seen,
                    "seconds": round(before_s + since_s, 3),
                    "loss": _mean_over_ranks(tally["loss"], alone=alone),
                    "psnr_db": None,
                    "lr": lr,
                    "pairs_per_s": round((seen - first_seen) / since_s, 1),
                    "wait_share": round(stats["wait_share"], 4),
                    "bad_photos": int(stats["bad_photos"]),
                    "skipped_steps": tally["skipped"],
                    **summary,
                }
                if device.type == "cuda":
                    record["memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
                log.append(record)
                if main:
                    folder.append(record)
                if board:
                    board.scalars(record)
                bar.set_postfix(_postfix(record), refresh=False)

            # Keep.
            if not stop and (interrupted or elapsed - saved >= 60 * config.checkpoint_minutes):
                save()
                saved = elapsed
            if stop or interrupted:
                break
    agreement.close()
    if interrupted and not alone:
        # A launcher ends the others as soon as one rank has left; the checkpoint comes first.
        dist.all_reduce(torch.zeros(()))
    if board:
        board.close()
    if interrupted and not stop:
        raise StoppedError(f"stopped by {interrupted} after {seen:,} pairs")

    # Finish.
    seconds = before_s + time.perf_counter() - begun
    result: Net = _as_model(average, luminance)
    if main:
        from_best = config.keep == "best" and validation and folder.best.exists()
        if from_best:
            result = load_model(folder.best, device=device)[0]
        outcome = {
            "seen_pairs": seen, "steps": steps, "seconds": round(seconds, 1), "stop": stop,
            "kept_pairs": best.seen if from_best else seen,
        }  # fmt: skip
        save_model(folder.model, result, mode=mode, training={**described, "outcome": outcome})
    return TrainResult(
        net=result,
        seen_pairs=seen,
        steps=steps,
        seconds=seconds,
        stop=stop,
        log=log,
        stats=pairs.stats(),
    )


def check_run(run: Path, described: dict[str, Any]) -> None:
    """Raise ValueError if the folder holds another training, or a finished one; make nothing."""
    folder = RunFolder(run)
    folder.check(described)
    if folder.finished:
        raise FinishedError(
            f"{run} holds a model already: this training has ended; choose another folder for a "
            "new one"
        )


def start_from(net: nn.Module, init: nn.Module) -> None:
    """Give a network the weights of another.

    Raises:
        ValueError: If their shapes differ.
    """
    check_start(net, init)
    kept = {
        name: weight for name, weight in _source(init).state_dict().items() if name in _shapes(net)
    }
    net.load_state_dict(net.state_dict() | kept)


def check_start(net: nn.Module, init: nn.Module) -> None:
    """Raise ValueError if a network cannot start from the weights of another."""
    source = _source(init)
    ours, theirs = _shapes(net), _shapes(source)
    # A mask can be learnt anew; everything else has to be there.
    missing = {name for name in ours if name not in theirs and not name.startswith("mask_tail.")}
    wrong = sorted(
        missing | {name for name in theirs if name in ours and ours[name] != theirs[name]}
    )
    if wrong or type(net) is not type(source):
        where = f" ({wrong[0]} among others)" if wrong else ""
        raise ValueError(
            f"the weights to start from do not fit this network{where}; use the preset and mode "
            "that they were trained with"
        )


def _source(init: nn.Module) -> nn.Module:
    return init.color if isinstance(init, LabNet) else init


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in net.state_dict().items()}


@torch.no_grad()
def measure(
    objective: Objective,
    net: nn.Module,
    batches: list[Batch],
    device: torch.device,
    *,
    alone: bool = True,
) -> dict[str, float | None]:
    """Return the scores of a network on batches, of which each rank has its share."""
    sums = objective.scores(net, (batch.to(device) for batch in batches))
    if not alone:
        # A rank without a batch does not know the names.
        known: list[list[str]] = [[]] * dist.get_world_size()
        dist.all_gather_object(known, sorted(sums))
        names = max(known, key=len)
        table = torch.stack(
            [sums.get(name, torch.zeros((), dtype=torch.float64)) for name in names]
        )
        dist.all_reduce(table)
        sums = dict(zip(names, table, strict=True))
    return objective.summary({name: value.item() for name, value in sums.items()})


@torch.no_grad()
def validate(net: UNet, batches: list[Batch], device: torch.device) -> float:
    """Return the PSNR in dB of the mean squared error over all valid pairs."""
    errors = [
        (net(batch.aged.to(device).float()).clamp(0, 1) - batch.clean.to(device))
        .square()
        .mean((1, 2, 3))[batch.valid.to(device)]
        for batch in batches
    ]
    return -10 * math.log10(max(torch.cat(errors).mean().item(), 1e-12))


def describe(
    pairs: AgedPairs,
    config: TrainConfig,
    net: nn.Module,
    *,
    luminance: UNet | None = None,
    fine_tuned: bool = False,
) -> dict[str, Any]:
    """Return all that the training depends on, and what it implies, as plain data."""
    return {
        "train": config.to_dict(),
        "net": net_shape(_as_model(net, luminance)),
        "fine_tuned": fine_tuned,
        "pairs": {
            **{
                "recipe_hash" if name == "recipe" else name: value
                for name, value in pairs.state_dict().items()
                if name not in ("version", "epoch", "samples")
            },
            "recipe": pairs.ageing.recipe.to_dict(),
        },
        "implied": {
            "parameters": sum(weight.numel() for weight in net.parameters()),
            "ranks": pairs.world_size,
            "global_batch": _global(pairs) * config.accumulate,
            "photos": pairs.num_photos,
            "pairs_an_epoch": len(pairs) * _global(pairs),
            "device": str(pairs.device),
        },
    }


def _wrap(net: nn.Module, config: TrainConfig, device: torch.device, *, alone: bool) -> nn.Module:
    """Compile the network, and let it meet the other ranks."""
    model: Any = net
    if config.compile in ("yes", "graphs") or (config.compile == "auto" and device.type == "cuda"):
        mode = "reduce-overhead" if config.compile == "graphs" else None
        model = torch.compile(model, mode=mode)
    if alone:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        # A static graph has to meet the other ranks at every backward pass.
        static_graph=config.accumulate == 1,
    )


def _as_model(net: nn.Module, luminance: UNet | None) -> Net:
    """Return a network as it is kept."""
    if isinstance(net, ColorNet):
        return LabNet(net, luminance)
    assert isinstance(net, UNet)
    return net


def _keep(
    path: Path,
    average: nn.Module,
    mode: Any,
    luminance: UNet | None,
    described: dict[str, Any],
    seen: int,
) -> None:
    training = {**described, "outcome": {"seen_pairs": seen}}
    save_model(path, _as_model(average, luminance), mode=mode, training=training)


@torch.no_grad()
def _shown(
    objective: Objective, net: nn.Module, batch: Batch, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    return objective.pictures(net, batch.to(device))


def _grouped(pairs: AgedPairs, count: int) -> Iterator[list[Batch]]:
    """Go through one epoch after the other, some batches at a time, asking for none too early."""
    batches = _endless(pairs)
    while True:
        yield list(islice(batches, count))


def _endless(pairs: AgedPairs) -> Iterator[Batch]:
    while True:
        yield from pairs


def _global(pairs: AgedPairs) -> int:
    return pairs.batch_size * pairs.world_size


def _passed(every: int, seen: int, batch: int) -> bool:
    """Whether the last step has reached or passed a multiple of `every` pairs."""
    return seen // every > (seen - batch) // every


def _check_shared(seen: int, run: Path, *, alone: bool) -> None:
    """Raise ValueError unless all ranks have read the same checkpoint."""
    if alone:
        return
    found: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(found, seen)
    if len(set(found)) > 1:
        raise ValueError(
            f"ranks found checkpoints of {', '.join(f'{one:,}' for one in sorted(set(found)))} "
            f"pairs in {run}; the folder must be shared by all hosts"
        )


def _is_finite(net: nn.Module) -> bool:
    return all(bool(weight.isfinite().all()) for weight in net.parameters())


def _restore(best: Best, state: dict[str, Any]) -> None:
    best.score, best.seen = state["score"], state["seen"]


def _mean_over_ranks(value: float, *, alone: bool) -> float | None:
    """Return the mean; None if a rank has taken no step since the last record."""
    if not alone:
        reduced = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(reduced)
        value = reduced.item() / dist.get_world_size()
    return value if math.isfinite(value) else None


def _diverged(seen: int, config: TrainConfig, reason: str) -> str:
    return (
        f"training diverged after {seen} pairs ({reason}); lower lr (it is {config.lr:g}) or "
        f"clip_norm (it is {config.clip_norm:g})"
    )


def _postfix(record: dict[str, Any]) -> dict[str, str]:
    shown = {"wait": f"{record['wait_share']:.0%}"}
    if record["loss"] is not None:
        shown["loss"] = f"{record['loss']:.4f}"
    for name, label in (("psnr_db", "psnr"), ("ab_psnr_db", "ab psnr")):
        if record.get(name) is not None:
            shown[label] = f"{record[name]:.2f}"
    if record["skipped_steps"]:
        shown["skipped"] = str(record["skipped_steps"])
    return shown
