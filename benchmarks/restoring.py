"""How fast pictures are restored, in how much memory, and with what seams.

The same network with the same weights in three ways: `agedphoto.restore.Restorer`; the tiles of
Real-ESRGAN, written anew from their description (tiles side by side, each run with 10 px of what is
around it, the rest cut off hard, nothing blended); and the whole picture in one piece, where that
fits. All get the same gray float32 picture in host memory and return one. Tiles have the same side.

Every figure comes from a process of its own. The first run at full size warms up and gives the
memory: growth of the resident set over what network and picture take, and what the GPU had
allocated at most. Then runs are timed, each from one idle device to the next; medians and
quartiles. Seams are the largest difference to the whole picture in one piece, in steps of 1/255;
without --model the weights are drawn at random, and seams are those of such a network.

    python benchmarks/restoring.py --model runs/mine --out benchmarks/results
"""

import datetime
import json
import multiprocessing
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from agedphoto.datasets.files import write_json
from agedphoto.machine import hardware, versions
from agedphoto.restore import Restorer, find_model
from agedphoto.synth import find_device
from agedphoto.train import ModelCard, UNet
from agedphoto.train.checkpoint import net_shape
from agedphoto.train.unet import PRESETS, find_preset

Way = Literal["agedphoto", "hard-cut tiles", "whole"]
WAYS: tuple[Way, ...] = ("agedphoto", "hard-cut tiles", "whole")
TILE_PAD_PX = 10
"""Real-ESRGAN's default."""
STEP = 1 / 255
SAME_WORK = 1.0
"""How far from the whole picture half of the pixels may be, in steps; seams are the others."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    megapixels: tuple[float, ...] = (1, 8, 50)
    """Sizes of the pictures, 3 : 2."""
    preset: str = "base"
    """Shape of the network, if no model is given."""
    model: str | None = None
    """A model of mode grayscale: a name, a .safetensors file or a folder of a training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    tile: int = 512
    """Side of the tiles in pixels."""
    precision: Literal["fp32", "bf16"] | None = None
    """Of the peers; bf16 on a GPU and fp32 elsewhere if not given, as Restorer takes."""
    whole_megapixels: float = 8
    """Up to this size a picture is also done in one piece."""
    runs: int = 5
    """Timed runs of each."""
    quick: bool = False
    """Small pictures and few runs: to see that it works."""
    out: Path | None = None
    """Folder for the results as JSON."""

    def __post_init__(self) -> None:
        """Check what would be noticed late."""
        if self.runs < 2:
            raise ValueError(f"runs must be at least 2, for quartiles, got {self.runs}")
        if not self.megapixels or min(self.megapixels) <= 0:
            raise ValueError(f"megapixels must be above 0, got {self.megapixels}")
        find_preset(self.preset)


def main(options: Options) -> None:
    """Measure, print, and write."""
    if options.quick:
        options = replace(
            options, megapixels=(0.02, 0.05), preset="tiny", runs=2, tile=128, whole_megapixels=0.02
        )
    device = find_device(options.device)
    if options.precision is None:
        options = replace(options, precision="bf16" if device.type == "cuda" else "fp32")
    load(options)
    rows, seams, not_measured = [], [], []
    if device.type != "cuda":
        not_measured.append("a GPU: it needs a CUDA device")
    for megapixels in options.megapixels:
        fits = megapixels <= options.whole_megapixels
        if not fits:
            not_measured.append(
                f"{megapixels:g} megapixels in one piece, and seams: above --whole-megapixels"
            )
        for way in WAYS if fits else WAYS[:-1]:
            row = {
                "way": way,
                "megapixels": megapixels,
                **_apart(measure, options, way, megapixels),
            }
            rows.append(row)
            _show(row)
        if fits:
            found = _apart(measure_seams, options, megapixels)
            seams.append({"megapixels": megapixels, **found})
            print(f"seams at {megapixels:g} megapixels: {json.dumps(found)}", flush=True)
    for reason in not_measured:
        print(f"not measured: {reason}")
    if options.out:
        measured = {"results": rows, "seams": seams, "not_measured": not_measured}
        _write(options, device, measured)


def measure(options: Options, way: Way, megapixels: float) -> dict[str, Any]:
    """Measure one way on one size: memory first, then time."""
    device = find_device(options.device)
    net, card = load(options)
    run = _runner(way, net, card, device, options)
    # Libraries load and threads start on a small picture, so that they do not count as growth.
    run(_picture(0.01))
    picture = _picture(megapixels)
    _wait(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = _forget_peak()
    run(picture)
    _wait(device)
    peak = _peak_bytes()
    row: dict[str, Any] = {
        "pixels": picture.numel(),
        "rss_growth_gib": None if peak is None or before is None else (peak - before) / 2**30,
        "gpu_gib": (
            torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        ),
    }
    seconds = []
    for _ in range(options.runs):
        _wait(device)
        begun = time.perf_counter()
        run(picture)
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    lower, _, upper = np.percentile(seconds, [25, 50, 75]).tolist()
    median = statistics.median(seconds)
    return row | {
        "seconds": median,
        "quartiles_s": [lower, upper],
        "megapixels_per_s": picture.numel() / 1e6 / median,
    }


def measure_seams(options: Options, megapixels: float) -> dict[str, Any]:
    """Return how far tiles are from one piece, in steps of 1/255."""
    device = find_device(options.device)
    net, card = load(options)
    picture = _picture(megapixels)
    whole = _runner("whole", net, card, device, options)(picture)
    found: dict[str, Any] = {"changed": _steps((whole - picture).abs().mean())}
    for way in WAYS[:-1]:
        apart = (_runner(way, net, card, device, options)(picture) - whole).abs()
        if not _steps(apart.median()) <= SAME_WORK:
            raise RuntimeError(
                f"not the same work: {way} is {_steps(apart.median()):.2g} steps off"
            )
        found[way] = {"largest": _steps(apart.max()), "mean": _steps(apart.mean())}
    return found


def load(options: Options) -> tuple[UNet, ModelCard]:
    """Return the network; without a model, one that changes pictures at random."""
    if options.model is not None:
        net, card = find_model(options.model)
        if card.mode != "grayscale" or not isinstance(net, UNet):
            raise ValueError(f"model must be of mode grayscale, got {card.mode}: {options.model}")
        return net, card
    torch.manual_seed(0)
    net = UNet(PRESETS[options.preset]).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.5 / weight[0].numel() ** 0.5 * torch.randn_like(weight))
        sample = _picture(0.01)[None]
        # About what damage amounts to; left alone, all would be clipped to black and white.
        net.tail.weight.mul_(0.05 / (net(sample) - sample).std())
    return net, ModelCard(mode="grayscale", net=net_shape(net), training={})


@torch.no_grad()
def hard_cut_tiles(
    net: Callable[[Tensor], Tensor], picture: Tensor, *, tile_px: int, device: torch.device
) -> Tensor:
    """Apply a network (1, C, h, w) to (C, H, W) in tiles that are put side by side, unblended."""
    _, H, W = picture.shape
    result = torch.empty_like(picture)
    for top in range(0, H, tile_px):
        for left in range(0, W, tile_px):
            bottom, right = min(top + tile_px, H), min(left + tile_px, W)
            # What is around the tile, as far as the picture goes.
            above, before = max(top - TILE_PAD_PX, 0), max(left - TILE_PAD_PX, 0)
            below, after = min(bottom + TILE_PAD_PX, H), min(right + TILE_PAD_PX, W)
            answer = net(picture[None, :, above:below, before:after].to(device))[0].float().cpu()
            inner = answer[:, top - above :, left - before :]
            result[:, top:bottom, left:right] = inner[:, : bottom - top, : right - left]
    return result


def _runner(
    way: Way, net: UNet, card: ModelCard, device: torch.device, options: Options
) -> Callable[[Tensor], Tensor]:
    if way == "agedphoto":
        restorer = Restorer(net, card, device=device)
        return lambda picture: restorer(picture, tile=options.tile)
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def apply(tile: Tensor) -> Tensor:
        bf16 = options.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            return net(tile)

    if way == "whole":
        return lambda picture: apply(picture[None].to(device))[0].float().cpu().clamp(0, 1)
    return lambda picture: hard_cut_tiles(
        apply, picture, tile_px=options.tile, device=device
    ).clamp(0, 1)


def _picture(megapixels: float) -> Tensor:
    """Make a picture (1, H, W) of soft shapes and grain, between black and white."""
    height = max(1, round((megapixels * 1e6 / 1.5) ** 0.5))
    width = max(1, round(megapixels * 1e6 / height))
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand(1, 1, 24, 36, generator=generator)
    soft = F.interpolate(rough, size=(height, width), mode="bilinear")[0]
    grain = torch.rand(1, height, width, generator=generator).sub_(0.5).mul_(0.1)
    return soft.mul_(0.6).add_(0.2).add_(grain)


def _apart(run: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run in a process of its own, with memory that nothing else has used."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(run, *arguments).result()
    except BrokenProcessPool:
        return {"failed": "killed; most likely there was not enough memory"}
    except torch.OutOfMemoryError as error:
        return {"failed": str(error).strip().partition("\n")[0]}


def _forget_peak() -> int | None:
    """Start a new peak of the resident set; return its size now in bytes, None if not Linux."""
    path = Path("/proc/self/clear_refs")
    if not path.exists():
        return None
    path.write_text("5")
    return _status_bytes("VmRSS")


def _peak_bytes() -> int | None:
    return _status_bytes("VmHWM") if Path("/proc/self/status").exists() else None


def _status_bytes(name: str) -> int:
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _steps(difference: Tensor) -> float:
    return difference.item() / STEP


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _show(row: dict[str, Any]) -> None:
    line = f"{row['megapixels']:>6g} megapixels  {row['way']:<14}"
    if "failed" in row:
        print(f"{line} failed: {row['failed']}", flush=True)
        return
    line += f" {row['megapixels_per_s']:>8.2f} megapixels/s"
    if row["rss_growth_gib"] is not None:
        line += f", {row['rss_growth_gib']:.2f} GiB"
    if row["gpu_gib"] is not None:
        line += f", {row['gpu_gib']:.2f} GiB on the GPU"
    print(line, flush=True)


def _write(options: Options, device: torch.device, measured: dict[str, Any]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True,
        text=True, check=False,
    ).stdout.strip()  # fmt: skip
    machine = hardware(device)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    net, card = load(options)
    record = {
        "schema": 1,
        "what": "restoring",
        "date": date,
        "commit": commit or None,
        "weights": card.sha256 or "random",
        "net": card.net,
        "parameters": net.num_parameters,
        "tile_px": options.tile,
        "tile_pad_px": TILE_PAD_PX,
        "peer_precision": options.precision,
        "runs": options.runs,
        "threads": torch.get_num_threads(),
        "seed": 0,
        **measured,
        "hardware": machine,
        "versions": versions(),
    }
    assert options.out
    name = "-".join("".join(c if c.isalnum() else " " for c in machine["name"].lower()).split()[:3])
    path = options.out / f"restoring_{name}_{date}.json"
    write_json(path, json.loads(json.dumps(record)))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
