"""The verb `agedphoto textures`: a pack of textures in a folder, and a sheet to look at them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

_CELL_PX = 256
_COLUMNS = 4
_LABEL_PX = 22
_GAP_PX = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Textures:
    """Draw textures of dust, hairs, scratches, creases, stains, foxing, peel and paper."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the textures and textures.json; an earlier pack in it is replaced."""
    count: int = 64
    """How many; a few are the start of many."""
    size_px: int = 1024
    """Side of each, at least 64."""
    seed: int = 0
    """Of everything drawn at random; the same seed gives the same bytes."""
    sheet: bool = False
    """Also OUT/sheet.png: each texture whole, and a part of it at full size."""

    def run(self) -> int:
        """Write the pack."""
        from agedphoto.textures import write_pack

        written = write_pack(
            self.out, count=self.count, size_px=self.size_px, seed=self.seed, progress=True
        )
        num = len(written.entries)
        families = len({entry.family for entry in written.entries})
        print(
            f"{num} texture{'s' * (num > 1)} of {self.size_px} px, {families} "
            f"famil{'ies' if families > 1 else 'y'}, {written.bytes / 1e6:.1f} MB: {self.out}"
        )
        if self.sheet:
            print(f"sheet: {write_sheet(self.out)}")
        return 0


def write_sheet(folder: Path) -> Path:
    """Draw the contact sheet of a pack into its folder; return its place.

    Raises:
        ValueError: If the folder holds no pack, or a damaged one.
    """
    from agedphoto.textures.pack import SHEET, read_pack

    opacities, entries = read_pack(folder)
    rows = -(-len(entries) // _COLUMNS)
    wide, high = 2 * _CELL_PX + _GAP_PX, _CELL_PX + _LABEL_PX + _GAP_PX
    sheet = Image.new("L", (_COLUMNS * wide + _GAP_PX, rows * high + _GAP_PX), 96)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for i, (opacity, entry) in enumerate(zip(opacities, entries, strict=True)):
        row, column = divmod(i, _COLUMNS)
        x, y = column * wide + _GAP_PX, row * high + _GAP_PX
        light = entry.ground == "light"
        look = Image.fromarray(255 - opacity if light else opacity)
        whole = look.resize((_CELL_PX, _CELL_PX), Image.Resampling.BOX)
        part = look.crop(_fullest_part(opacity))
        pen.text((x, y), f"{entry.name}, {entry.ground} ground", fill=255, font=font)
        sheet.paste(whole, (x, y + _LABEL_PX))
        sheet.paste(part, (x + _CELL_PX, y + _LABEL_PX))
    path = folder / SHEET
    temporary = folder / f".{SHEET}.tmp"
    sheet.save(temporary, "PNG")
    return temporary.replace(path)


def _fullest_part(opacity: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box of one cell's size that holds most, on a grid of half cells."""
    side, step = min(_CELL_PX, len(opacity)), _CELL_PX // 2
    starts = range(0, len(opacity) - side + 1, step)
    top, left = max(
        ((top, left) for top in starts for left in starts),
        key=lambda at: int(opacity[at[0] : at[0] + side, at[1] : at[1] + side].sum()),
    )
    return left, top, left + side, top + side
