"""How fast networks train: a step on a batch that is there already, the same step with the real
loader, and the loader alone.

A step is the trainer's own: forward, backward, gradient norm, fused AdamW, averaged weights. Every
preset is measured in the ways that it can be computed, on a resident batch; every way is first
shown to learn alike. In the way that training takes by itself, windows on the resident batch, with
the loader, and of the loader alone take turns; utilisation is the loader's rate over the resident
batch's, window by window. A rate is pairs over seconds of a window that begins and ends with the
device idle; medians and quartiles of windows. MFU is counted floating-point operations of forward
and backward over the rate of a large matrix product, measured here.

    python benchmarks/training.py --shards data/div2k --out benchmarks/results

With --kodak-seconds it also trains a network on blind Gaussian noise for that long, and restores
the photos of --kodak by the published protocol; shards must hold none of them.

    python benchmarks/training.py --shards data/div2k --kodak-seconds 75 600 --kodak kodak
"""

import datetime
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from agedphoto.datasets import AgedPairs, Batch, find_photos, write_shards
from agedphoto.datasets.files import write_json
from agedphoto.evaluate_photos import find_subjects
from agedphoto.evaluate_run import evaluate, plan_cases
from agedphoto.machine import hardware, versions
from agedphoto.synth import Mode, find_device
from agedphoto.train import PRESETS, TrainConfig, load_model, make_objective, train
from agedphoto.train.objectives import Objective
from agedphoto.train.precision import Precision, bf16_is_fast
from agedphoto.train.step import Stepper
from agedphoto.training import DEFAULT_RECIPE

SIGMAS = (15, 25, 50)
WARM_UP_STEPS = 3
WARM_UP_BATCHES = 500
"""Of the loader at most; an epoch of a small set fills the pool."""
PREFETCH_BATCHES = 64
"""So far ahead photos are decoded; what was decoded during other windows is not to be counted."""
SAME_LOSS = 0.1
"""How far the loss may differ after the first steps, as a share."""
MADE_PHOTOS = 16
BUSY_LOAD = 0.5
"""Processes a core that others may have running; rates of a busy machine vary tenfold."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    presets: tuple[str, ...] = tuple(PRESETS)
    """Shapes of the networks."""
    modes: tuple[Mode, ...] = ("grayscale", "lab")
    """grayscale restores crops; lab colours whole photos, with a network of its own."""
    shards: str | None = None
    """Folder or URL of shards; a few photos are made up if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    crop_px: int | None = None
    """Side of the crops; 256 on a GPU, 64 elsewhere."""
    long_side_px: int | None = None
    """Long side of whole photos; 192 on a GPU, 64 elsewhere."""
    batch_size: int | None = None
    """Pairs of a batch; 128 on a GPU, 16 elsewhere."""
    compile: bool | None = None
    """Also measure compiled networks; on a GPU if not given."""
    runs: int = 9
    """Windows of each kind."""
    window_s: float = 2.0
    """About how long a window takes."""
    kodak_seconds: tuple[float, ...] = ()
    """For how long to train on noise; each is a training of its own."""
    kodak: Path | None = None
    """Folder of photos to measure those trainings on."""
    kodak_preset: str = "large"
    """Shape of that network."""
    kodak_crop_px: int = 128
    """Side of its crops."""
    out: Path | None = None
    """Folder for the results as JSON."""

    def __post_init__(self) -> None:
        """Check what would be noticed late."""
        if self.runs < 2:
            raise ValueError(f"runs must be at least 2, for quartiles, got {self.runs}")
        if self.kodak_seconds and not (self.kodak and self.shards):
            raise ValueError(
                "kodak_seconds needs photos to measure on and others to train on; give --kodak "
                "FOLDER and --shards"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to compute a network."""

    precision: Precision
    channels_last: bool = True
    compile: Literal["no", "yes", "graphs"] = "no"

    @property
    def name(self) -> str:
        """As it is shown."""
        compiled = {"no": "", "yes": ", compiled", "graphs": ", CUDA graphs"}[self.compile]
        return self.precision + (", channels_last" if self.channels_last else "") + compiled


def main(options: Options) -> None:
    """Measure, print, and write."""
    device = find_device(options.device)
    not_measured = [] if device.type == "cuda" else ["a GPU: it needs a CUDA device"]
    if not bf16_is_fast(device):
        not_measured.append(f"bf16: {device} does not do it in hardware")
    load = _load_a_core()
    if load > BUSY_LOAD:
        not_measured.append(
            f"an idle machine: {load:.1f} processes a core are waiting; figures are of what is left"
        )
    if not options.kodak_seconds:
        not_measured.append("dB on Kodak: it needs --kodak-seconds, --kodak and --shards")
    matrix = _matrix_rates(device, options.runs)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        shards = options.shards or _made_up(Path(temporary))
        for mode in options.modes:
            with _open(shards, mode, device, options) as pairs:
                stream = _endless(pairs)
                _fill(pairs, stream)
                for preset in options.presets:
                    rows += _measure(preset, pairs, stream, matrix, options)
    kodak = [_kodak(seconds, device, options) for seconds in options.kodak_seconds]
    for reason in not_measured:
        print(f"not measured: {reason}")
    if options.out:
        measured = {
            "results": rows,
            "kodak": kodak,
            "matrix_flops_per_s": matrix,
            "load_a_core": load,
        }
        _write(options, device, measured | {"not_measured": not_measured})


def _measure(
    preset: str,
    pairs: AgedPairs,
    stream: Iterator[Batch],
    matrix: dict[str, float],
    options: Options,
) -> Iterator[dict[str, Any]]:
    """Measure one preset in every way; in the one that training takes, with the loader too."""
    mode, device = pairs.ageing.mode, pairs.device
    objective = make_objective(mode=mode, preset=preset, loss="charbonnier", mask_weight=0.01)
    ways = _ways(device, options.compile)
    usual = [way for way in ways if way.compile == ("yes" if device.type == "cuda" else "no")]
    batch = next(stream)
    flops = _flops_a_pair(objective, batch)
    first_loss: float | None = None
    for way in ways:
        row: dict[str, Any] = {
            "mode": mode,
            "preset": preset,
            "way": way.name,
            "as_trained": bool(usual) and way == usual[-1],
            "side_px": pairs.side_px,
            "batch_size": pairs.batch_size,
        }
        try:
            # Small networks would otherwise be found compiled, large ones share their memory.
            torch.compiler.reset()
            _forget_peak(device)
            net, stepper = _make(objective, way, device)
            row["parameters"] = sum(weight.numel() for weight in net.parameters())
            step = partial(_step, stepper, batch)
            for _ in range(WARM_UP_STEPS):
                step()
            loss = stepper.tally()["loss"]
            first_loss = loss if first_loss is None else first_loss
            if not abs(loss - first_loss) < SAME_LOSS * first_loss:
                raise SystemExit(
                    f"not the same work: {preset}, {way.name} has loss {loss:g}, not {first_loss:g}"
                )
            row |= _windows(row, step, stepper, pairs, stream, options)
        except RuntimeError as error:
            # A preset too large for this device must not take the others' figures with it.
            row["failed"] = str(error).strip().partition("\n")[0]
        if "resident" in row and way.precision in matrix:
            rate = row["resident"]["pairs_per_s"]
            row["tflops_per_s"] = flops * rate / 1e12
            row["mfu"] = flops * rate / matrix[way.precision]
        if device.type == "cuda":
            row["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        _show(row)
        yield row


def _windows(
    row: dict[str, Any],
    step: Callable[[], None],
    stepper: Stepper,
    pairs: AgedPairs,
    stream: Iterator[Batch],
    options: Options,
) -> dict[str, Any]:
    """Time the windows; those with the loader where training would compute it this way."""
    device, B = pairs.device, pairs.batch_size
    num_steps = max(2, math.ceil(options.window_s / _seconds(step, 2, device) * 2))
    name = f"{row['mode']}, {row['preset']}, {row['way']}"
    if not row["as_trained"]:
        resident = [
            _seconds(step, num_steps, device) for _ in tqdm(range(options.runs), name, leave=False)
        ]
        return {"steps_a_window": num_steps, "resident": _rate(resident, num_steps * B)}
    waited = 0.0

    def train_on_next() -> None:
        nonlocal waited
        begun = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - begun
        _step(stepper, batch)

    # Where not all photos fit into the pool, some were decoded during the other windows.
    settling = PREFETCH_BATCHES if pairs.stats()["pool_photos"] < pairs.num_photos else 2
    resident, loaded, alone, shares = [], [], [], []
    for _ in tqdm(range(options.runs), name, leave=False):
        resident.append(_seconds(step, num_steps, device))
        _seconds(train_on_next, settling, device)
        waited = 0.0
        loaded.append(_seconds(train_on_next, num_steps, device))
        shares.append(waited / loaded[-1])
        _seconds(lambda: next(stream), settling, device)
        alone.append(_seconds(lambda: next(stream), num_steps, device))
    used = [without / with_it for without, with_it in zip(resident, loaded, strict=True)]
    return {
        "steps_a_window": num_steps,
        "resident": _rate(resident, num_steps * B),
        "loader": _rate(loaded, num_steps * B),
        "loader_alone": _rate(alone, num_steps * B),
        "utilisation": _spread(used),
        "wait_share": _spread(shares),
        "all_photos_in_pool": settling != PREFETCH_BATCHES,
    }


def _ways(device: torch.device, compiled: bool | None) -> list[Way]:
    """From plain to what training does; bf16 only where it is fast."""
    best: Precision = "bf16" if bf16_is_fast(device) else "fp32"
    ways = [Way(precision="fp32", channels_last=False)]
    if best == "bf16":
        ways.append(Way(precision="bf16", channels_last=False))
    ways.append(Way(precision=best))
    if compiled or (compiled is None and device.type == "cuda"):
        ways.append(Way(precision=best, compile="yes"))
        if device.type == "cuda":
            ways.append(Way(precision=best, compile="graphs"))
    return ways


class Contiguous(nn.Module):
    """Gives a network its input channel by channel, which the trainer never does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, aged: Tensor, **options: Any) -> Any:
        """Return what the network returns."""
        # A copy: of one channel either layout passes for contiguous, and convolutions choose.
        return self.module(aged.clone(memory_format=torch.contiguous_format), **options)


def _make(objective: Objective, way: Way, device: torch.device) -> tuple[nn.Module, Stepper]:
    torch.manual_seed(0)
    net = objective.make_net().to(device)
    torch.manual_seed(0)
    average = objective.make_net().to(device).eval().requires_grad_(False)
    model: Any = net
    if way.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        model = Contiguous(net)
    if way.compile != "no":
        model = torch.compile(net, mode="reduce-overhead" if way.compile == "graphs" else None)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)
    return net, Stepper(
        model, net=net, average=average, optimiser=optimiser, objective=objective, clip_norm=1.0,
        precision=way.precision, device=device, graphs=way.compile == "graphs",
    )  # fmt: skip


def _step(stepper: Stepper, batch: Batch) -> None:
    stepper([batch], lr=1e-4, decay=0.999)


def _flops_a_pair(objective: Objective, batch: Batch) -> float:
    """Count multiplications and additions of forward and backward."""
    first = {name: tensor[:1].cpu() for name, tensor in batch.tensors().items()}
    one = replace(batch, **first, photos=batch.photos[:1])
    # Attention in one piece is not counted on every device.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        objective.loss(objective.make_net(), one).sum().backward()
    return counter.get_total_flops()


def _matrix_rates(device: torch.device, runs: int) -> dict[str, float]:
    """Return floating-point operations a second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 2048
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype is torch.bfloat16 and not bf16_is_fast(device):
            continue
        a = torch.randn(n, n, device=device).to(dtype)
        out = torch.empty_like(a)
        multiply = partial(torch.matmul, a, a, out=out)
        _seconds(multiply, 3, device)
        repeats = max(1, math.ceil(0.2 / _seconds(multiply, 1, device)))
        seconds = [_seconds(multiply, repeats, device) / repeats for _ in range(runs)]
        rates[name] = 2 * n**3 / statistics.median(seconds)
        print(f"matrix product of {n} x {n}, {name}: {rates[name] / 1e12:.2f} TFLOP/s")
    return rates


def _open(shards: str, mode: Mode, device: torch.device, options: Options) -> AgedPairs:
    large = device.type == "cuda"
    side_px = (
        {"view": "whole", "long_side_px": options.long_side_px or (192 if large else 64)}
        if mode == "lab"
        else {"crop_px": options.crop_px or (256 if large else 64)}
    )
    pairs = AgedPairs(
        shards,
        recipe=DEFAULT_RECIPE[mode],
        mode=mode,
        batch_size=options.batch_size or (128 if large else 16),
        crops_per_photo=16,
        prefetch_batches=PREFETCH_BATCHES,
        seed=0,
        device=device,
        rank=0,
        world_size=1,
        **side_px,  # type: ignore[arg-type]
    )
    print(f"\n{mode}: {pairs.describe()}")
    return pairs


def _endless(pairs: AgedPairs) -> Iterator[Batch]:
    while True:
        yield from pairs


def _fill(pairs: AgedPairs, stream: Iterator[Batch]) -> None:
    """Go through an epoch, so that what fits into the pool is there."""
    count = min(len(pairs), WARM_UP_BATCHES)
    for _ in tqdm(islice(stream, count), "first epoch", total=count, leave=False):
        pass


def _made_up(folder: Path) -> str:
    """Write shards of smooth pictures with some noise; the step does not mind what they show."""
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(MADE_PHOTOS):
        rough = generator.integers(0, 256, (12, 18, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(rough).resize((768, 512), Image.Resampling.BICUBIC))
        grainy = (picture + generator.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / "photos" / f"{number}.png")
    write_shards(find_photos(folder / "photos"), folder / "shards", root=folder / "photos")
    return str(folder / "shards")


def _kodak(seconds: float, device: torch.device, options: Options) -> dict[str, Any]:
    """Train on blind noise for so long, and restore photos as denoisers publish it."""
    assert options.shards
    assert options.kodak
    subjects = find_subjects([str(options.kodak)])
    common: dict[str, Any] = {"preset": options.kodak_preset, "mask_weight": 0.0}
    long = TrainConfig(
        **common, num_pairs=10**9, max_minutes=seconds / 60, log_every=100_000,
        checkpoint_minutes=10**6, tensorboard=False,
    )  # fmt: skip
    short = TrainConfig(**common, num_pairs=1, tensorboard=False)
    with (
        tempfile.TemporaryDirectory() as temporary,
        AgedPairs(
            options.shards,
            recipe="awgn",
            crop_px=options.kodak_crop_px,
            batch_size=options.batch_size or (128 if device.type == "cuda" else 16),
            device=device,
            rank=0,
            world_size=1,
        ) as pairs,
    ):
        if device.type == "cuda":
            # What is compiled once is found again: the seconds are those of training.
            train(pairs, Path(temporary) / "short", short)
            pairs.set_epoch(0)
        result = train(pairs, Path(temporary) / "long", long, progress=True)
        net, card = load_model(Path(temporary) / "long" / "model.safetensors", device=device)
        photos, batch_size = pairs.num_photos, pairs.batch_size
    cases = plan_cases(mode=card.mode, device=device, sigmas=[float(sigma) for sigma in SIGMAS])
    record = evaluate(net, card, subjects, cases, device=device, progress=True)
    measured = {
        f"{case['sigma']:g}": {
            "psnr_db": case["mean"]["psnr_db"],
            "noisy_psnr_db": case["mean"]["aged_psnr_db"],
            "ssim": case["mean"]["ssim"],
        }
        for case in record["measured"]
    }
    for sigma, scores in measured.items():
        print(
            f"{options.kodak_preset}, {result.seconds:.0f} s, {result.seen_pairs:,} pairs: sigma "
            f"{sigma} {scores['noisy_psnr_db']:.2f} -> {scores['psnr_db']:.2f} dB"
        )
    return {
        "preset": options.kodak_preset,
        "recipe": "awgn",
        "seconds": result.seconds,
        "seen_pairs": result.seen_pairs,
        "pairs_per_s": result.seen_pairs / result.seconds,
        "wait_share": result.stats["wait_share"],
        "crop_px": options.kodak_crop_px,
        "batch_size": batch_size,
        "trained_on_photos": photos,
        "measured_on_photos": record["photos"]["measured"],
        "protocol": [case["protocol"] for case in record["measured"]],
        "by_sigma": measured,
    }


def _seconds(run: Callable[[], Any], times: int, device: torch.device) -> float:
    """Time so many runs, from one idle device to the next."""
    _wait(device)
    begun = time.perf_counter()
    for _ in range(times):
        run()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _load_a_core() -> float:
    """Return how many processes others have running, for each core; 0 where nobody counts."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
    return {"median": median, "quartiles": [lower, upper]}


def _rate(seconds: Sequence[float], num_pairs: int) -> dict[str, Any]:
    spread = _spread([num_pairs / taken for taken in seconds])
    return {"pairs_per_s": spread["median"], "quartiles": spread["quartiles"]}


def _show(row: dict[str, Any]) -> None:
    line = f"{row['mode']:<9} {row['preset']:<5} {row['way']:<28}"
    if "failed" in row:
        print(f"{line} failed: {row['failed']}", flush=True)
        return
    line += f" {row['resident']['pairs_per_s']:>9,.1f} pairs/s"
    if "mfu" in row:
        line += f", {row['mfu']:.0%} of the matrix rate"
    if "loader" in row:
        line += (
            f"; with the loader {row['loader']['pairs_per_s']:,.1f} "
            f"({row['utilisation']['median']:.1%}, waiting {row['wait_share']['median']:.1%}); "
            f"loader alone {row['loader_alone']['pairs_per_s']:,.0f}"
        )
    print(line, flush=True)


def _write(options: Options, device: torch.device, measured: dict[str, Any]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True,
        text=True, check=False,
    ).stdout.strip()  # fmt: skip
    machine = hardware(device)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "schema": 1,
        "what": "training",
        "date": date,
        "commit": commit or None,
        "shards": "made up" if options.shards is None else "given",
        "runs": options.runs,
        "window_s": options.window_s,
        "threads": torch.get_num_threads(),
        "seed": 0,
        **measured,
        "hardware": machine,
        "versions": versions(),
    }
    assert options.out
    name = "-".join("".join(c if c.isalnum() else " " for c in machine["name"].lower()).split()[:3])
    path = options.out / f"training_{name}_{date}.json"
    write_json(path, json.loads(json.dumps(record)))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
