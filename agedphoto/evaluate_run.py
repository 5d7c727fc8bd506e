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
from agedphoto.evaluate_peers import Peer
from agedphoto.evaluate_photos import Subject
from agedphoto.evaluate_scores import Row, mean, pooled, score
from agedphoto.machine import hardware, versions
from agedphoto.synth import (
    RECIPES,
    Ageing,
    Defect,
    EndlessTextures,
    Grayscale,
    Mode,
    Recipe,
    find_recipe,
    find_textures,
)
from agedphoto.synth.composites import parts_of
from agedphoto.textures import TextureBank
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


def fitting_recipes(mode: Mode) -> list[Recipe]:
    """Return the recipes whose photos a network of this mode could restore.

    Whatever a recipe does, networks that see one channel see its luma, so all fit. A network of
    mode `color` is to return the colours it was given, so none fits that may take them away. None
    restores `tones`: it is for networks that colour, and nobody can tell what a photo's were.
    """
    recipes = [find_recipe(name) for name in RECIPES if name != "tones"]
    if mode != "color":
        return recipes
    return [recipe for recipe in recipes if not any(map(_takes_colors, recipe.defects))]


def plan_cases(
    *,
    mode: Mode,
    device: torch.device,
    sigmas: Sequence[float] = (),
    recipes: Sequence[Recipe] = (),
    textures: str = "held-out",
    seed: int = 0,
) -> list[Case]:
    """Plan what is measured: noise, recipes, and identity unless there is noise alone.

    Args:
        mode: Of the network.
        device: Where photos age.
        sigmas: Of Gaussian noise, in levels of 255.
        recipes: How photos age, if they do.
        textures: held-out, or what `synth.find_textures` knows.
        seed: Of the ageing.

    Raises:
        ValueError: If the textures are not there, or lack what a recipe wants of them.
    """
    cases: list[Case] = [Noise(sigma=sigma, mode=mode) for sigma in sigmas]
    bank = None
    if any(recipe.uses_textures for recipe in recipes):
        bank = held_out_textures() if textures == "held-out" else find_textures(textures)
    cases += [
        plan_ageing(recipe, mode=mode, device=device, bank=bank, textures=textures, seed=seed)
        for recipe in recipes
    ]
    if recipes or not sigmas:
        cases.append(Clean(mode=mode))
    return cases


def plan_ageing(
    recipe: Recipe,
    *,
    mode: Mode,
    device: torch.device,
    bank: TextureBank | EndlessTextures | None,
    textures: str,
    seed: int = 0,
) -> Aged:
    """Plan one recipe with these textures, which are called `textures`; see `plan_cases`."""
    ageing = Ageing(
        recipe,
        mode="color" if mode == "color" else "grayscale",
        textures=bank,
        augment=False,
    )
    # What the textures lack is found before any photo is read.
    ageing.sample(held_out_key(seed, "").to(device), size=(16, 16))
    return Aged(ageing=ageing, mode=mode, seed=seed, device=device, textures=textures)


def evaluate(
    net: UNet | LabNet,
    card: ModelCard,
    subjects: Sequence[Subject],
    cases: Sequence[Case],
    *,
    device: torch.device,
    model: str = "",
    crop_px: int | None = None,
    peers: Sequence[Peer] = (),
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
        peers: Denoisers to run beside it wherever the noise is known.
        warn: Told of each photo that could not be measured, and why.
        progress: Show a progress bar.

    Returns:
        Plain data for JSON: the same arguments on the same machine, the same data. Photos that
        could not be measured are in none of the rows.
    """
    # For each case and photo the rows of the model and of the denoisers beside it.
    rows: list[list[list[Row]]] = [[] for _ in cases]
    failed: list[dict[str, str]] = []
    pictures = sum(1 + len(peers) if isinstance(case, Noise) else 1 for case in cases)
    total, tiles = len(subjects) * pictures, 0
    with tqdm(total=total, desc="evaluate", unit="picture", disable=not progress) as bar:

        def show_tile() -> None:
            nonlocal tiles
            tiles += 1
            bar.set_postfix_str(f"{tiles} tiles")

        def ask(case: Case, name: str, photo: UInt8[np.ndarray, "H W 3"]) -> list[Row]:
            is_aged = case.kind != "identity"
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
                scored = [score(name, given, answered, photo, is_aged=is_aged)]
                bar.update()
                if isinstance(case, Noise):
                    for peer in peers:
                        beside = peer.answer(given, sigma=case.sigma, mode=card.mode)
                        scored.append(score(name, given, beside, photo, is_aged=is_aged))
                        bar.update()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            return scored

        for number, subject in enumerate(subjects, start=1):
            try:
                photo = _middle(subject.read(), crop_px)
                scored = [ask(case, subject.name, photo) for case in cases]
            except (ValueError, OSError) as error:
                failed.append({"photo": subject.name, "reason": str(error)})
                bar.update(number * pictures - bar.n)
                bar.clear()
                warn(str(error))
                continue
            for measured, one in zip(rows, scored, strict=True):
                measured.append(one)
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
            _tell(case, measured, peers)
            for case, measured in zip(cases, rows, strict=True)
            if measured
        ],
        "not_measured": failed,
        "device": {"device": place["device"], "name": place["name"]},
        "versions": {"agedphoto": __version__, **versions()},
    }


def _tell(case: Case, measured: list[list[Row]], peers: Sequence[Peer]) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": case.kind, "title": case.title, "protocol": case.protocol}
    if isinstance(case, Noise):
        told["sigma"] = case.sigma
    if isinstance(case, Aged):
        told["seed"] = case.seed
        told["textures"] = case.textures if case.ageing.recipe.uses_textures else None
        told["recipe"] = case.ageing.recipe.to_dict()
    rows, *others = map(list, zip(*measured, strict=True))
    told |= _scores(rows)
    if others:
        told["beside"] = [
            {"name": peer.name, "about": peer.about, **_scores(rows)}
            for peer, rows in zip(peers, others, strict=True)
        ]
    return told


def _scores(rows: list[Row]) -> dict[str, Any]:
    return {
        "mean": mean(rows),
        "pooled": pooled(rows),
        "rows": [row.to_dict() for row in rows],
    }


def _takes_colors(defect: Defect) -> bool:
    return isinstance(defect, Grayscale) or any(map(_takes_colors, parts_of(defect)))


def _middle(photo: UInt8[np.ndarray, "H W 3"], crop_px: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """Cut out the middle, as far as the photo goes."""
    if crop_px is None:
        return photo
    H, W, _ = photo.shape
    top, left = max(H - crop_px, 0) // 2, max(W - crop_px, 0) // 2
    return np.ascontiguousarray(photo[top : top + crop_px, left : left + crop_px])
