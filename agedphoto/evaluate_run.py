"""Evaluation: every photo read once, given to the network in every way that was asked for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from tqdm import tqdm

from agedphoto import __version__
from agedphoto.evaluate_answer import answer
from agedphoto.evaluate_cases import Aged, Case, Clean, Noise, held_out_key
from agedphoto.evaluate_photos import Subject
from agedphoto.evaluate_scores import Row, mean, pooled, score
from agedphoto.machine import hardware, versions
from agedphoto.synth import Ageing, Mode, Recipe, find_recipe, find_textures
from agedphoto.train import LabNet, ModelCard, UNet
from agedphoto.training import held_out_textures

SCHEMA = "agedphoto-evaluate-1"
"""Counts up when something in the JSON changes its meaning."""


def training_recipe(card: ModelCard) -> Recipe | None:
    """Return the recipe that a model was trained on; None if its card tells of none."""
    pairs = card.training.get("pairs")
    recipe = pairs.get("recipe") if isinstance(pairs, dict) else None
    if recipe is None:
        return None
    return find_recipe(recipe) if isinstance(recipe, str) else Recipe.from_dict(recipe)


def plan_cases(
    *,
    mode: Mode,
    device: torch.device,
    sigmas: Sequence[float] = (),
    recipe: Recipe | None = None,
    textures: str = "held-out",
    seed: int = 0,
) -> list[Case]:
    """Plan what is measured: noise, the recipe, and identity unless there is noise alone.

    Args:
        mode: Of the network.
        device: Where photos age.
        sigmas: Of Gaussian noise, in levels of 255.
        recipe: How photos age, if they do.
        textures: held-out, or what `synth.find_textures` knows.
        seed: Of the ageing.

    Raises:
        ValueError: If the textures are not there, or lack what the recipe wants of them.
    """
    cases: list[Case] = [Noise(sigma=sigma, mode=mode) for sigma in sigmas]
    if recipe is not None:
        if not recipe.uses_textures:
            bank = None
        elif textures == "held-out":
            bank = held_out_textures()
        else:
            bank = find_textures(textures)
        ageing = Ageing(
            recipe,
            mode="color" if mode == "color" else "grayscale",
            textures=bank,
            augment=False,
        )
        # What the textures lack is found before any photo is read.
        ageing.sample(held_out_key(seed, "").to(device), size=(16, 16))
        cases.append(Aged(ageing=ageing, mode=mode, seed=seed, device=device, textures=textures))
    if recipe is not None or not sigmas:
        cases.append(Clean(mode=mode))
    return cases


def evaluate(
    net: UNet | LabNet,
    card: ModelCard,
    subjects: Sequence[Subject],
    cases: Sequence[Case],
    *,
    device: torch.device,
    model: str = "",
    crop_px: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on photos.

    Args:
        net: In evaluation mode, on `device`.
        card: What its file says of it.
        subjects: The photos.
        cases: What it is given, see `plan_cases`.
        device: Where the network is.
        model: What it was called.
        crop_px: At most so many pixels a side, from the middle of each photo.
        warn: Told of each photo that could not be measured, and why.
        progress: Show a progress bar.

    Returns:
        Plain data for JSON: the same arguments on the same machine, the same data. Photos that
        could not be measured are in none of the rows.
    """
    rows: list[list[Row]] = [[] for _ in cases]
    failed: list[dict[str, str]] = []
    total, tiles = len(subjects) * len(cases), 0
    with tqdm(total=total, desc="evaluate", unit="picture", disable=not progress) as bar:

        def show_tile() -> None:
            nonlocal tiles
            tiles += 1
            bar.set_postfix_str(f"{tiles} tiles")

        def ask(case: Case, name: str, photo: UInt8[np.ndarray, "H W 3"]) -> Row:
            try:
                given = case.make(name, photo)
                answered = answer(
                    net,
                    given.aged,
                    mode=card.mode,
                    device=device,
                    # The published protocol is one of denoising alone.
                    colors=case.kind != "awgn",
                    on_tile=show_tile,
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            return score(name, given, answered, photo, is_aged=case.kind != "identity")

        for subject in subjects:
            scored: list[Row] = []
            try:
                photo = _middle(subject.read(), crop_px)
                for case in cases:
                    scored.append(ask(case, subject.name, photo))
                    bar.update()
            except (ValueError, OSError) as error:
                failed.append({"photo": subject.name, "reason": str(error)})
                bar.update(len(cases) - len(scored))
                bar.clear()
                warn(str(error))
                continue
            for measured, row in zip(rows, scored, strict=True):
                measured.append(row)
    place = hardware(device)
    return {
        "schema": SCHEMA,
        "model": {"name": model, "mode": card.mode, "sha256": card.sha256},
        "photos": {
            "measured": len(subjects) - len(failed),
            "of": len(subjects),
            "crop_px": crop_px,
        },
        "measured": [
            _tell(case, measured) for case, measured in zip(cases, rows, strict=True) if measured
        ],
        "not_measured": failed,
        "device": {"device": place["device"], "name": place["name"]},
        "versions": {"agedphoto": __version__, **versions()},
    }


def _tell(case: Case, rows: list[Row]) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": case.kind, "title": case.title, "protocol": case.protocol}
    if isinstance(case, Noise):
        told["sigma"] = case.sigma
    if isinstance(case, Aged):
        told["seed"] = case.seed
        told["textures"] = case.textures if case.ageing.recipe.uses_textures else None
        told["recipe"] = case.ageing.recipe.to_dict()
    return told | {
        "mean": mean(rows),
        "pooled": pooled(rows),
        "rows": [row.to_dict() for row in rows],
    }


def _middle(photo: UInt8[np.ndarray, "H W 3"], crop_px: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """Cut out the middle, as far as the photo goes."""
    if crop_px is None:
        return photo
    H, W, _ = photo.shape
    top, left = max(H - crop_px, 0) // 2, max(W - crop_px, 0) // 2
    return np.ascontiguousarray(photo[top : top + crop_px, left : left + crop_px])
