"""How fast photographs age: ours and the Kornia chain, the same work on the same device.

Work of one batch: uint8 RGB photos -> luma -> Gaussian grain of sigma 0.10, clipped -> one texture,
clip(x + alpha t) -> aged and clean, float32. Each contender is first shown to do that work: its
aged pictures differ from the clean ones by the same mean and spread. Then warm-up, and the median
and quartiles of runs that end with the device idle. The floor is a copy of the bytes that the work
must read and write, measured here too.

    python benchmarks/ageing.py --out benchmarks/results
"""

import datetime
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kornia.augmentation
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from agedphoto.datasets.files import write_json
from agedphoto.machine import hardware, versions
from agedphoto.synth import Ageing, Grain, Grayscale, Recipe, Texture, find_device
from agedphoto.textures import TextureBank

SIGMA, ALPHA = 0.10, 0.5
RECIPE = Recipe(
    name="benchmark",
    defects=(
        Grayscale(),
        Grain(sigma=(SIGMA, SIGMA)),
        Texture(alpha=(ALPHA, ALPHA), zoom=(1.0, 1.0)),
    ),
)
BYTES_A_PIXEL = 3 + 1 + 4 + 4
"""Read: three of the photo, one of the texture. Written: float32 aged and clean."""

FLOOR_BATCHES = 16
"""The floor copies so many batches at once: one alone would stay in a cache."""

Contender = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    batch_size: int = 16
    """Photographs of a batch."""
    crop_px: int = 256
    """Side of the photographs."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    runs: int = 30
    """Timed runs of each contender."""
    compile: bool = True
    """Also measure ours compiled; needs a C++ compiler on a CPU."""
    out: Path | None = None
    """Folder for the results as JSON."""


def main(options: Options) -> None:
    """Check, measure, print, and write."""
    device = find_device(options.device)
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, options.crop_px, options.crop_px)
    photos = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    bank = TextureBank.synthesize(16).to(device)
    contenders = _contenders(photos, bank, compiled=options.compile)
    _check_equal_work(contenders)
    pixels = photos.numel() // 3
    rows = {}
    for name, run in {"copy floor": _copy(pixels, device), **contenders}.items():
        share = FLOOR_BATCHES if name == "copy floor" else 1
        seconds = [taken / share for taken in _time(run, options.runs, device, name)]
        rows[name] = {
            "median_ms": 1e3 * seconds[1],
            "quartiles_ms": [1e3 * seconds[0], 1e3 * seconds[2]],
            "pairs_per_s": options.batch_size / seconds[1],
        }
        rows[name]["share_of_floor"] = rows["copy floor"]["median_ms"] / rows[name]["median_ms"]
    _show(rows)
    if options.out:
        _write(options, device, rows)


def _contenders(photos: Tensor, bank: TextureBank, *, compiled: bool) -> dict[str, Contender]:
    B, _, H, W = photos.shape
    ageing = Ageing(RECIPE, mode="grayscale", textures=bank)
    keys = torch.arange(B, device=photos.device)

    def ours() -> tuple[Tensor, Tensor]:
        return ageing(photos, keys)[:2]

    gray = kornia.augmentation.RandomGrayscale(p=1.0)
    noise = kornia.augmentation.RandomGaussianNoise(mean=0.0, std=SIGMA, p=1.0)

    def kornia_chain() -> tuple[Tensor, Tensor]:
        clean = gray(photos.float() / 255)[:, :1]
        grainy = noise(clean).clamp(0, 1)
        index = torch.randint(len(bank), (B,), device=photos.device)
        top, left = torch.randint(bank.size_px - max(H, W), (2,)).tolist()
        layer = bank.textures[index, top : top + H, left : left + W][:, None].float() / 255
        return (grainy + ALPHA * layer).clamp(0, 1), clean

    both: dict[str, Contender] = {"agedphoto, eager": ours, "Kornia chain, eager": kornia_chain}
    if compiled:
        fused = torch.compile(lambda p, k: tuple(ageing(p, k)[:2]), dynamic=False)
        both["agedphoto, compiled"] = lambda: fused(photos, keys)  # type: ignore[assignment]
    return both


def _check_equal_work(contenders: dict[str, Contender]) -> None:
    """Stop unless all contenders change the photographs by the same mean and spread."""
    measured = {}
    for name, run in contenders.items():
        aged, clean = run()
        change = aged - clean
        measured[name] = (change.mean().item(), change.std().item(), tuple(aged.shape))
    mean, spread, shape = next(iter(measured.values()))
    for name, (other_mean, other_spread, other_shape) in measured.items():
        same = abs(other_mean - mean) < 0.01 and abs(other_spread - spread) < 0.01
        if not same or other_shape != shape:
            raise SystemExit(f"not the same work: {measured}; see {name}")


def _copy(pixels: int, device: torch.device) -> Callable[[], Any]:
    """A copy that reads and writes as many bytes as `FLOOR_BATCHES` of the work must."""
    size = FLOOR_BATCHES * pixels * BYTES_A_PIXEL // 2
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _time(
    run: Callable[[], Any], runs: int, device: torch.device, name: str
) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile of the seconds of a run."""
    for _ in range(3):
        run()
    seconds = []
    for _ in tqdm(range(runs), name, leave=False):
        _wait(device)
        begun = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    lower, median, upper = statistics.quantiles(seconds, n=4)
    return lower, median, upper


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _show(rows: dict[str, dict[str, Any]]) -> None:
    print(f"{'':<22} {'median':>10} {'quartiles':>19} {'pairs/s':>10} {'of floor':>9}")
    for name, row in rows.items():
        lower, upper = row["quartiles_ms"]
        print(
            f"{name:<22} {row['median_ms']:>7.2f} ms {lower:>8.2f} - {upper:<8.2f} "
            f"{row['pairs_per_s']:>10,.0f} {row['share_of_floor']:>9.1%}"
        )


def _write(options: Options, device: torch.device, rows: dict[str, dict[str, Any]]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = hardware(device)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "schema": 1,
        "what": "ageing",
        "date": date,
        "commit": commit,
        "batch_size": options.batch_size,
        "crop_px": options.crop_px,
        "runs": options.runs,
        "seed": 0,
        "results": rows,
        "hardware": machine,
        "versions": versions(),
    }
    assert options.out
    name = "".join(c if c.isalnum() else "-" for c in machine["name"].lower()).strip("-")
    path = options.out / f"ageing_{name}_{date}.json"
    write_json(path, json.loads(json.dumps(record)))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
