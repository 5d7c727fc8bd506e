"""The recipe that a user names: one of ours, or a JSON file of their own."""

from pathlib import Path

from agedphoto.synth import RECIPES, Recipe, find_recipe


def read_recipe(recipe: str | Path) -> Recipe:
    """Return a recipe by name, or out of a file that `Recipe.to_json` was written to.

    Raises:
        ValueError: If no recipe has that name, or the file is none.
    """
    if str(recipe) in RECIPES or Path(recipe).suffix.lower() != ".json":
        return find_recipe(str(recipe))
    try:
        text = Path(recipe).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read the recipe {recipe}: {reason}") from error
    try:
        return Recipe.from_json(text)
    except ValueError as error:
        raise ValueError(f"{recipe}: {error}") from error
