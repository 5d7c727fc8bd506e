"""Defects made of others: for some photographs only, in no fixed order, or several as one."""

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch.compiler import is_compiling

from .defect import Defect
from .philox import bits_to_below
from .scene import Scene, per_pixel
from .types import Images, Mask, Params

MOST_IN_ANY_ORDER = 3
"""Each of k defects is applied k times, to find every photograph at its turn."""
MOST_IN_ORDER = 64
"""Part numbers have eight bits, and leave room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sometimes(Defect):
    """A defect that happens to a share of the photographs."""

    what: Defect
    """What may happen."""
    p: float = 0.5
    """To which share."""

    def __post_init__(self) -> None:
        """Check the share."""
        _check_parts("what", (self.what,))
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"p must be a share from 0 to 1, got {self.p!r}")

    @property
    def uses_textures(self) -> bool:
        """Whether the defect does."""
        return self.what.uses_textures

    @property
    def changes_channels(self) -> bool:
        """Whether the defect does."""
        return self.what.changes_channels

    def sample(self, scene: Scene) -> Params:
        """Draw whether it happens, `happens` (B,) bool, and the parameters of the defect."""
        happens = scene.uniform(1)[:, 0] < self.p
        return {"happens": happens, **_named(0, self.what.sample(scene.part(0)))}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Apply the defect, and keep the result where it happens."""
        if x.device.type == "cpu" and not self.changes_channels and not is_compiling():
            # Only there: on a GPU, to ask for how many it happens would make it wait.
            return self._apply_to_some(x, params, scene)
        aged, mask = self.what.apply(x, _of(0, params), scene.part(0))
        happens = per_pixel(params["happens"])
        return torch.where(happens, aged, x), None if mask is None else mask & happens

    def _apply_to_some(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Apply the defect to those photographs alone that it happens to."""
        some = params["happens"].nonzero()[:, 0]
        if not len(some):
            return x, None
        drawn = {name: value[some] for name, value in _of(0, params).items()}
        aged, mask = self.what.apply(x[some], drawn, scene.part(0).of(some))
        hidden = None
        if mask is not None:
            hidden = mask.new_zeros(len(x), *mask.shape[1:]).index_copy_(0, some, mask)
        return x.index_copy(0, some, aged), hidden

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as the defect reaches."""
        return self.what.reach_px(size)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnyOrder(Defect):
    """Defects that happen one after another, for each photograph in an order of its own."""

    defects: tuple[Defect, ...]
    """Two or three; none may change the number of channels."""

    def __post_init__(self) -> None:
        """Check their number."""
        if not isinstance(self.defects, tuple) or not 2 <= len(self.defects) <= MOST_IN_ANY_ORDER:
            raise ValueError(
                f"defects must be a tuple of 2 to {MOST_IN_ANY_ORDER}, got {self.defects!r}; put "
                "those of a fixed order beside them into the recipe"
            )
        _check_parts("defects", self.defects)
        _check_channels(self.defects, "happen in any order")

    @property
    def uses_textures(self) -> bool:
        """Whether one of them does."""
        return any(defect.uses_textures for defect in self.defects)

    def sample(self, scene: Scene) -> Params:
        """Draw `order` (B,), the number of a permutation, and the parameters of all."""
        order = bits_to_below(scene.bits(1)[:, 0], math.factorial(len(self.defects)))
        drawn: Params = {"order": order}
        for number, defect in enumerate(self.defects):
            drawn |= _named(number, defect.sample(scene.part(number)))
        return drawn

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Apply every defect at every turn, and keep it where it is its turn."""
        orders = list(permutations(range(len(self.defects))))
        hidden = None
        for turn in range(len(self.defects)):
            before = x
            for number, defect in enumerate(self.defects):
                its = [i for i, order in enumerate(orders) if order[turn] == number]
                chosen = sum((params["order"] == i for i in its[1:]), params["order"] == its[0])
                chosen = per_pixel(chosen.bool())
                aged, mask = defect.apply(before, _of(number, params), scene.part(number))
                x = torch.where(chosen, aged, x)
                if mask is not None:
                    mask = mask & chosen
                    hidden = mask if hidden is None else hidden | mask
        return x, hidden

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as all of them reach together."""
        return sum(defect.reach_px(size) for defect in self.defects)


@dataclass(frozen=True, kw_only=True, slots=True)
class InOrder(Defect):
    """Defects that happen one after another, for `Sometimes` to take as one: all or none."""

    defects: tuple[Defect, ...]
    """At least one; none may change the number of channels."""

    def __post_init__(self) -> None:
        """Check their number."""
        if not isinstance(self.defects, tuple) or not 1 <= len(self.defects) <= MOST_IN_ORDER:
            raise ValueError(
                f"defects must be a tuple of 1 to {MOST_IN_ORDER}, got {self.defects!r}"
            )
        _check_parts("defects", self.defects)
        _check_channels(self.defects, "be one of several that happen as one")

    @property
    def uses_textures(self) -> bool:
        """Whether one of them does."""
        return any(defect.uses_textures for defect in self.defects)

    def sample(self, scene: Scene) -> Params:
        """Draw the parameters of all."""
        drawn: Params = {}
        for number, defect in enumerate(self.defects):
            drawn |= _named(number, defect.sample(scene.part(number)))
        return drawn

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Apply one after another."""
        hidden = None
        for number, defect in enumerate(self.defects):
            x, mask = defect.apply(x, _of(number, params), scene.part(number))
            if mask is not None:
                hidden = mask if hidden is None else hidden | mask
        return x, hidden

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as all of them reach together."""
        return sum(defect.reach_px(size) for defect in self.defects)


def parts_of(defect: Defect) -> tuple[Defect, ...]:
    """Return the defects that a defect is made of; none for most."""
    if isinstance(defect, Sometimes):
        return (defect.what,)
    return defect.defects if isinstance(defect, AnyOrder | InOrder) else ()


def nesting(defect: Defect) -> int:
    """Return how many composites lie around each other: 0 for a defect that is none."""
    return 1 + max(map(nesting, parts_of(defect))) if parts_of(defect) else 0


def _check_parts(name: str, parts: tuple[Defect, ...]) -> None:
    for part in parts:
        if not isinstance(part, Defect):
            raise ValueError(f"{name} must be made of defects, got {part!r}; see synth.Grain")


def _check_channels(defects: tuple[Defect, ...], what: str) -> None:
    for defect in defects:
        if defect.changes_channels:
            raise ValueError(
                f"{type(defect).__name__} changes the number of channels, so it cannot {what}; "
                "put it beside the others into the recipe"
            )


def _named(number: int, params: Params) -> Params:
    return {f"{number}.{name}": value for name, value in params.items()}


def _of(number: int, params: Params) -> dict[str, Any]:
    start = f"{number}."
    return {name[len(start) :]: value for name, value in params.items() if name.startswith(start)}
