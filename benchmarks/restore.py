"""How fast pictures are restored, in how much memory, and with what seams.

The same network with the same weights in three ways: `agedphoto.restore.Restorer`; the tiles of
Real-ESRGAN, written anew from their description (tiles side by side, each run with 10 px of what is
around it, the rest cut off hard, nothing blended); and the whole picture in one piece, where that
fits. All get the same gray float32 picture in host memory and return one. Tiles have the same side.

Every figure comes from a process of its own. The first run at full size warms up and gives the
memory: growth of the resident set over what network and picture take, and what the GPU had
allocated at most. Then runs are timed, each from one idle device to the next. Seams are the largest
difference to the whole picture in one piece, in steps of 1/255; without a model the weights are
drawn at random, and seams are those of such a network.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from agedphoto.restore import Restorer, find_model
from agedphoto.synth import find_device
from agedphoto.train import PRESETS, ModelCard, UNet, net_shape

from .apart import KilledError, run_apart
from .record import Record, Recorder, Spread
from .settings import Settings
from .timing import time_runs, wait

Way = Literal["agedphoto", "hard-cut tiles", "whole"]
WAYS: tuple[Way, ...] = ("agedphoto", "hard-cut tiles", "whole")
TILE_PAD_PX = 10
"""Real-ESRGAN's default."""
STEP = 1 / 255
SAME_WORK = 1.0
"""How far from the whole picture half of the pixels may be, in steps; seams are the others."""
DEFAULT_MODEL = "grayscale"
BUDGET_S = 60.0
"""For the runs of one figure; two are timed however long they take."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; goes to processes of their own."""

    megapixels: tuple[float, ...] = (1, 8, 50)
    """Sizes of the pictures, 3 : 2."""
    preset: str = "base"
    """Shape of the network, if there is no model."""
    model: str | None = None
    """A model of mode grayscale: a name, a .safetensors file or a folder of a training."""
    device: str = "auto"
    tile: int = 512
    """Side of the tiles in pixels."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the peers; bf16 on a GPU and fp32 elsewhere, as Restorer takes."""
    whole_megapixels: float = 8
    """Up to this size a picture is also done in one piece."""
    runs: int = 5
    """Timed runs of each."""


def run(settings: Settings, recorder: Recorder) -> Record:
    """Measure every way at every size."""
    options = _options(settings)
    net, card = load(options)
    recorder.settings = {
        "model": options.model or "random weights", "weights": card.sha256 or "random",
        "parameters": net.num_parameters, "tile_px": options.tile, "tile_pad_px": TILE_PAD_PX,
        "peer_precision": options.precision, "runs": options.runs,
    }  # fmt: skip
    if options.model is None:
        recorder.miss("restoring", "trained weights", "no model is given; weights are random")
    if settings.device.type != "cuda":
        recorder.miss(
            "restoring", "a GPU", "it needs a CUDA device", command=settings.command("restore")
        )
    for megapixels in options.megapixels:
        fits = megapixels <= options.whole_megapixels
        if not fits:
            recorder.miss(
                "restoring", f"{megapixels:g} megapixels in one piece, and seams",
                f"above {options.whole_megapixels:g} megapixels it does not fit everywhere",
            )  # fmt: skip
        for way in WAYS if fits else WAYS[:-1]:
            try:
                found = run_apart(measure, options, way, megapixels, here=settings.quick)
            except (KilledError, RuntimeError) as error:
                recorder.fail("restoring", f"{way}, {megapixels:g} megapixels", error)
                continue
            recorder.add(
                "restoring", way, "megapixels/s",
                Spread.of_rates(found["pixels"] / 1e6, found["seconds"]),
                more={
                    "rss_growth_gib": found["rss_growth_gib"], "gpu_gib": found["gpu_gib"],
                    "seconds": Spread.of(found["seconds"]).median,
                },
                megapixels=megapixels,
            )  # fmt: skip
        if fits:
            try:
                seams = run_apart(measure_seams, options, megapixels, here=settings.quick)
            except (KilledError, RuntimeError) as error:
                recorder.fail("seams", f"{megapixels:g} megapixels", error)
                continue
            for way in WAYS[:-1]:
                largest = seams[way]["largest"]
                recorder.add(
                    "seams", way, "of 255, largest", Spread.of([largest]), higher_is_better=False,
                    more={"seam_mean": seams[way]["mean"]}, megapixels=megapixels,
                )  # fmt: skip
    return recorder.finish()


def _options(settings: Settings) -> Options:
    model = settings.model
    if model is None:
        try:
            find_model(DEFAULT_MODEL)
            model = DEFAULT_MODEL
        except (ValueError, OSError):
            # None is shipped: the same work with weights drawn at random.
            model = None
    common: dict[str, Any] = {
        "model": model, "device": str(settings.device),
        "precision": "bf16" if settings.large else "fp32",
    }  # fmt: skip
    if settings.quick:
        # The shipped network would be most of the two minutes.
        return Options(
            **{**common, "model": settings.model},
            megapixels=(0.1, 0.2), preset="tiny", runs=2, tile=256, whole_megapixels=0.1,
        )  # fmt: skip
    return Options(**common)


def measure(options: Options, way: Way, megapixels: float) -> dict[str, Any]:
    """Measure one way on one size: memory first, then time."""
    device = find_device(options.device)
    net, card = load(options)
    run = _runner(way, net, card, device, options)
    # Libraries load and threads start on a small picture, so that they do not count as growth.
    run(_picture(0.01))
    picture = _picture(megapixels)
    wait(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = _forget_peak()
    run(picture)
    wait(device)
    peak = _peak_bytes()
    row: dict[str, Any] = {
        "pixels": picture.numel(),
        "rss_growth_gib": None if peak is None or before is None else (peak - before) / 2**30,
        "gpu_gib": (
            torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        ),
    }
    row["seconds"] = time_runs(
        lambda: run(picture), device, runs=options.runs, warm_up=0, budget_s=BUDGET_S
    )
    return row


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
