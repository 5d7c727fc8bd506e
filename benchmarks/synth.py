"""How fast photographs age: ours and others' the same work on the same device; then every defect
and every recipe, and on a GPU the fused kernel, from a batch and out of a pool.

Work of one batch: uint8 RGB photos -> luma -> Gaussian grain of sigma 0.10, clipped -> one texture,
clip(x + alpha t) -> aged and clean, float32. The floor is a copy of the bytes that the work must
read and write, measured here too.

Defects and recipes differ in their work, so they stand beside each other and beside no one else.
The kernel writes bfloat16: 3 bytes of the photo, 1 of the texture, 2 + 2 written, 8 a pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agedphoto.synth import (
    DEFECTS,
    RECIPES,
    Ageing,
    Augment,
    Pixels,
    Recipe,
    find_recipe,
)
from agedphoto.textures import TextureBank

from .record import Record, Recorder, Spread
from .settings import Settings
from .synth_peers import Run, Work, check, contenders
from .timing import time_runs

BYTES_A_PIXEL = 3 + 1 + 4 + 4
"""Read: three of the photo, one of the texture. Written: float32 aged and clean."""

COLOR_BYTES_A_PIXEL = 3 + 12 + 12
"""Of a defect or a recipe, in colour: read the photo; write float32 aged and clean."""

FUSED_BYTES_A_PIXEL = 3 + 1 + 2 + 2
"""With bfloat16 aged and clean."""

POOL_BYTES = 6 * 10**9
LAUNCHES = 50
"""Of the kernel between two waits."""

FLOOR_BYTES = 2**30
"""The floor copies at least so many: less would stay in a cache. Servers have some 400 MB of it."""


COVERED = 0.05
"""Share of the pixels that textures cover where equal work is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of it."""

    batch_size: int
    crop_px: int
    runs: int
    checked_photos: int
    checked_px: int
    slack: float
    budget_s: float
    """Longest time for the runs of one defect."""
    compiled: bool


def sizes_for(settings: Settings) -> Sizes:
    """Return the sizes that suit the device."""
    if settings.quick:
        return Sizes(
            batch_size=4, crop_px=64, runs=3, checked_photos=16, checked_px=128, slack=0.01,
            budget_s=0.2, compiled=False,
        )  # fmt: skip
    return Sizes(
        batch_size=64 if settings.large else 16, crop_px=256, runs=30, checked_photos=32,
        checked_px=256, slack=0.01, budget_s=5.0, compiled=True,
    )  # fmt: skip


def run(settings: Settings, recorder: Recorder) -> Record:
    """Check, then measure."""
    sizes, device = sizes_for(settings), settings.device
    recorder.settings = {
        "batch_size": sizes.batch_size, "crop_px": sizes.crop_px, "runs": sizes.runs,
    }  # fmt: skip
    bank = TextureBank.load().to(device)
    photos = _photos(sizes.batch_size, sizes.crop_px, device, seed=0)
    rate = _copy_rate(photos.numel() // 3 * BYTES_A_PIXEL, device, sizes.runs)
    _same_work(settings, sizes, photos, bank, rate, recorder)
    _recipes(sizes, photos, bank, rate, recorder)
    _defects(sizes, photos, bank, rate, recorder)
    _kernel(settings, sizes, bank, recorder)
    return recorder.finish()


def _same_work(
    settings: Settings,
    sizes: Sizes,
    photos: Tensor,
    bank: TextureBank,
    rate: Spread,
    recorder: Recorder,
) -> None:
    """Measure all contenders, after they have shown that they do the same."""
    table, device = "same work", settings.device
    made: dict[str, Callable[[Work], Run]] = {}
    for one in contenders(device):
        if one.make is None:
            recorder.miss(table, one.name, one.why_not)
        elif one.compiled and not sizes.compiled:
            recorder.miss(table, one.name, "left out by --quick", command=settings.command("synth"))
        else:
            made[one.name] = one.make
    # Others draw from the global generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        checked = Work(
            photos=_photos(sizes.checked_photos, sizes.checked_px, device, seed=1),
            bank=_even_bank(device),
        )

        def make_again(name: str, sigma: float, alpha: float) -> Run:
            return made[name](replace(checked, sigma=sigma, alpha=alpha))

        first = next(iter(made))
        for name in list(made):
            try:
                pair = {who: made[who](checked) for who in (first, name)}
                check(pair, make_again, sizes.slack)
            except Exception as error:
                if name == first:
                    raise
                del made[name]
                recorder.fail(table, name, error)
        torch.compiler.reset()
        work = Work(photos=photos, bank=bank)
        needed = photos.numel() // 3 * BYTES_A_PIXEL
        floor = needed / rate.median
        recorder.add(
            table, "copy floor", "pairs/s", _scaled(rate, len(photos) / needed),
            more={
                "median_ms": 1e3 * floor, "gb_per_s": rate.median / 1e9,
                "bytes_a_pixel": BYTES_A_PIXEL, "share_of_floor": 1.0,
            },
        )  # fmt: skip
        for name, make in made.items():
            seconds = time_runs(make(work), device, runs=sizes.runs, budget_s=6 * sizes.budget_s)
            _add(recorder, table, name, seconds, len(photos), needed, floor)


def _recipes(
    sizes: Sizes, photos: Tensor, bank: TextureBank, rate: Spread, recorder: Recorder
) -> None:
    """Age a batch of colour photos after every recipe, as `backend="auto"` does it."""
    for name in RECIPES:
        ageing = Ageing(name, textures=bank)
        _age(sizes, "recipes", name, ageing, photos, rate, recorder)


def _defects(
    sizes: Sizes, photos: Tensor, bank: TextureBank, rate: Spread, recorder: Recorder
) -> None:
    """The same for every defect with the strengths that it has by default."""
    for name, kind in DEFECTS.items():
        recipe = Recipe(name=name, defects=(kind(),))
        ageing = Ageing(recipe, textures=bank, augment=False)
        _age(sizes, "defects", name, ageing, photos, rate, recorder)


def _age(
    sizes: Sizes,
    table: str,
    name: str,
    ageing: Ageing,
    photos: Tensor,
    rate: Spread,
    recorder: Recorder,
) -> None:
    keys = torch.arange(len(photos), device=photos.device)
    bytes_a_pixel = COLOR_BYTES_A_PIXEL + (1 if ageing.recipe.uses_textures else 0)
    needed = photos.numel() // 3 * bytes_a_pixel
    seconds = time_runs(
        partial(ageing, photos, keys), photos.device, runs=sizes.runs, budget_s=sizes.budget_s,
        warm_up=2,
    )  # fmt: skip
    _add(
        recorder, table, name, seconds, len(photos), needed, needed / rate.median,
        backend=ageing.backend_on(photos.device),
    )  # fmt: skip


def _kernel(settings: Settings, sizes: Sizes, bank: TextureBank, recorder: Recorder) -> None:
    """The fused kernel in bfloat16: 256 photos of 256 px, from a batch and out of a pool."""
    device = settings.device
    if device.type != "cuda":
        recorder.miss(
            "kernel",
            "the fused kernel",
            "it needs a CUDA device",
            command=settings.command("synth"),
        )
        return
    B, S = 256, 256
    still = replace(find_recipe("seed"), augment=Augment(p=0.0))
    moving = replace(find_recipe("seed"), augment=replace(find_recipe("seed").augment, p=1.0))
    needed = FUSED_BYTES_A_PIXEL * B * S * S
    rate = _copy_rate(needed, device, sizes.runs)
    photos = _photos(B, S, device, seed=0)
    keys = torch.arange(B, device=device)
    pool = _pool(B, device)
    recorder.add(
        "kernel", "copy floor", "pairs/s", _scaled(rate, B / needed),
        more={
            "median_ms": 1e3 * needed / rate.median, "gb_per_s": rate.median / 1e9,
            "bytes_a_pixel": FUSED_BYTES_A_PIXEL, "share_of_floor": 1.0,
        },
    )  # fmt: skip
    for name, recipe in (("in its place", still), ("rotated, zoomed, moved", moving)):
        ageing = Ageing(
            recipe, mode="grayscale", textures=bank, dtype=torch.bfloat16, backend="fused"
        )
        for source, age in (
            ("from a batch", partial(ageing, photos, keys)),
            ("out of the pool", partial(ageing.age_crops, pool, keys, crop_px=S)),
        ):
            # One launch takes less time than waiting for it.
            seconds = time_runs(age, device, runs=sizes.runs, launches=LAUNCHES)
            title = f"seed {source}, {name}"
            _add(recorder, "kernel", title, seconds, B, needed, needed / rate.median)


def _pool(count: int, device: torch.device) -> Pixels:
    """Return places of photos that lie far apart in a large buffer."""
    H, W = 1356, 2040
    num_pooled = POOL_BYTES // (3 * H * W)
    flat = torch.randint(0, 256, (num_pooled * 3 * H * W,), dtype=torch.uint8, device=device)
    place = torch.arange(count, device=device)
    return Pixels(
        flat=flat,
        offsets=(place * 7919 % num_pooled) * (3 * H * W),
        heights=torch.full_like(place, H),
        widths=torch.full_like(place, W),
        row_stride=None,
        column_stride=3,
        channel_stride=1,
    )


def _photos(count: int, side_px: int, device: torch.device, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, side_px, side_px)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


def _even_bank(device: torch.device) -> TextureBank:
    """Return textures that cover alike, so that who drew which makes no difference."""
    generator = torch.Generator().manual_seed(2)
    shape = (8, 512, 512)
    marks = torch.rand(shape, generator=generator) < COVERED
    strengths = torch.randint(128, 256, shape, generator=generator)
    names = tuple(f"mixed-{number:04d}" for number in range(len(marks)))
    return TextureBank((marks * strengths).to(torch.uint8), names).to(device)


def _copy_rate(needed: int, device: torch.device, runs: int) -> Spread:
    """Return bytes read and written a second of a copy."""
    size = max(needed, FLOOR_BYTES) // 2
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = time_runs(partial(target.copy_, source), device, runs=runs)
    return Spread.of_rates(2 * size, seconds)


def _add(
    recorder: Recorder,
    table: str,
    name: str,
    seconds: list[float],
    count: int,
    needed: int,
    floor_s: float,
    **more: Any,
) -> None:
    """Note a rate beside the floor, which takes `floor_s` for the same bytes."""
    median = Spread.of(seconds).median
    pixels = recorder.settings["crop_px"] ** 2 * count if table != "kernel" else 256 * 256 * count
    recorder.add(
        table, name, "pairs/s", Spread.of_rates(count, seconds),
        more={
            "median_ms": 1e3 * median,
            "gb_per_s": needed / median / 1e9,
            "bytes_a_pixel": needed / pixels,
            "share_of_floor": floor_s / median,
            **more,
        },
    )  # fmt: skip


def _scaled(spread: Spread, factor: float) -> Spread:
    return Spread(
        median=spread.median * factor, lower=spread.lower * factor, upper=spread.upper * factor
    )
