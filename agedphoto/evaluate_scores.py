"""Scores of one answer, and of many: their mean, and pooled as if they were one picture.

The mean of PSNRs is what papers print; pooled, the PSNR of the mean squared error over all pixels
of all photos, which a few easy photos cannot lift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agedphoto.evaluate_answer import Answer
from agedphoto.evaluate_cases import Given, Levels
from agedphoto.synth import LAB_SCALE
from agedphoto.synth.modes import clean_in_mode
from agedphoto.train.color_metrics import ab_squared_error, colorfulness
from agedphoto.train.metrics import decibels, mask_iou, picture_quality

Values = dict[str, float | None]
"""By name; None where there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Squared errors, that can be added up."""

    total: float = 0.0
    """In levels of 255, or of a and b in CIELAB units, squared."""
    count: int = 0
    """How many numbers were compared."""

    @classmethod
    def between(cls, picture: Levels, clean: Levels) -> "Errors":
        """Compare two pictures, or the pixels (N,) or (N, 3) of two."""
        difference = picture.astype(np.int64) - clean
        return cls(float(np.square(difference).sum()), difference.size)

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.total + other.total, self.count + other.count)

    @property
    def mse(self) -> float | None:
        """Mean squared error, of pictures in [0, 1]."""
        return self.total / self.count / 255.0**2 if self.count else None

    @property
    def psnr_db(self) -> float | None:
        """At most 168 dB, as `train.psnr_db`."""
        return decibels(self.total / self.count, peak=255.0) if self.count else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Scores of one photo."""

    photo: str
    height: int
    width: int
    errors: dict[str, Errors]
    """What is pooled as errors are, by name."""
    ratios: dict[str, tuple[int, int]]
    """What is pooled as numerators and denominators, by name."""
    numbers: Values
    """What is not pooled."""

    def to_dict(self) -> dict[str, object]:
        """Return plain data, without infinities."""
        return {
            "photo": self.photo,
            "height": self.height,
            "width": self.width,
            **_values(self.errors, self.ratios),
            **self.numbers,
        }


def score(name: str, given: Given, answered: Answer, photo: Levels, *, is_aged: bool) -> Row:
    """Compare an answer with what it should have been.

    Args:
        name: Of the photo.
        given: What the network saw.
        answered: What it answered.
        photo: The clean photo (H, W, 3), for the colours.
        is_aged: Whether what it saw is to be scored too, and the gain over it.
    """
    errors = {"": Errors.between(answered.picture, given.clean)}
    ratios: dict[str, tuple[int, int]] = {}
    numbers: Values = {"ssim": _ssim(answered.picture, given.clean)}
    if is_aged:
        errors["aged"] = Errors.between(given.aged_levels, given.clean)
        numbers["aged_ssim"] = _ssim(given.aged_levels, given.clean)
    if given.mask is not None:
        for where, chosen in (("inside", given.mask), ("outside", ~given.mask)):
            errors[where] = Errors.between(answered.picture[chosen], given.clean[chosen])
            errors[f"aged_{where}"] = Errors.between(given.aged_levels[chosen], given.clean[chosen])
        ratios["hidden_share"] = (int(given.mask.sum()), given.mask.size)
        if answered.hidden is not None:
            both, either = mask_iou(answered.hidden, torch.from_numpy(given.mask)[None, None])
            ratios["mask_iou"] = (int(both), int(either))
    if answered.colors is not None:
        _score_colors(answered.colors, photo, errors, numbers)
    return Row(
        photo=name,
        height=photo.shape[0],
        width=photo.shape[1],
        errors=errors,
        ratios=ratios,
        numbers=numbers,
    )


def mean(rows: Sequence[Row]) -> Values:
    """Return the mean of each score over the photos that have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in (_values(row.errors, row.ratios) | row.numbers).items():
            columns.setdefault(name, []).extend([] if value is None else [value])
    return {name: math.fsum(x) / len(x) if x else None for name, x in columns.items()}


def pooled(rows: Sequence[Row]) -> Values:
    """Return the scores of all photos as if they were one picture, of those scores that can be."""
    errors: dict[str, Errors] = {}
    ratios: dict[str, tuple[int, int]] = {}
    for row in rows:
        for name, value in row.errors.items():
            errors[name] = errors.get(name, Errors()) + value
        for name, (part, whole) in row.ratios.items():
            before = ratios.get(name, (0, 0))
            ratios[name] = (before[0] + part, before[1] + whole)
    return _values(errors, ratios)


def _values(errors: dict[str, Errors], ratios: dict[str, tuple[int, int]]) -> Values:
    values: Values = {}
    for name, error in errors.items():
        values[f"{name}_psnr_db".removeprefix("_")] = error.psnr_db
        if name in ("", "aged"):
            values[f"{name}_mse".removeprefix("_")] = error.mse
    for before, after, name in (
        ("aged", "", "gain_db"),
        ("aged_inside", "inside", "inside_gain_db"),
        ("aged_outside", "outside", "outside_gain_db"),
        ("gray_ab", "ab", "ab_gain_db"),
    ):
        if before in errors and after in errors:
            worse, better = errors[before].psnr_db, errors[after].psnr_db
            values[name] = None if worse is None or better is None else better - worse
    for name, (part, whole) in ratios.items():
        values[name] = part / whole if whole else None
    return values


def _score_colors(
    colors: Levels, photo: Levels, errors: dict[str, Errors], numbers: Values
) -> None:
    """Judge colours as they are seen: of the 8-bit picture, beside those of gray and the truth."""
    seen, truth = (_batch(picture) for picture in (colors, photo))
    ab, true_ab = (clean_in_mode(x, "lab")[:, 1:] * LAB_SCALE[1] for x in (seen, truth))
    for name, guess in (("ab", ab), ("gray_ab", torch.zeros_like(ab))):
        squared = ab_squared_error(guess, true_ab).item()
        errors[name] = Errors(squared * ab.numel(), ab.numel())
    numbers["colorfulness"] = colorfulness(seen * 255).item()
    numbers["clean_colorfulness"] = colorfulness(truth * 255).item()


def _ssim(picture: Levels, clean: Levels) -> float | None:
    ssim = picture_quality(picture, clean).ssim
    return ssim if math.isfinite(ssim) else None


def _batch(levels: Levels) -> torch.Tensor:
    planes = np.ascontiguousarray(np.atleast_3d(levels).transpose(2, 0, 1))
    return torch.from_numpy(planes)[None].float() / 255
