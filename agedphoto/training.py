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

from agedphoto.datasets import AgedPairs, Batch, find_rank, open_index
from agedphoto.datasets.files import check_writable
from agedphoto.datasets.sources import Source, named_outright
from agedphoto.synth import Mode, Recipe, find_device, find_textures
from agedphoto.textures import TextureBank
from agedphoto.train import TrainConfig, UNet, check_run, describe, net_config, train

HELD_OUT_TEXTURES = 16
FIRST_HELD_OUT = 1_000_000
"""Textures from this number on are never trained on."""
HELD_OUT_EPOCH = 2**32 - 1
"""No training gets so far: keys of this epoch, and so grain and scratches, are never trained on."""


class UnfinishedError(Exception):
    """Work that had begun came to no end; the message says why."""


def run_training(
    shards: Source,
    out: Path,
    config: TrainConfig,
    *,
    mode: Mode,
    recipe: str | Recipe,
    textures: str = "pack",
    crop_px: int,
    batch_size: int,
    crops_per_photo: int,
    seed: int,
    device: str,
    loading: dict[str, Any] | None = None,
    dry_run: bool,
    warn: Callable[[str], None],
) -> dict[str, Any] | None:
    """Train on the split `train`, and measure on `valid` if there is one.

    Returns:
        For a dry run the configuration and what it implies, on rank 0; else None.

    Raises:
        ValueError: If an argument does not fit; nothing was started then.
        UnfinishedError: If a photo turned out to be damaged on the way.
    """
    rank, world_size = find_rank()
    place = _rank_device(device, world_size)
    check_run(out)
    common: dict[str, Any] = {
        "recipe": recipe,
        "mode": mode,
        "crop_px": crop_px,
        "seed": seed,
        "device": place,
    }
    with AgedPairs(
        shards,
        **common,
        batch_size=batch_size,
        crops_per_photo=crops_per_photo,
        rank=rank,
        world_size=world_size,
        textures=find_textures(textures),
        **(loading or {}),
    ) as pairs:
        if rank == 0:
            for key in pairs.left_out:
                warn(f"left out: {key} is smaller than the crop of {crop_px} px")
        if dry_run:
            net = UNet(net_config(config.preset, mode))
            return describe(pairs, config, net) if rank == 0 else None
        if rank == 0:
            check_writable(out)
            print(pairs.describe())
        validation = None
        if not named_outright(shards) and "valid" in open_index(shards).splits:
            validation = fixed_pairs(shards, **common, textures=held_out_textures())
        with _process_group(place, world_size):
            try:
                result = train(pairs, out, config, validation=validation, progress=True)
            except ValueError as error:
                raise UnfinishedError(f"training ended early: {error}") from error
        # Each rank knows its own.
        for key, reason in pairs.bad.items():
            warn(f"not read: {key}: {reason}")
    if rank == 0:
        last = result.log[-1]
        quality = "" if last["psnr_db"] is None else f", {last['psnr_db']:.2f} dB"
        print(
            f"{result.stop}: {result.seen_pairs:,} pairs in {result.seconds:.0f} s, "
            f"loss {last['loss']:.4f}{quality}: {out}"
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
    photos = int((np.minimum(index.height, index.width) >= settings["crop_px"]).sum())
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
    # Gloo on either side: ranks agree on the time without waiting for their GPUs.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
