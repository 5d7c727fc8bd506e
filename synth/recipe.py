"""A recipe: what happens to a photograph, in the order of its life, as data.

Write your own as a `Recipe` of defects; the place of a defect in the tuple is its op number, which
enters its random draws, so two grains in one recipe are different grains.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .augment import Augment
from .composites import AnyOrder, InOrder, Sometimes, nesting, parts_of
from .defect import Defect, name_of
from .defects import DEFECTS
from .philox import bits_to_normal, draw_bits
from .types import Keys, PerImage

SEVERITY_OP = 0xFFFFFFFD
"""Op number of the severity's draw; no recipe is long enough to reach it."""

MOST_SEVERE = 4.0
"""Severities are cut at this, and at one over it."""

MOST_NESTED = 3
"""Composites in composites; each takes eight of the 32 bits of an op number."""

_COMPOSITES: dict[str, type[Defect]] = {
    name_of(kind): kind for kind in (Sometimes, AnyOrder, InOrder)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A named sequence of defects."""

    name: str
    """Shown in logs and saved with every checkpoint."""

    defects: tuple[Defect, ...]
    """Applied first to last; at least one."""

    severity_sigma: float = 0.0
    """How much photographs differ in wear: severity is log-normal, exp(sigma n), about 1. Real
    frames vary tenfold, which is 0.8."""

    augment: Augment = dataclasses.field(default_factory=Augment)
    """What is varied in the clean photo before it ages."""

    def __post_init__(self) -> None:
        """Check that there is something to apply, and that it can be."""
        if not self.defects or not isinstance(self.defects, tuple):
            raise ValueError(
                f"defects of recipe {self.name!r} must be a tuple of at least one, "
                f"got {self.defects!r}"
            )
        for defect in self.defects:
            if not isinstance(defect, Defect) or not dataclasses.is_dataclass(defect):
                raise ValueError(
                    f"defects of recipe {self.name!r} must be instances of dataclasses derived "
                    f"from synth.Defect, got {defect!r}; see synth.Grain for an example"
                )
            if nesting(defect) > MOST_NESTED:
                raise ValueError(
                    f"composites of recipe {self.name!r} are nested {nesting(defect)} deep, "
                    f"at most {MOST_NESTED} can be"
                )
        if len(self.defects) > 255:
            raise ValueError(f"recipe {self.name!r} has {len(self.defects)} defects, at most 255")
        if not 0.0 <= self.severity_sigma <= 2.0:
            raise ValueError(f"severity_sigma must be from 0 to 2, got {self.severity_sigma!r}")

    @property
    def uses_textures(self) -> bool:
        """Whether any defect lays textures on the picture."""
        return any(defect.uses_textures for defect in self.defects)

    def severity(self, keys: Keys) -> PerImage:
        """Draw how worn each photograph is: 1 on average (median), in [1/4, 4]."""
        if self.severity_sigma == 0:
            return torch.ones(len(keys), device=keys.device)
        bits = draw_bits(keys, op=SEVERITY_OP, count=2)
        normal, _ = bits_to_normal(bits[:, 0], bits[:, 1])
        return (self.severity_sigma * normal).exp().clamp(1 / MOST_SEVERE, MOST_SEVERE)

    def reach_px(self, size: tuple[int, int]) -> int:
        """How far away a pixel can be and still matter to another, in pictures of a size (H, W)."""
        return sum(defect.reach_px(size) for defect in self.defects)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the name, and each defect's name and fields."""
        return {
            "name": self.name,
            "defects": [_as_dict(defect) for defect in self.defects],
            "severity_sigma": self.severity_sigma,
            "augment": dataclasses.asdict(self.augment),
        }

    def to_json(self) -> str:
        """Return JSON that `from_json` makes an equal recipe of."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, defects: Iterable[type[Defect]] = ()
    ) -> "Recipe":
        """Make a recipe of what `to_dict` returned.

        Args:
            data: The plain data.
            defects: Classes of defects of your own that occur in it.

        Raises:
            ValueError: If something is missing, unknown or out of range.
        """
        kinds = DEFECTS | _COMPOSITES | {name_of(kind): kind for kind in defects}
        if not isinstance(data, Mapping) or not isinstance(data.get("defects"), list | tuple):
            raise ValueError(f"this is no recipe: {str(data)[:80]!r}; save one with to_json()")
        unknown = set(data) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"a recipe has no field {', '.join(map(repr, sorted(unknown)))}")
        severity_sigma = data.get("severity_sigma", 0.0)
        if isinstance(severity_sigma, bool) or not isinstance(severity_sigma, int | float):
            raise ValueError(f"severity_sigma must be a number, got {severity_sigma!r}")
        return cls(
            name=str(data.get("name", "unnamed")),
            defects=tuple(_from_dict(item, kinds) for item in data["defects"]),
            severity_sigma=float(severity_sigma),
            augment=_make(Augment, data.get("augment", {}), "augment"),
        )

    @classmethod
    def from_json(cls, text: str, *, defects: Iterable[type[Defect]] = ()) -> "Recipe":
        """Make a recipe of what `to_json` returned; see `from_dict`."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"this recipe is not JSON: {error}") from error
        return cls.from_dict(data, defects=defects)


def _as_dict(defect: Defect) -> dict[str, Any]:
    fields = {
        field.name: getattr(defect, field.name)
        for field in dataclasses.fields(defect)  # type: ignore[arg-type]
    }
    if parts_of(defect):
        for name, value in fields.items():
            if isinstance(value, Defect):
                fields[name] = _as_dict(value)
            elif isinstance(value, tuple):
                fields[name] = [_as_dict(part) for part in value]
    return {"defect": name_of(type(defect)), **fields}


def _from_dict(data: Any, kinds: Mapping[str, type[Defect]]) -> Defect:
    if not isinstance(data, Mapping) or "defect" not in data:
        raise ValueError(f"a defect of a recipe must be an object with its name, got {data!r}")
    name = data["defect"]
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(
            f"unknown defect {name!r}; there are: {', '.join(sorted(kinds))}; give classes of your "
            "own as defects="
        )
    fields = {key: value for key, value in data.items() if key != "defect"}
    return _make(kinds[name], {key: _value(value, kinds) for key, value in fields.items()}, name)


def _value(value: Any, kinds: Mapping[str, type[Defect]]) -> Any:
    if isinstance(value, Mapping):
        return _from_dict(value, kinds)
    return tuple(_value(item, kinds) for item in value) if isinstance(value, list) else value


def _make(kind: Any, fields: Any, name: str) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(kind))
        raise ValueError(f"{name} has the fields {known}, got {fields!r}: {error}") from error
