"""The recipes there are, as functions that return a full one."""

from collections.abc import Callable

from .augment import Augment
from .grain import Grain
from .grayscale import Grayscale
from .recipe import Recipe
from .texture import Texture


def seed() -> Recipe:
    """Grayscale, Gaussian grain of sigma 0.10, then dust and scratches added with random strength.

    What the student project behind agedphoto meant to do; it multiplied the whole picture by alpha
    instead of the texture. The ranges of the augmentation are its own.
    """
    return Recipe(
        name="seed",
        defects=(Grayscale(), Grain(sigma=(0.10, 0.10)), Texture()),
        augment=Augment(
            rotation_turns=0.03, zoom=0.05, translation=0.02, brightness=0.05, contrast=0.05
        ),
    )


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
