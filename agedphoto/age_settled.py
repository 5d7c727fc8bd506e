"""A recipe for one photograph alone: without what does not happen to it, in the order it has.

A batch computes what happens to any of its photographs, in every order, and keeps for each what is
its own. Of one photograph it is known beforehand, which saves half of the work, and shortens the
reach of the recipe. The result is the same, but for how the last bit is rounded.
"""

from dataclasses import dataclass, replace
from itertools import permutations

from agedphoto.synth import AnyOrder, Defect, InOrder, Recipe, Scene, Sometimes
from agedphoto.synth.types import Images, InMode, Mask, Params


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled(Defect):
    """A composite whose parts are known to happen or not, and in which order; for `apply` only."""

    parts: tuple[tuple[int, Defect], ...]
    """What happens; each with its number in the composite, by which its draws are named."""
    spared: Defect | None = None
    """What might have happened, but does not."""

    @property
    def uses_textures(self) -> bool:
        """Whether one of them does."""
        return any(part.uses_textures for part in self._all())

    def sample(self, scene: Scene) -> Params:
        """Refuse: what is settled was drawn before."""
        raise NotImplementedError("what is settled was drawn before")

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[InMode, Mask | None]:
        """Apply what happens, one after the other."""
        channels, hidden = x.shape[1], None
        if self.spared is not None and channels == 1:
            # What makes colour makes three channels of all photographs of a batch, and a grain
            # that comes later has as many.
            corner, drawn = x[:, :, :1, :1], _part_params(0, params)
            channels = self.spared.apply(corner, drawn, scene.part(0))[0].shape[1]
        for number, part in self.parts:
            x, mask = part.apply(x, _part_params(number, params), scene.part(number))
            if mask is not None:
                hidden = mask if hidden is None else hidden | mask
        return x.expand(-1, max(channels, x.shape[1]), -1, -1), hidden

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as all that happens reaches together."""
        return sum(part.reach_px(size) for _, part in self.parts)

    def _all(self) -> list[Defect]:
        spared = [] if self.spared is None else [self.spared]
        return [*(part for _, part in self.parts), *spared]


def settle(recipe: Recipe, params: list[Params]) -> Recipe:
    """Return the recipe for the one photograph that params were drawn for."""
    defects = tuple(
        _settle(defect, drawn) for defect, drawn in zip(recipe.defects, params, strict=True)
    )
    return replace(recipe, defects=defects)


def _settle(defect: Defect, params: Params) -> Defect:
    if isinstance(defect, Sometimes):
        if not bool(params["happens"][0]):
            return Settled(parts=(), spared=defect.what)
        return Settled(parts=((0, _settle(defect.what, _part_params(0, params))),))
    if isinstance(defect, AnyOrder):
        orders = list(permutations(range(len(defect.defects))))
        return Settled(
            parts=tuple(
                (number, _settle(defect.defects[number], _part_params(number, params)))
                for number in orders[int(params["order"][0])]
            )
        )
    if isinstance(defect, InOrder):
        return Settled(
            parts=tuple(
                (number, _settle(part, _part_params(number, params)))
                for number, part in enumerate(defect.defects)
            )
        )
    return defect


def _part_params(number: int, params: Params) -> Params:
    start = f"{number}."
    return {name[len(start) :]: value for name, value in params.items() if name.startswith(start)}
