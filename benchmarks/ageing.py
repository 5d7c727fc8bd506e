"""How fast photographs age: ours and the Kornia chain, the same work on the same device; then every
recipe, and on a GPU the fused kernel against the floor.

Work of one batch: uint8 RGB photos -> luma -> Gaussian grain of sigma 0.10, clipped -> one texture,
clip(x + alpha t) -> aged and clean, float32. Each contender is first shown to do that work: its
aged pictures differ from the clean ones by the same mean and spread. Then warm-up, and the median
and quartiles of runs that end with the device idle. The floor is a copy of the bytes that the work
must read and write, measured here too.

Recipes differ in their work, so they stand beside each other and beside no one else. The kernel
writes bfloat16: 3 bytes of the photo, 1 of the texture, 2 + 2 written, 8 a pixel.

    python benchmarks/ageing.py --out benchmarks/results
"""

import datetime
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import kornia.augmentation
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from agedphoto.datasets.files import write_json
from agedphoto.machine import hardware, versions
from agedphoto.synth import (
    RECIPES,
    Ageing,
    Augment,
    Backend,
    Grain,
    Grayscale,
    Pixels,
    Recipe,
    Texture,
    find_device,
    find_recipe,
)
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

FUSED_BYTES_A_PIXEL = 3 + 1 + 2 + 2
"""The same with bfloat16 aged and clean."""

POOL_BYTES = 6 * 10**9
LAUNCHES = 50
"""Of the kernel between two waits."""

FLOOR_BATCHES = 16
"""The floor copies so many batches at once: one alone would stay in a cache."""

CHECKED_PHOTOS, CHECKED_PX = 128, 256

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
    recipes: bool = True
    """Also measure every recipe."""
    compile_recipes: bool = False
    """Also measure every recipe compiled, which takes minutes a recipe to compile on a CPU."""
    train_pairs_per_s: float | None = None
    """Pairs of that size that a training step takes a second here, to say what share of it a recipe
    would be."""
    out: Path | None = None
    """Folder for the results as JSON."""


def main(options: Options) -> None:
    """Check, measure, print, and write."""
    device = find_device(options.device)
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, options.crop_px, options.crop_px)
    photos = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    bank = TextureBank.load().to(device)
    # Kornia's chain draws from the global generator.
    torch.manual_seed(0)
    _check_equal_work(_contenders(_checked(device), bank, device, compiled=options.compile))
    contenders = _contenders(photos, bank, device, compiled=options.compile)
    pixels = photos.numel() // 3
    rows = {}
    for name, run in {"copy floor": _copy(pixels, device), **contenders}.items():
        share = FLOOR_BATCHES if name == "copy floor" else 1
        seconds = [taken / share for taken in _time(run, options.runs, device, name)]
        rows[name] = _row(seconds, options.batch_size)
        rows[name]["share_of_floor"] = rows["copy floor"]["median_ms"] / rows[name]["median_ms"]
    _show(rows)
    recipes = _measure_recipes(photos, bank, device, options) if options.recipes else {}
    kernel = _measure_kernel(bank, device, options.runs)
    if options.out:
        _write(options, device, {"results": rows, "recipes": recipes, "kernel": kernel})


def _row(seconds: Sequence[float], num_photos: int) -> dict[str, Any]:
    return {
        "median_ms": 1e3 * seconds[1],
        "quartiles_ms": [1e3 * seconds[0], 1e3 * seconds[2]],
        "pairs_per_s": num_photos / seconds[1],
    }


def _measure_recipes(
    photos: Tensor, bank: TextureBank, device: torch.device, options: Options
) -> dict[str, dict[str, Any]]:
    """Age a batch of `color` photographs after every recipe, as `backend="auto"` does it."""
    keys = torch.arange(len(photos), device=device)
    rows = {}
    for name in RECIPES:
        backends: list[Backend] = ["auto"]
        if options.compile_recipes and device.type == "cpu":
            backends.append("compiled")
        for backend in backends:
            ageing = Ageing(name, textures=bank, backend=backend)
            used = ageing.backend_on(device)
            run = partial(ageing, photos, keys)
            seconds = _time(run, max(options.runs // 5, 4), device, f"{name}, {used}")
            row: dict[str, Any] = _row(seconds, len(photos)) | {"backend": used}
            if options.train_pairs_per_s:
                row["share_of_training"] = options.train_pairs_per_s / row["pairs_per_s"]
            rows[f"{name}, {used}"] = row
    print()
    _show(rows)
    return rows


def _measure_kernel(
    bank: TextureBank, device: torch.device, runs: int
) -> dict[str, dict[str, Any]] | None:
    """The fused kernel in bfloat16: 256 photos of 256 px, from a batch and out of a pool."""
    if device.type != "cuda":
        print("\nfused kernel: not measured, it needs a CUDA device")
        return None
    B, S = 256, 256
    still = replace(find_recipe("seed"), augment=Augment(p=0.0))
    moving = replace(find_recipe("seed"), augment=replace(find_recipe("seed").augment, p=1.0))
    size = FUSED_BYTES_A_PIXEL * B * S * S // 2
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    photos = torch.randint(0, 256, (B, 3, S, S), dtype=torch.uint8, device=device)
    keys = torch.arange(B, device=device)
    H, W = 1356, 2040
    num_pooled = POOL_BYTES // (3 * H * W)
    flat = torch.randint(0, 256, (num_pooled * 3 * H * W,), dtype=torch.uint8, device=device)
    place = torch.arange(B, device=device)
    pool = Pixels(
        flat=flat,
        offsets=(place * 7919 % num_pooled) * (3 * H * W),
        heights=torch.full_like(place, H),
        widths=torch.full_like(place, W),
        row_stride=None,
        column_stride=3,
        channel_stride=1,
    )
    contenders: dict[str, Callable[[], Any]] = {
        "copy floor, 8 bytes a pixel": partial(target.copy_, source)
    }
    for name, recipe in (("in its place", still), ("rotated, zoomed, moved", moving)):
        ageing = Ageing(
            recipe, mode="grayscale", textures=bank, dtype=torch.bfloat16, backend="fused"
        )
        contenders[f"seed from a batch, {name}"] = partial(ageing, photos, keys)
        contenders[f"seed out of the pool, {name}"] = partial(
            ageing.age_crops, pool, keys, crop_px=S
        )
    rows: dict[str, dict[str, Any]] = {}
    for name, run in contenders.items():

        def repeated(run: Callable[[], Any] = run) -> None:
            # One launch takes less time than waiting for it.
            for _ in range(LAUNCHES):
                run()

        seconds = [taken / LAUNCHES for taken in _time(repeated, runs, device, name)]
        rows[name] = _row(seconds, B)
        floor = rows["copy floor, 8 bytes a pixel"]["median_ms"]
        rows[name]["share_of_floor"] = floor / rows[name]["median_ms"]
    print()
    _show(rows)
    return rows


def _contenders(
    photos: Tensor, bank: TextureBank, device: torch.device, *, compiled: bool
) -> dict[str, Contender]:
    B, _, H, W = photos.shape
    ageing = Ageing(RECIPE, mode="grayscale", textures=bank, backend="eager")
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
        compiled_ageing = Ageing(RECIPE, mode="grayscale", textures=bank, backend="compiled")
        both["agedphoto, compiled"] = lambda: compiled_ageing(photos, keys)[:2]
    if device.type == "cuda":
        kernel = Ageing(RECIPE, mode="grayscale", textures=bank, backend="fused")
        both["agedphoto, fused kernel"] = lambda: kernel(photos, keys)[:2]
    return both


def _checked(device: torch.device) -> Tensor:
    """Return photographs to check on: so many that the luck of the textures averages out."""
    generator = torch.Generator().manual_seed(1)
    shape = (CHECKED_PHOTOS, 3, CHECKED_PX, CHECKED_PX)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


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
    wide = max(map(len, rows))
    print(f"{'':<{wide}} {'median':>10} {'quartiles':>19} {'pairs/s':>10} {'of floor':>9}")
    for name, row in rows.items():
        lower, upper = row["quartiles_ms"]
        print(
            f"{name:<{wide}} {row['median_ms']:>7.2f} ms {lower:>8.2f} - {upper:<8.2f} "
            f"{row['pairs_per_s']:>10,.0f} {_share(row):>9}"
        )


def _share(row: dict[str, Any]) -> str:
    return f"{row['share_of_floor']:.1%}" if "share_of_floor" in row else ""


def _write(options: Options, device: torch.device, measured: dict[str, Any]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = hardware(device)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "schema": 2,
        "what": "ageing",
        "date": date,
        "commit": commit,
        "batch_size": options.batch_size,
        "crop_px": options.crop_px,
        "runs": options.runs,
        "seed": 0,
        **measured,
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
