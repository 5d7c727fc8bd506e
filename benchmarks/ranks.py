"""Training on 1, 2 and more ranks by torchrun: pairs a second of all of them together.

On GPUs each rank has one, and gradients go by NCCL. On a CPU, by gloo, cores are dealt out evenly:
each rank has the same number for any count. The batch of a rank stays the same. This module is also
what torchrun runs on each rank:

    torchrun --nproc-per-node 8 -m agedphoto.benchmarks.ranks OPTIONS.json
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from agedphoto.datasets import AgedPairs, Batch
from agedphoto.datasets.files import write_json

from .made_up import make_photos, make_shards
from .record import Recorder, Spread
from .settings import Settings, cores_for
from .steps import find_objective, make_stepper, step, usual_way
from .timing import seconds_of

COUNTS = (1, 2, 4, 8)
TIMEOUT_S = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What each rank is told."""

    shards: str
    answer: str
    """File for what rank 0 found."""
    device: str
    preset: str
    crop_px: int
    batch_size: int
    runs: int
    window_s: float
    most: int
    """How many ranks cores are dealt out to."""


def run(settings: Settings, recorder: Recorder) -> None:
    """Start torchrun for each number of ranks that fits here."""
    device = settings.device
    if device.type == "cuda":
        available = torch.cuda.device_count()
    else:
        available = min(2, settings.cores) if device.type == "cpu" else 1
    counts = [count for count in COUNTS if count <= available]
    if device.type == "cuda" and available < COUNTS[-1]:
        recorder.miss(
            "ranks", f"more than {available} GPU{'s' if available > 1 else ''}",
            "there are no more here", command=settings.command("train"),
        )  # fmt: skip
    elif device.type != "cuda":
        recorder.miss(
            "ranks", "several GPUs", "it needs CUDA devices", command=settings.command("train")
        )
    alone: float | None = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = settings.shards or make_shards(
            make_photos(folder / "photos", 16, (256, 384)), folder / "shards"
        )
        for count in counts:
            options = Options(
                shards=shards, answer=str(folder / f"{count}.json"), device=device.type,
                preset="base" if settings.large else "tiny",
                crop_px=256 if settings.large else 32 if settings.quick else 64,
                batch_size=128 if settings.large else 4 if settings.quick else 16,
                runs=2 if settings.quick else 7, window_s=0.2 if settings.quick else 3.0,
                most=counts[-1],
            )  # fmt: skip
            try:
                rates = _launch(count, options, folder)
            except Exception as error:
                recorder.fail("ranks", f"{count} ranks", error)
                continue
            spread = Spread.of(rates)
            alone = alone or spread.median
            recorder.add(
                "ranks", "nccl" if device.type == "cuda" else "gloo", "pairs/s", spread,
                more={"efficiency": spread.median / (alone * count)}, ranks=count,
            )  # fmt: skip


def _launch(count: int, options: Options, folder: Path) -> list[float]:
    told = folder / "options.json"
    write_json(told, asdict(options))
    threads = os.cpu_count() or 1
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node", str(count), "-m", "agedphoto.benchmarks.ranks", str(told),
        ],
        capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        env=os.environ
        | {"OMP_NUM_THREADS": str(max(1, threads // options.most)), "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        raise RuntimeError(f"torchrun ended with {done.returncode}: {(lines or ['?'])[0].strip()}")
    return json.loads(Path(options.answer).read_text())


def train(options: Options) -> None:
    """Be one rank: take steps with the loader, and let rank 0 write pairs a second of all."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if options.device == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    else:
        device = torch.device(options.device)
        if sets := cores_for(options.most):
            os.sched_setaffinity(0, sets[rank])
    dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    try:
        rates = _rates(options, device, count)
        if rank == 0:
            write_json(Path(options.answer), rates)
    finally:
        dist.destroy_process_group()


def _rates(options: Options, device: torch.device, count: int) -> list[float]:
    def share(net: nn.Module) -> nn.Module:
        return DistributedDataParallel(
            net,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            static_graph=True,
        )

    objective = find_objective("grayscale", options.preset, options.crop_px)
    _, stepper = make_stepper(
        objective, usual_way(device), device, wrap=share if count > 1 else None
    )
    with AgedPairs(
        options.shards, crop_px=options.crop_px, batch_size=options.batch_size, seed=0,
        device=device,
    ) as pairs:  # fmt: skip
        stream = _endless(pairs)

        def once() -> None:
            step(stepper, next(stream))

        for _ in range(3):
            once()
        # All ranks must take as many steps as rank 0 does.
        steps = torch.tensor(
            max(2, math.ceil(options.window_s / (seconds_of(once, 2, device) / 2))), device=device
        )
        dist.broadcast(steps, 0)
        rates = []
        for _ in range(options.runs):
            dist.barrier()
            taken = seconds_of(once, int(steps), device)
            rates.append(int(steps) * options.batch_size * count / taken)
        return rates


def _endless(pairs: AgedPairs) -> Iterator[Batch]:
    while True:
        yield from pairs


if __name__ == "__main__":
    train(Options(**json.loads(Path(sys.argv[1]).read_text())))
