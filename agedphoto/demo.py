"""`agedphoto demo`: the whole way of a photograph, small, on real photographs.

    photos -> lossless shards -> pool -> aged pairs -> a UNet, trained for a few minutes
           -> photos it never saw, aged with textures it never saw, restored -> report.html

Everything is made in a temporary folder beside the result, which takes its name at the end: a demo
that fails leaves nothing, and keeps an earlier one.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from agedphoto import __version__
from agedphoto.datasets import AgedPairs, ShardIndex, open_index, write_shards
from agedphoto.datasets.files import check_writable
from agedphoto.demo_photos import DemoPhotos, bundled_photos, split_photos
from agedphoto.machine import hardware, versions
from agedphoto.report import Pair, Restoration, write_report
from agedphoto.restore import Restorer
from agedphoto.synth import Ageing, find_device, find_recipe, sample_keys
from agedphoto.synth.keys import check_seed
from agedphoto.textures import TextureBank
from agedphoto.train import TrainConfig, TrainResult, picture_quality, train
from agedphoto.training import (
    FIRST_HELD_OUT,
    HELD_OUT_EPOCH,
    HELD_OUT_TEXTURES,
    fixed_pairs,
)

CROP_PX = 64
BATCH_SIZE = 16
CROPS_PER_PHOTO = 256
LEFT_BEHIND = frozenset({"model", "pictures", "report.html", "report.json", "shards"})
BLUR_SIGMAS_PX = (0.7, 1.0, 1.4, 2.0, 2.8)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the demo leaves."""

    report: Path
    record: dict[str, Any]
    """The content of report.json."""
    left_out: tuple[tuple[str, str], ...]
    """Names of photos that took no part, and why."""
    unreadable: bool
    """Whether one of them could not be read."""


def run_demo(
    out: Path,
    *,
    photos: Path | None = None,
    recipe: str = "seed",
    num_pairs: int = 60_000,
    minutes: float = 4.5,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> DemoResult:
    """Run the demo and leave shards, model, pictures, report.html and report.json in `out`.

    Args:
        out: Folder; it must be new, empty, or hold an earlier demo, which is replaced.
        photos: Folder of photos, at least two; an eighth of them, the last by name, is held out.
            None takes photographs that come with scikit-image.
        recipe: Name of the recipe.
        num_pairs: How many pairs to train on.
        minutes: When to stop training, if that comes sooner.
        seed: Of everything drawn at random.
        device: See `find_device`.
        progress: Show progress bars.

    Raises:
        ValueError: If an argument does not fit, or there are not two photos to work with. Nothing
            is left behind.
    """
    place = find_device(device)
    find_recipe(recipe)
    check_seed(seed)
    config = TrainConfig(
        preset="tiny",
        num_pairs=num_pairs,
        max_minutes=minutes,
        lr=2e-3,
        warmup_pairs=500,
        ema_half_life=2_000,
        log_every=500,
        validate_every=2_000,
        tensorboard=False,
        init_seed=seed,
    )
    chosen = bundled_photos() if photos is None else split_photos(photos, least_px=CROP_PX)
    with _replacing_folder(out) as work:
        record, left_out, unreadable = _run(
            work,
            chosen,
            config=config,
            recipe=recipe,
            seed=seed,
            device=place,
            progress=progress,
        )
    return DemoResult(
        report=out / "report.html",
        record=record,
        left_out=tuple(left_out),
        unreadable=unreadable,
    )


def _run(
    work: Path,
    chosen: DemoPhotos,
    *,
    config: TrainConfig,
    recipe: str,
    seed: int,
    device: torch.device,
    progress: bool,
) -> tuple[dict[str, Any], list[tuple[str, str]], bool]:
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    # Photos to shards.
    with _timed(seconds, "shards"):
        rejected = []
        for split, paths in (("train", chosen.train), ("valid", chosen.held_out)):
            done = write_shards(
                paths, work / "shards", split=split, root=chosen.root, progress=progress
            )
            rejected += [(path.name, reason) for path, reason in done.rejected]
    index = open_index(work / "shards")
    decode_rate = _decode_rate(index)

    # What lies on the prints.
    with _timed(seconds, "textures"):
        textures = TextureBank.load()
        unseen = TextureBank.synthesize(
            HELD_OUT_TEXTURES, seed=seed, first=FIRST_HELD_OUT, progress=progress
        )

    # Aged pairs to a model.
    validation = fixed_pairs(
        work / "shards", textures=unseen, recipe=recipe, crop_px=CROP_PX, seed=seed, device=device
    )
    with (
        _timed(seconds, "training"),
        AgedPairs(
            work / "shards",
            recipe=recipe,
            crop_px=CROP_PX,
            batch_size=BATCH_SIZE,
            crops_per_photo=CROPS_PER_PHOTO,
            seed=seed,
            device=device,
            textures=textures,
        ) as pairs,
    ):
        trained = train(pairs, work / "model", config, validation=validation, progress=progress)
        too_small = [(key, f"smaller than the crop of {CROP_PX} px") for key in pairs.left_out]
        shown = _training_pairs(pairs)
        settings = {
            "crop_px": CROP_PX,
            "batch_size": BATCH_SIZE,
            "crops_per_photo": CROPS_PER_PHOTO,
        }

    # A model to restored photos.
    with _timed(seconds, "restoring"):
        restorer = Restorer.from_pretrained(work / "model", device=device)
        held_out = index.of_split("valid")
        ageing = Ageing(recipe, seed=seed, mode="grayscale", textures=unseen, augment=False)
        restorations, sigmas, rate = _restore_all(restorer, ageing, held_out, progress=progress)
    seconds["total"] = time.perf_counter() - started

    record = _record(
        restorations,
        sigmas,
        chosen=chosen,
        left_out=rejected + too_small,
        index=index,
        trained=trained,
        seconds=seconds,
        speed={
            "shard_photos_per_s": len(index) / seconds["shards"],
            "decode_photos_per_s": decode_rate,
            "ageing_pairs_per_s": trained.stats["pairs_per_s_unhindered"],
            "train_pairs_per_s": trained.seen_pairs / trained.seconds,
            "data_wait_share": trained.stats["wait_share"],
            "restore_megapixels_per_s": rate,
        },
        config={
            "recipe": find_recipe(recipe).to_dict(),
            "seed": seed,
            "pairs": settings,
            "train": config.to_dict(),
            "textures": len(textures),
            "held_out_textures": len(unseen),
        },
        device=device,
    )
    _save_pictures(work / "pictures", restorations)
    write_report(work, record, restorations, shown)
    return record, rejected + too_small, bool(rejected)


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `out` when the block ends well."""
    out = out.absolute()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_demo(out))):
        raise ValueError(
            f"{out} exists and is not an earlier demo, or holds more than one; choose another --out"
        )
    if out.resolve() == Path.cwd() or out.is_mount():
        raise ValueError(f"{out} cannot be replaced as a whole; choose a folder in it as --out")
    parent = out.parent
    check_writable(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{out.name}.") as temporary:
        work = Path(temporary) / "new"
        work.mkdir()
        yield work
        if out.exists():
            out.rename(Path(temporary) / "old")
        work.rename(out)


def _is_demo(folder: Path) -> bool:
    """Whether a folder holds what a demo leaves, and nothing of anybody else's."""
    if any(path.name not in LEFT_BEHIND for path in folder.iterdir()):
        return False
    try:
        return "agedphoto" in json.loads((folder / "report.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begun


def _decode_rate(index: ShardIndex, *, at_least_s: float = 0.5) -> float:
    """Photos read from their shards and decoded in a second, on one thread."""
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < at_least_s:
        index.read(count % len(index))
        count += 1
    return count / (time.perf_counter() - begun)


def _training_pairs(pairs: AgedPairs, count: int = 8) -> list[Pair]:
    """The first pairs of an epoch, for people to look at."""
    pairs.set_epoch(0)
    batch = next(iter(pairs))
    return [
        Pair(aged=_to_uint8(aged), clean=_to_uint8(clean), mask=mask[0].cpu().numpy())
        for aged, clean, mask in list(zip(batch.aged, batch.clean, batch.mask, strict=True))[:count]
    ]


def _restore_all(
    restorer: Restorer, ageing: Ageing, held_out: ShardIndex, *, progress: bool
) -> tuple[list[Restoration], list[float], float]:
    """Age and restore whole photos; also return the best blurs, and megapixels a second."""
    restorations, sigmas = [], []
    seconds = pixels = 0.0
    tiles = sum(
        restorer.count_tiles(int(height), int(width))
        for height, width in zip(held_out.height, held_out.width, strict=True)
    )
    with tqdm(total=tiles, desc="restore", unit="tile", disable=not progress) as bar:
        for number, name in enumerate(held_out.keys.tolist()):
            photo = torch.from_numpy(held_out.read(number)).permute(2, 0, 1)[None]
            samples = torch.tensor([number])
            keys = sample_keys(ageing.seed, HELD_OUT_EPOCH, samples, torch.zeros_like(samples))
            aged_tensor, clean_tensor, _ = ageing(photo, keys)
            aged, clean = _to_uint8(aged_tensor[0]), _to_uint8(clean_tensor[0])
            begun = time.perf_counter()
            restored = restorer(aged, on_tile=bar.update)
            seconds += time.perf_counter() - begun
            pixels += aged.size
            blurred, sigma = _best_blur(aged, clean)
            before, blur, after = (
                picture_quality(picture, clean) for picture in (aged, blurred, restored)
            )
            sigmas.append(sigma)
            restorations.append(
                Restoration(
                    name=name,
                    clean=clean,
                    aged=aged,
                    restored=restored,
                    psnr_aged_db=before.psnr_db,
                    psnr_blur_db=blur.psnr_db,
                    psnr_restored_db=after.psnr_db,
                    ssim_aged=before.ssim,
                    ssim_blur=blur.ssim,
                    ssim_restored=after.ssim,
                )
            )
    return restorations, sigmas, pixels / 1e6 / seconds


def _best_blur(aged: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, float]:
    """Blur with the sigma that comes closest to the clean photo: the baseline gets to peek."""
    x = torch.from_numpy(aged)[None, None].to(torch.float32) / 255.0
    blurred = {
        sigma: _to_uint8(gaussian_blur2d(x, (17, 17), (sigma, sigma))[0])
        for sigma in BLUR_SIGMAS_PX
    }
    best = max(BLUR_SIGMAS_PX, key=lambda sigma: picture_quality(blurred[sigma], clean).psnr_db)
    return blurred[best], best


def _record(
    restorations: Sequence[Restoration],
    sigmas: Sequence[float],
    *,
    chosen: DemoPhotos,
    left_out: Sequence[tuple[str, str]],
    index: ShardIndex,
    trained: TrainResult,
    seconds: dict[str, float],
    speed: dict[str, float],
    config: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    measures = [
        f"{measure}_{picture}{unit}"
        for measure, unit in (("psnr", "_db"), ("ssim", ""))
        for picture in ("aged", "blur", "restored")
    ]
    rows = [
        {
            "name": photo.name,
            "width": photo.clean.shape[1],
            "height": photo.clean.shape[0],
            **{measure: getattr(photo, measure) for measure in measures},
            "blur_sigma_px": sigma,
        }
        for photo, sigma in zip(restorations, sigmas, strict=True)
    ]
    return {
        "agedphoto": __version__,
        **{measure: float(np.mean([row[measure] for row in rows])) for measure in measures},
        "blur_sigma_px": float(np.mean(sigmas)),
        "held_out": rows,
        "photos": {
            "source": chosen.source,
            "train": index.of_split("train").keys.tolist(),
            "held_out": index.of_split("valid").keys.tolist(),
            "left_out": [{"name": name, "reason": reason} for name, reason in left_out],
        },
        "speed": speed,
        "seconds": seconds,
        "training": {
            "seen_pairs": trained.seen_pairs,
            "steps": trained.steps,
            "parameters": trained.net.num_parameters,
            "stop": trained.stop,
        },
        "curve": [
            {key: row[key] for key in ("seen", "seconds", "loss", "psnr_db")} for row in trained.log
        ],
        "config": config,
        "hardware": hardware(device),
        "versions": versions(),
    }


def _save_pictures(folder: Path, restorations: Sequence[Restoration]) -> None:
    folder.mkdir()
    for photo in restorations:
        for kind in ("clean", "aged", "restored"):
            Image.fromarray(getattr(photo, kind)).save(folder / f"{photo.name}_{kind}.png")
        strip = np.hstack([photo.clean, photo.aged, photo.restored])
        Image.fromarray(strip).save(folder / f"{photo.name}_strip.png")


def _to_uint8(picture: Tensor) -> np.ndarray:
    """Turn one gray picture (1, H, W) in [0, 1] into uint8 (H, W)."""
    return (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
