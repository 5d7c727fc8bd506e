"""Before | after sheets: each photograph beside its result, and the part that has changed most."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agedphoto.age_sheets import most_changed
from agedphoto.datasets.files import replacing
from agedphoto.restore import Job
from agedphoto.sheet import Row, draw_sheet, make_cell

ROWS_OF_PAGE = 8
"""Photographs of a sheet; there are more sheets then."""
CELL_PX = 480

_SEARCHED_PX = 1500
"""The place that has changed most is looked for in so many rows and columns."""


def sheet_paths(out: Path, num_photos: int, *, rank: int = 0, world_size: int = 1) -> list[Path]:
    """Return the names of the sheets that so many photographs may take."""
    pages = -(-num_photos // ROWS_OF_PAGE)
    of = f"-rank-{rank}" if world_size > 1 else ""
    return [out / f"before_after{of}-{number + 1:03d}.jpg" for number in range(pages)]


@dataclass(slots=True)
class CompareSheets:
    """Collects photographs and their results, and writes a sheet whenever one is full."""

    paths: Sequence[Path]
    """See `sheet_paths`; fewer are written if photographs cannot be read."""
    written: list[Path] = field(default_factory=list)
    """The sheets so far."""
    _rows: list[Row] = field(default_factory=list)

    def show(self, job: Job, before: np.ndarray, after: np.ndarray) -> None:
        """Take a photograph, as `restore_photos` shows it."""
        before, after = _to_8_bits(before), _to_8_bits(after)
        centre = _centre(before, after)
        cells = [make_cell(one, cell_px=CELL_PX, centre=centre) for one in (before, after)]
        self._rows.append(Row(job.source.name, cells))
        if len(self._rows) == ROWS_OF_PAGE:
            self.flush()

    def flush(self) -> None:
        """Write what is left."""
        if not self._rows:
            return
        path = self.paths[len(self.written)]
        sheet = draw_sheet(
            self._rows, title="before | after", columns=["before", "after"], cell_px=CELL_PX
        )
        with replacing(path) as file:
            sheet.save(file, "JPEG", quality=92, subsampling="4:4:4")
        self.written.append(path)
        self._rows = []


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _centre(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    step = max(1, max(before.shape[:2]) // _SEARCHED_PX)
    one, other = (_in_colors(pixels[::step, ::step]) for pixels in (before, after))
    return most_changed(one, other, max(4, CELL_PX // step))


def _in_colors(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else pixels[:, :, None].repeat(3, 2)
