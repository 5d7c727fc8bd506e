"""What stands on the contact sheets of `agedphoto age`: ageings of photos, or all defects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from agedphoto.age_photos import AgeJob, photo_key
from agedphoto.age_tiles import to_levels
from agedphoto.datasets.files import replacing
from agedphoto.datasets.photos import read_photo
from agedphoto.sheet import Cell, Row, draw_sheet, make_cell, shrink
from agedphoto.synth import DEFECTS, Defect, Scene
from agedphoto.synth.ageing import exact_products
from agedphoto.textures import TextureBank

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Severities that each defect is shown at; 1 is as it is by default."""
ROWS_OF_PAGE = 8
"""Photographs of a sheet; there are more sheets then."""
CELL_PX = 320
DEFECT_CELL_PX = 240
DEFECT_PHOTO_PX = 1024
"""Long side that a photo is brought down to before it ages: defects are meant for this size."""


def sheet_paths(out: Path, num_photos: int) -> list[Path]:
    """Return the names of the sheets that so many photographs may take."""
    pages = -(-num_photos // ROWS_OF_PAGE)
    if pages == 1:
        return [out / "contact_sheet.jpg"]
    return [out / f"contact_sheet-{number + 1:03d}.jpg" for number in range(pages)]


@dataclass(slots=True)
class AgeingSheets:
    """Collects photographs and their ageings, and writes a sheet whenever one is full."""

    paths: Sequence[Path]
    """See `sheet_paths`; fewer are written if photographs cannot be read."""
    title: str
    seeds: Sequence[int]
    """Of the ageings."""
    written: list[Path] = field(default_factory=list)
    """The sheets so far."""
    _rows: list[Row] = field(default_factory=list)
    _cells: list[Cell] = field(default_factory=list)

    def show(self, job: AgeJob, number: int, picture: np.ndarray) -> None:
        """Take a picture, as `age_photos` shows it."""
        if number == 0:
            self._cells = []
        self._cells.append(make_cell(picture, cell_px=CELL_PX))
        if number == len(self.seeds):
            self._rows.append(Row(job.name, self._cells))
            if len(self._rows) == ROWS_OF_PAGE:
                self.flush()

    def flush(self) -> None:
        """Write what is left."""
        if not self._rows:
            return
        path = self.paths[len(self.written)]
        columns = ["original", *(f"seed {seed}" for seed in self.seeds)]
        _save(path, self._rows, self.title, columns, CELL_PX)
        self.written.append(path)
        self._rows = []


def write_defect_sheet(
    source: Path,
    target: Path,
    *,
    name: str,
    seed: int,
    device: torch.device,
    textures: TextureBank,
) -> None:
    """Write a sheet of one photograph with every defect at five strengths.

    Args:
        source: The photograph.
        target: The sheet.
        name: Of the photograph, see `AgeJob.name`.
        seed: Of what is drawn.
        device: Where.
        textures: Wear to draw from, on the device.

    Raises:
        ValueError: If the photograph cannot be read.
    """
    photo = np.asarray(shrink(read_photo(source), DEFECT_PHOTO_PX))
    keys = photo_key(seed, name).to(device)
    rows = list(defect_rows(photo, keys=keys, textures=textures))
    columns = [f"severity {strength:g}" for strength in STRENGTHS]
    title = f"{name}: all defects, seed {seed}"
    _save(target, rows, title, columns, DEFECT_CELL_PX, num_blocks=2 if len(rows) > 6 else 1)


@torch.no_grad()
def defect_rows(photo: np.ndarray, *, keys: torch.Tensor, textures: TextureBank) -> Iterator[Row]:
    """Age a photograph by every defect alone, as it is by default, at each of the strengths."""
    H, W, _ = photo.shape
    planes = torch.from_numpy(np.array(photo.transpose(2, 0, 1), order="C"))
    x = (planes.to(keys.device).float() / 255.0).expand(len(STRENGTHS), -1, -1, -1)
    scene = Scene(
        keys=keys.expand(len(STRENGTHS)),
        op=0,
        size=(H, W),
        severity=torch.tensor(STRENGTHS, device=keys.device),
        textures=textures,
    )
    for name, kind in DEFECTS.items():
        defect: Defect = kind()
        with exact_products():
            aged, _ = defect.apply(x, defect.sample(scene), scene)
        pictures = to_levels(aged).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).cpu().numpy()
        centre = most_changed(photo, pictures[-1], DEFECT_CELL_PX)
        cells = [make_cell(one, cell_px=DEFECT_CELL_PX, centre=centre) for one in pictures]
        yield Row(name.replace("_", " "), cells)


def most_changed(before: np.ndarray, after: np.ndarray, side_px: int) -> tuple[float, float]:
    """Return where two pictures differ most, as shares of height and width; the centre if alike."""
    H, W = before.shape[:2]
    step = max(1, min(side_px // 4, H, W))
    rows, columns = H // step, W // step
    change = np.abs(after.astype(np.int16) - before).mean(2)[: rows * step, : columns * step]
    blocks = change.reshape(rows, step, columns, step).mean((1, 3))
    y, x = np.mgrid[:rows, :columns] + 0.5
    # Among places that are about as much changed, the one nearest to the middle.
    away = np.hypot(y / rows - 0.5, x / columns - 0.5)
    worth = blocks - (blocks.max() / 2 + 1e-6) * away
    row, column = np.unravel_index(worth.argmax(), blocks.shape)
    return (float(row) + 0.5) * step / H, (float(column) + 0.5) * step / W


def _save(
    path: Path,
    rows: Sequence[Row],
    title: str,
    columns: Sequence[str],
    cell_px: int,
    num_blocks: int = 1,
) -> None:
    sheet = draw_sheet(rows, title=title, columns=columns, cell_px=cell_px, num_blocks=num_blocks)
    with replacing(path) as file:
        sheet.save(file, "JPEG", quality=92, subsampling="4:4:4")
