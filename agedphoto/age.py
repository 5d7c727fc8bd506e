"""`agedphoto age`: clean photographs to aged ones, with masks, parameters and contact sheets."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from agedphoto.complaints import complain

if TYPE_CHECKING:
    import torch

    from agedphoto.age_photos import AgeJob
    from agedphoto.synth import Ageing


@dataclass(frozen=True, kw_only=True, slots=True)
class Age:
    """Age photos as a recipe has it; originals are never touched."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Photos, or folders of photos, searched with all below them."""
    out: Path
    """Folder for the results."""
    recipe: str = "seed"
    """How photos age: the name of a recipe, or a .json file of your own."""
    seed: int = 0
    """Of all that is drawn; a photo ages by the seed and its name below the folder given."""
    textures: str = "pack"
    """Wear for the recipes that lay textures on photos: pack, endless, or a folder of scans."""
    mode: Literal["color", "grayscale"] = "color"
    """grayscale takes the luma of what has aged in colour."""
    suffix: str = "_aged"
    """Added to the names of the results."""
    save_mask: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write NAME_aged_mask.png, white where damage hides the picture."""
    save_params: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write NAME_aged.json, all that was drawn."""
    params: Path | None = None
    """Replay such a file, or a folder of them, instead of drawing; for photos of the same size."""
    sheet: Annotated[
        tuple[Literal["ageings", "defects"], ...] | None,
        tyro.conf.arg(metavar="[ageings|defects]"),
    ] = None
    """Also write a contact sheet: each photo beside its ageings with seeds from --seed on; or only,
    for each photo, every defect at five strengths."""
    num_ageings: int = 4
    """How many of each photo on the sheet."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def run(self) -> int:
        """Age the photographs."""
        from tqdm import tqdm

        from agedphoto.age_photos import age_photos, check_targets, plan_ageing
        from agedphoto.age_recipe import read_recipe
        from agedphoto.age_sheets import AgeingSheets, sheet_paths
        from agedphoto.datasets.files import check_writable
        from agedphoto.synth import Ageing, find_device, find_textures
        from agedphoto.synth.keys import check_seed

        self._check()
        recipe = read_recipe(self.recipe)
        check_seed(self.seed)
        textures = find_textures(self.textures)
        device = find_device(self.device)
        jobs = plan_ageing(
            self.inputs,
            self.out,
            suffix=self.suffix,
            save_mask=self.save_mask,
            save_params=self.save_params,
            replay=self.params,
        )
        if self._shows("defects"):
            return self._draw_defects(jobs, Ageing(textures=textures), device)
        num_ageings = self.num_ageings if self._shows("ageings") else 1
        seeds = [(self.seed + number) % 2**64 for number in range(num_ageings)]
        pages = sheet_paths(self.out, len(jobs)) if self._shows("ageings") else []
        check_targets(jobs, pages)
        check_writable(self.out)
        sheets = AgeingSheets(pages, f"recipe {recipe.name}", seeds)
        failed = tiles = 0
        with tqdm(total=len(jobs), desc="age", unit="photo") as bar:

            def show_tile() -> None:
                # A large photo takes minutes; its tiles show that it moves.
                nonlocal tiles
                tiles += 1
                bar.set_postfix_str(f"{tiles} tiles")

            for done in age_photos(
                jobs,
                recipe=recipe,
                seed=self.seed,
                mode=self.mode,
                device=device,
                textures=textures,
                num_ageings=num_ageings,
                show=sheets.show if self._shows("ageings") else lambda *_: None,
                on_tile=show_tile,
            ):
                bar.update()
                if done.error:
                    failed += 1
                    bar.clear()
                    complain(f"not aged: {done.error}")
        sheets.flush()
        print(f"{len(jobs) - failed} of {len(jobs)} photos aged: {self.out}")
        for path in sheets.written:
            print(f"contact sheet: {path}")
        return 1 if failed else 0

    def _shows(self, sheet: str) -> bool:
        """Whether this contact sheet is wanted; `--sheet` alone means that of the ageings."""
        return self.sheet is not None and sheet in (self.sheet or ("ageings",))

    def _check(self) -> None:
        """Refuse what means nothing."""
        if not self.inputs:
            raise ValueError("no photographs given; name at least one photo or folder")
        if self.sheet is not None and len(self.sheet) > 1:
            raise ValueError(
                f"sheet must be ageings or defects, got {' '.join(self.sheet)}; choose one"
            )
        if not 1 <= self.num_ageings <= 16:
            raise ValueError(f"num_ageings must be from 1 to 16, got {self.num_ageings}")
        if self._shows("defects"):
            others = {
                "recipe": self.recipe != "seed",
                "mode": self.mode != "color",
                "save_mask": self.save_mask,
                "save_params": self.save_params,
                "params": self.params is not None,
            }
            why = "--sheet defects shows every defect by itself, and ages no photo"
        elif self.params is not None:
            others = {
                "recipe": self.recipe != "seed",
                "seed": self.seed != 0,
                "mode": self.mode != "color",
                "sheet": self.sheet is not None,
            }
            why = "--params replays what was drawn with its own"
            if not self.params.exists():
                raise ValueError(f"no such file or folder: {self.params}")
        else:
            return
        for name, given in others.items():
            if given:
                raise ValueError(f"{name} does not go with this: {why}; leave it out")

    def _draw_defects(self, jobs: "list[AgeJob]", ageing: "Ageing", device: "torch.device") -> int:
        """Write a sheet of all defects for each photograph."""
        from tqdm import tqdm

        from agedphoto.age_photos import check_targets
        from agedphoto.age_sheets import write_defect_sheet
        from agedphoto.datasets.files import check_writable

        jobs = [
            replace(job, target=job.target.with_name(f"{job.source.stem}_defects.jpg"))
            for job in jobs
        ]
        check_targets(jobs)
        check_writable(self.out)
        textures = ageing.textures_on(device)
        failed = 0
        for job in tqdm(jobs, desc="sheets", unit="photo"):
            try:
                write_defect_sheet(
                    job.source,
                    job.target,
                    name=job.name,
                    seed=self.seed,
                    device=device,
                    textures=textures,
                )
            except ValueError as error:
                failed += 1
                complain(f"not shown: {error}")
            else:
                print(f"contact sheet: {job.target}")
        return 1 if failed else 0
