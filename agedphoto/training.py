"""`agedphoto train`: shards to a model, alone or as one rank of torchrun."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from agedphoto.curve import write_curve
from agedphoto.datasets import AgedPairs, Batch, find_rank, open_index
from agedphoto.datasets.files import check_writable
from agedphoto.datasets.sources import Source, named_outright
from agedphoto.probe import check_memory, probe
from agedphoto.synth import Mode, Recipe, find_device, find_textures
from agedphoto.textures import TextureBank
from agedphoto.train import (
    COLOR_PRESETS,
    FinishedError,
    FolderError,
    LabNet,
    Net,
    RunFolder,
    StoppedError,
    TrainConfig,
    UNet,
    check_run,
    check_start,
    describe,
    find_preset,
    make_objective,
    train,
)

HELD_OUT_TEXTURES = 16
FIRST_HELD_OUT = 1_000_000
"""Textures from this number on are never trained on."""
HELD_OUT_EPOCH = 2**32 - 1
"""No training gets so far: keys of this epoch, and so grain and scratches, are never trained on."""
DEFAULT_RECIPE: dict[Mode, str] = {
    "grayscale": "seed", "rgb": "seed", "lab": "tones", "color": "faded_print",
}  # fmt: skip


class UnfinishedError(Exception):
    """Work that had begun came to no end; the message says why."""


def run_training(
    shards: Source,
    out: Path,
    config: TrainConfig,
    *,
    mode: Mode,
    recipe: str | Recipe | None = None,
    textures: str = "pack",
    crop_px: int = 128,
    long_side_px: int | None = None,
    batch_size: int,
    crops_per_photo: int | None = None,
    seed: int,
    device: str,
    valid_split: str = "valid",
    init: Net | None = None,
    luminance: Net | None = None,
    loading: dict[str, Any] | None = None,
    dry_run: bool,
    warn: Callable[[str], None],
) -> dict[str, Any] | None:
    """Train on the split `train`, and measure on `valid` if there is one.

    A folder that holds this training goes on where it was broken off; one that holds its result is
    left alone.

    Args:
        shards: Where the photos are.
        out: Folder of the training.
        config: How to train.
        mode: What the network sees and answers.
        recipe: How photos age; None is the usual one of the mode, see `DEFAULT_RECIPE`.
        textures: For the recipes that lay textures on photos, see `find_textures`.
        crop_px: Side of the square crops.
        long_side_px: Mode lab sees whole photos, of this size; None is what the preset is for.
        batch_size: Pairs of a batch on each rank.
        crops_per_photo: Crops that an epoch takes of each photo. None is 16, which decoding needs
            to keep up, and 1 of whole photos, which are small enough to be kept.
        seed: Of the order, the crops and the ageing.
        device: See `find_device`; a rank of several has a GPU of its own.
        valid_split: To measure on; never a split to test on.
        init: Network to start from.
        luminance: For mode lab, a network of mode grayscale to keep with the colours.
        loading: Further arguments of `AgedPairs`.
        dry_run: Try some steps, say what training would take, and leave nothing behind.
        warn: Is told of photos that are left out.

    Returns:
        For a dry run the configuration and what it implies, on rank 0; else None.

    Raises:
        ValueError: If an argument does not fit; nothing was started then.
        UnfinishedError: If training was asked to stop, or a photo turned out to be damaged on the
            way.
    """
    rank, world_size = find_rank()
    place = _rank_device(device, world_size)
    RunFolder(out).check_foreign()
    whole = mode == "lab"
    find_preset(config.preset)
    side_px = (long_side_px or COLOR_PRESETS[config.preset].long_side_px) if whole else crop_px
    _check_sides(mode, config.preset, side_px)
    _check_luminance(mode, luminance)
    if recipe is None:
        recipe = DEFAULT_RECIPE[mode]
    has_validation = _check_validation(shards, valid_split, config)
    objective = make_objective(
        mode=mode, preset=config.preset, loss=config.loss, mask_weight=config.mask_weight,
        long_side_px=side_px,
    )  # fmt: skip
    check_memory(
        objective.make_net, batch_size=batch_size, side_px=side_px, precision=config.precision,
        device=place, name="long_side_px" if whole else "crop_px",
    )  # fmt: skip
    common: dict[str, Any] = {
        "recipe": recipe,
        "mode": mode,
        "seed": seed,
        "device": place,
        **({"view": "whole", "long_side_px": side_px} if whole else {"crop_px": side_px}),
    }
    with AgedPairs(
        shards,
        **common,
        batch_size=batch_size,
        crops_per_photo=crops_per_photo or (1 if whole else 16),
        rank=rank,
        world_size=world_size,
        textures=find_textures(textures),
        **(loading or {}),
    ) as pairs:
        if rank == 0:
            for key in pairs.left_out:
                warn(f"left out: {key} is smaller than the crop of {crop_px} px")
        kept_luminance = luminance if isinstance(luminance, UNet) else None
        with torch.device("meta"):
            net = objective.make_net()
        if init is not None:
            check_start(net, init)
        described = describe(
            pairs, config, net, luminance=kept_luminance, fine_tuned=init is not None
        )
        if dry_run:
            if rank != 0:
                return None
            described["implied"] |= probe(pairs, config, objective)
            return described
        # Before anything is written or said; training looks once more.
        try:
            check_run(out, described)
        except FinishedError:
            if rank == 0:
                print(f"nothing to do: {out} holds the result of this training")
            return None
        if rank == 0:
            check_writable(out)
            print(pairs.describe())
        validation = None
        if has_validation:
            validation = fixed_pairs(
                shards, **common, split=valid_split, textures=held_out_textures()
            )
        try:
            with _process_group(place, world_size):
                result = train(
                    pairs, out, config, validation=validation, init=init,
                    luminance=kept_luminance, progress=True,
                )  # fmt: skip
        except StoppedError as error:
            raise UnfinishedError(f"{error}; the same command goes on from there: {out}") from error
        except ValueError as error:
            if isinstance(error, FolderError) or not RunFolder(out).started:
                raise
            raise UnfinishedError(f"training ended early: {error}") from error
        except OSError as error:
            error.add_note("checkpoints that were there are kept; the same command goes on")
            raise
        finally:
            # A folder that was refused stays as it is.
            if rank == 0 and pairs.stats()["pairs"]:
                _draw_curve(RunFolder(out), warn)
        # Each rank knows its own.
        for key, reason in pairs.bad.items():
            warn(f"not read: {key}: {reason}")
    if rank == 0:
        last = result.log[-1]
        figures = {"loss": "loss {:.4f}", "psnr_db": "{:.2f} dB", "cross_entropy": "{:.3f} nats"}
        quality = "".join(
            f", {text.format(last[name])}"
            for name, text in figures.items()
            if last.get(name) is not None
        )
        print(
            f"{result.stop}: {result.seen_pairs:,} pairs in {result.seconds:.0f} s{quality}: {out}"
        )
    return None


def held_out_textures(count: int = HELD_OUT_TEXTURES) -> TextureBank:
    """Return textures that no training draws from."""
    return TextureBank.synthesize(count, first=FIRST_HELD_OUT)


def fixed_pairs(
    shards: Source,
    *,
    textures: TextureBank,
    split: str = "valid",
    num_pairs: int = 64,
    batch_size: int = 16,
    **settings: Any,
) -> list[Batch]:
    """Return some pairs to measure on: the same ones every time, for any number of ranks.

    The last batch may be filled up beyond `num_pairs`, or with pairs that are not valid.
    """
    index = open_index(shards, split=split)
    least = settings.get("crop_px", 1)
    photos = int((np.minimum(index.height, index.width) >= least).sum())
    crops = -(-num_pairs // max(photos, 1))
    with AgedPairs(
        shards,
        split=split,
        textures=textures,
        augment=False,
        batch_size=min(batch_size, num_pairs),
        crops_per_photo=crops,
        rank=0,
        world_size=1,
        last_batch="pad",
        **settings,
    ) as pairs:
        pairs.set_epoch(HELD_OUT_EPOCH)
        return list(islice(pairs, -(-num_pairs // batch_size)))


def _draw_curve(folder: RunFolder, warn: Callable[[str], None]) -> None:
    """Draw what was logged; that this fails is no reason to hide why training has ended."""
    try:
        if log := folder.read_log():
            write_curve(log, folder.curve)
    except OSError as error:
        warn(f"not drawn: {folder.curve}: {error.strerror or error}")


def _check_sides(mode: Mode, preset: str, side_px: int) -> None:
    """Pictures are to fill the network's coarsest level: it would see margins that no photo has."""
    stride = COLOR_PRESETS[preset].stride if mode == "lab" else find_preset(preset).stride
    if side_px % stride or side_px < stride:
        name = "long_side_px" if mode == "lab" else "crop_px"
        raise ValueError(
            f"{name} must be a multiple of {stride} for preset {preset}, got {side_px}; use "
            f"{max(stride, side_px // stride * stride)}"
        )


def _check_luminance(mode: Mode, luminance: Net | None) -> None:
    if luminance is None:
        return
    if mode != "lab":
        raise ValueError(f"luminance is for mode lab, got mode {mode}; leave it out")
    if isinstance(luminance, LabNet) or (
        (luminance.config.in_channels, luminance.config.out_channels) != (1, 1)
    ):
        raise ValueError("luminance must be a model of mode grayscale; give another one")


def _check_validation(shards: Source, split: str, config: TrainConfig) -> bool:
    """Return whether there are photos to measure on."""
    if split == "test" or split == "train":
        what = "is for the very end" if split == "test" else "is what is trained on"
        raise ValueError(f"valid_split must not be {split!r}, which {what}; name another split")
    there = not named_outright(shards) and split in open_index(shards).splits
    if there or (split == "valid" and not config.needs_validation):
        return there
    raise ValueError(
        f"there is no split {split!r} to measure on in {shards}; make one with "
        f"agedphoto shard PHOTOS {shards} --split {split}"
    )


def _rank_device(device: str, world_size: int) -> torch.device:
    """Give each rank a GPU of its own; without GPUs ranks meet on the CPU, never on MPS."""
    if world_size > 1 and device in ("auto", "cuda"):
        if device == "auto" and not torch.cuda.is_available():
            return torch.device("cpu")
        return find_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return find_device(device)


@contextmanager
def _process_group(device: torch.device, world_size: int) -> Iterator[None]:
    """Join the other ranks for as long as the block runs; alone, do nothing."""
    if world_size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, _ = next(dist.rendezvous("env://"))
    # The launcher keeps its store when it starts workers again: what the last attempt has written
    # there would be taken for an answer of this one, and about half of the restarts would hang.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt_{attempt}", store)
    # Gloo on either side: ranks agree on the time without waiting for their GPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    # A rank that has nothing to do would leave while others are still connecting to it.
    dist.all_reduce(torch.zeros(()))
    try:
        yield
    finally:
        dist.destroy_process_group()
