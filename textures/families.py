"""Families of textures: which marks a sheet carries, and how many.

Numbers are in multiples of the mean film frame. Real frames differ tenfold, so each sheet draws its
severity; no sheet carries one kind of mark alone, as none does in life.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .canvas import Sheet, generator
from .creases import scatter_creases
from .dust import scatter_dust
from .foxing import scatter_foxing
from .hairs import scatter_hairs
from .paper import scatter_paper
from .peel import scatter_peel
from .scratches import scatter_scratches
from .stains import scatter_stains

MOST_PX = 8192
"""The largest side: 64 MiB a texture, and as much again several times while it is drawn."""


def draw(*, seed: int, index: int, size_px: int, family: str) -> NDArray[np.uint8]:
    """Draw texture `index` of a seed: uint8 (size_px, size_px), a function of the arguments alone.

    Raises:
        KeyError: if there is no such family.
    """
    rng = generator(seed=seed, index=index, size_px=size_px, family=family)
    sheet = Sheet(size_px, rng)
    _RECIPES[family](sheet)
    return sheet.finish()


def plan(
    *, count: int, size_px: int, seed: int, first: int, families: Sequence[str]
) -> list[tuple[int, str]]:
    """Check what a bank is to be and return number and family of each of its textures.

    Raises:
        ValueError: If an argument is out of range or a family is unknown.
    """
    least = {"count": (count, 1), "size_px": (size_px, 64), "seed": (seed, 0), "first": (first, 0)}
    for name, (value, low) in least.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(
                f"{name} must be a whole number, at least {low}, got {value!r}; use {low} or more"
            )
    if size_px > MOST_PX:
        raise ValueError(f"size_px must be at most {MOST_PX}, got {size_px}; use {MOST_PX} or less")
    families = (families,) if isinstance(families, str) else tuple(families)
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise ValueError(
            f"families must be one or more of {', '.join(FAMILIES)}, got "
            f"{', '.join(map(repr, unknown)) or 'none'}; leave it out to have them all"
        )
    return [(number, families[number % len(families)]) for number in range(first, first + count)]


def _dust(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_dust(sheet, severity=1.6 * severity)
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
    # Numbers of hairs and scratches differ far more from frame to frame than those of dust do.
    dust, hairs, scratches = np.exp(np.array([0.3, 0.7, 0.7]) * sheet.rng.standard_normal(3))
    scatter_dust(sheet, severity=0.8 * severity * dust)
    scatter_hairs(sheet, severity=0.8 * severity * hairs)
    scatter_scratches(sheet, severity=2.0 * severity * scratches)


def _creases(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_dust(sheet, severity=0.5 * severity)
    scatter_hairs(sheet, severity=0.3 * severity)
    scatter_creases(sheet, severity=severity)


def _stains(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_stains(sheet, severity=severity)
    scatter_dust(sheet, severity=0.12 * severity)


def _foxing(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_foxing(sheet, severity=severity)
    scatter_dust(sheet, severity=0.08 * severity)


def _peel(sheet: Sheet) -> None:
    severity = _severity(sheet)
    scatter_peel(sheet, severity=severity)
    scatter_dust(sheet, severity=0.3 * severity)
    scatter_hairs(sheet, severity=0.1 * severity)


def _paper(sheet: Sheet) -> None:
    scatter_paper(sheet, severity=_severity(sheet))


def _severity(sheet: Sheet) -> float:
    """Draw how worn a sheet is: log-normal about 1, within what still shows a photograph."""
    return float(np.clip(np.exp(0.65 * sheet.rng.standard_normal()), 0.25, 2.3))


_RECIPES: dict[str, Callable[[Sheet], None]] = {
    "dust": _dust,
    "hairs": _hairs,
    "scratches": _scratches,
    "mixed": _mixed,
    "creases": _creases,
    "stains": _stains,
    "foxing": _foxing,
    "peel": _peel,
    "paper": _paper,
}

FAMILIES = tuple(_RECIPES)
"""Names of the families."""

DARKENING = frozenset({"stains", "foxing", "paper"})
"""Families on light ground: they are of the print and darken it."""

ROTA = (
    "dust", "hairs", "scratches", "mixed", "creases", "stains", "mixed", "peel",
    "dust", "hairs", "scratches", "foxing", "mixed", "creases", "paper", "stains",
)  # fmt: skip
"""The families of sixteen textures in a row; twelve of them are on dark ground."""
