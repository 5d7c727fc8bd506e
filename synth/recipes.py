"""Recipes: which defects a photograph meets, in the order of its life.

A recipe is data. Write your own as a `Recipe` of defects; the place of a defect in the tuple is its
op number, which enters its random draws, so two grains in one recipe are different grains.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..textures import TextureBank
from .grain import Grain
from .grayscale import Grayscale
from .texture import Texture
from .types import Images, Keys, Mask, Params


@runtime_checkable
class Defect(Protocol):
    """A kind of ageing: `sample` draws its parameters, `apply` is pure in them.

    A defect is an instance of a frozen dataclass, so that a recipe can be saved with a checkpoint.
    """

    def sample(
        self, keys: Keys, *, op: int, size: tuple[int, int], textures: TextureBank
    ) -> Params:
        """Draw the parameters of each photograph from its key; `size` is (H, W) in pixels."""
        ...

    def apply(
        self, x: Images, params: Params, *, keys: Keys, op: int, textures: TextureBank
    ) -> tuple[Images, Mask | None]:
        """Return the aged pictures, and where they are hidden if they can be; x stays as it is."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A named sequence of defects."""

    name: str
    """Shown in logs and saved with every checkpoint."""

    defects: tuple[Defect, ...]
    """Applied first to last; at least one."""

    def __post_init__(self) -> None:
        """Check that there is something to apply, and that it can be."""
        if not self.defects or not isinstance(self.defects, tuple):
            raise ValueError(
                f"defects of recipe {self.name!r} must be a tuple of at least one, "
                f"got {self.defects!r}"
            )
        for defect in self.defects:
            is_class = isinstance(defect, type)
            if is_class or not (isinstance(defect, Defect) and dataclasses.is_dataclass(defect)):
                raise ValueError(
                    f"defects of recipe {self.name!r} must be instances of dataclasses with sample "
                    f"and apply, got {defect!r}; see synth.Grain for an example"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the name, and each defect's class name and fields."""
        defects = [
            {"defect": type(defect).__name__.lower(), **dataclasses.asdict(defect)}  # type: ignore[call-overload]
            for defect in self.defects
        ]
        return {"name": self.name, "defects": defects}


def seed() -> Recipe:
    """Grayscale, Gaussian grain of sigma 0.10, then dust and scratches added with random strength.

    What the student project behind agedphoto meant to do; it multiplied the whole picture by alpha
    instead of the texture.
    """
    return Recipe(name="seed", defects=(Grayscale(), Grain(sigma=(0.10, 0.10)), Texture()))


RECIPES: dict[str, Callable[[], Recipe]] = {"seed": seed}


def find_recipe(recipe: str | Recipe) -> Recipe:
    """Return a recipe by name, or the recipe itself.

    Raises:
        ValueError: If no recipe has that name; the message lists those there are.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; there are: {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]()
