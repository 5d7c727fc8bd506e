"""Families of textures: which marks a sheet carries, and how many.

Numbers are in multiples of the mean film frame. Real frames differ tenfold, so each sheet draws its
severity; no sheet carries one kind of mark alone, as none does in life.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .canvas import Sheet, generator
from .creases import scatter_creases
from .dust import scatter_dust
from .hairs import scatter_hairs
from .scratches import scatter_scratches


def draw(*, seed: int, index: int, size_px: int, family: str) -> NDArray[np.uint8]:
    """Draw texture `index` of a seed: uint8 (size_px, size_px), a function of the arguments alone.

    Raises:
        KeyError: if there is no such family.
    """
    rng = generator(seed=seed, index=index, size_px=size_px, family=family)
    sheet = Sheet(size_px, rng)
    _RECIPES[family](sheet)
    return sheet.finish()


def _dust(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_dust(sheet, severity=1.2 * severity)
    scatter_hairs(sheet, severity=0.25 * severity)


def _hairs(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_dust(sheet, severity=0.4 * severity)
    scatter_hairs(sheet, severity=2.8 * severity)


def _scratches(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_dust(sheet, severity=0.4 * severity)
    scatter_hairs(sheet, severity=0.2 * severity)
    scatter_scratches(sheet, severity=14.0 * severity)


def _mixed(sheet: Sheet) -> None:
    severity = _severity(sheet)
    dust, hairs, scratches = np.exp(0.4 * sheet.rng.standard_normal(3))
    scatter_dust(sheet, severity=0.7 * severity * dust)
    scatter_hairs(sheet, severity=1.1 * severity * hairs)
    scatter_scratches(sheet, severity=3.0 * severity * scratches)


def _creases(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_dust(sheet, severity=0.5 * severity)
    scatter_hairs(sheet, severity=0.3 * severity)
    scatter_creases(sheet, severity=severity)


def _severity(sheet: Sheet) -> float:
    """Draw how worn a sheet is: log-normal about 1, within what still shows a photograph."""
    return float(np.clip(np.exp(0.65 * sheet.rng.standard_normal()), 0.25, 2.3))


_RECIPES: dict[str, Callable[[Sheet], None]] = {
    "dust": _dust,
    "hairs": _hairs,
    "scratches": _scratches,
    "mixed": _mixed,
    "creases": _creases,
}

FAMILIES = tuple(_RECIPES)
"""Names of the families, in the order in which a bank cycles through them."""
