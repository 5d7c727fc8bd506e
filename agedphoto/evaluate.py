"""`agedphoto evaluate`: how well a model restores, as a table and as JSON."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from agedphoto.complaints import complain

if TYPE_CHECKING:
    from agedphoto.synth import Mode, Recipe

EVERY_RECIPE = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Measure how well a model restores photos, and that it leaves good ones alone."""

    photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS...")]
    """Photos, folders or zips of photos, or shards."""
    model: str
    """Name of a model that comes with agedphoto, a .safetensors file, or a folder of a training."""
    recipe: tuple[str, ...] = ()
    """How photos age before they are restored: names of recipes, .json files of your own, or all:
    every recipe that the model could restore. Without this and --awgn it is the recipe that the
    model was trained on."""
    awgn: tuple[float, ...] = ()
    """Sigmas of Gaussian noise, in levels of 255, as denoisers publish them: 15 25 50."""
    beside: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Denoisers to run on the same noise, with its true sigma told to them: nlm (non-local means),
    bm3d (to be installed by hand; its licence allows noncommercial use only)."""
    split: str = "valid"
    """Which split of shards."""
    crop_px: int | None = None
    """At most so many pixels a side, from the middle of each photo; whole photos if not given."""
    textures: str = "held-out"
    """Wear for the recipes that lay textures on photos: held-out, which no training has seen; pack,
    endless, or a folder of scans."""
    seed: int = 0
    """Of how photos age; a photo ages by the seed and its name."""
    rows: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also show a row for each photo."""
    json: Path | None = None
    """Also write all of it, photo by photo, into this file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def run(self) -> int:
        """Measure."""
        from agedphoto.datasets.files import check_writable, write_json
        from agedphoto.evaluate_peers import find_peers
        from agedphoto.evaluate_photos import find_subjects
        from agedphoto.evaluate_run import evaluate, plan_cases, training_recipe
        from agedphoto.evaluate_table import table
        from agedphoto.restore import find_model
        from agedphoto.synth import find_device
        from agedphoto.synth.keys import check_seed

        self._check()
        peers = find_peers([name for group in self.beside for name in group])
        check_seed(self.seed)
        subjects = find_subjects(self.photos, split=self.split)
        device = find_device(self.device)
        net, card = find_model(self.model)
        recipes = self._recipes(card.mode)
        assumed = not recipes and not self.awgn
        if assumed:
            trained_on = training_recipe(card)
            recipes = [] if trained_on is None else [trained_on]
        cases = plan_cases(
            mode=card.mode,
            device=device,
            sigmas=self.awgn,
            recipes=recipes,
            textures=self.textures,
            seed=self.seed,
        )
        if self.json is not None:
            check_writable(self.json.parent)
        record = evaluate(
            net.to(device),
            card,
            subjects,
            cases,
            device=device,
            model=self.model,
            crop_px=self.crop_px,
            peers=peers,
            warn=lambda reason: complain(f"not measured: {reason}"),
            progress=True,
        )
        for line in table(record, rows=self.rows):
            print(line)
        if assumed:
            print(
                "no --recipe given: the model names none that it was trained on"
                if not recipes
                else f"no --recipe given: {recipes[0].name} is what the model was trained on"
            )
        if self.json is not None:
            write_json(self.json, record)
            print(f"photo by photo: {self.json}")
        return 1 if record["not_measured"] else 0

    def _check(self) -> None:
        """Refuse what means nothing."""
        if not self.photos:
            raise ValueError(
                "no photographs given; name at least one photo, folder or shards, before options "
                "that take several values"
            )
        for sigma in self.awgn:
            if not 0 < sigma <= 255 or math.isnan(sigma):
                raise ValueError(
                    f"awgn must be above 0 and at most 255, got {sigma:g}; sigmas count levels of "
                    "255: 15 25 50"
                )
        if len(set(self.awgn)) < len(self.awgn):
            raise ValueError(f"awgn names a sigma twice: {' '.join(f'{s:g}' for s in self.awgn)}")
        if self.beside and not self.awgn:
            raise ValueError(
                f"beside {' '.join(name for group in self.beside for name in group)} needs noise "
                "of a known sigma; give --awgn 15 25 50 too"
            )
        if self.crop_px is not None and self.crop_px < 16:
            raise ValueError(f"crop_px must be at least 16, got {self.crop_px}")
        if self.json is not None and self.json.is_dir():
            raise ValueError(f"json must be a file, got the folder {self.json}; name a file in it")

    def _recipes(self, mode: "Mode") -> "list[Recipe]":
        """Read the recipes that were named, in their order."""
        from agedphoto.age_recipe import read_recipe
        from agedphoto.evaluate_run import fitting_recipes

        recipes: list[Recipe] = []
        for name in self.recipe:
            recipes += fitting_recipes(mode) if name == EVERY_RECIPE else [read_recipe(name)]
        names = [recipe.name for recipe in recipes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"recipe names {twice!r} twice; leave one out ({EVERY_RECIPE} holds all that come "
                "with agedphoto), or give your own another name"
            )
        return recipes
