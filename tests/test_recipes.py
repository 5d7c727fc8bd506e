"""Recipes: plain data, checked when made, and open to defects of one's own."""

import json
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import jaxtyping
import pytest
import torch

from agedphoto.synth import (
    RECIPES,
    Ageing,
    Defect,
    Grain,
    Grayscale,
    Recipe,
    Texture,
    draw_uniform,
    find_recipe,
)
from agedphoto.synth.modes import AGED_CHANNELS, CLEAN_CHANNELS, MODES


@dataclass(frozen=True)
class Fade(Defect):
    """Move towards paper white: a defect of one's own, in a few lines."""

    most: float = 0.5

    def sample(self, scene):
        return {"amount": self.most * scene.uniform(1)[:, 0]}

    def apply(self, x, params, scene):
        return torch.lerp(x, torch.ones_like(x), params["amount"][:, None, None, None]), None


@pytest.fixture
def unchecked():
    """Let a wrong type reach the function, as it does outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_the_seed_recipe_as_text():
    assert json.loads(json.dumps(find_recipe("seed").to_dict())) == {
        "name": "seed",
        "defects": [
            {"defect": "grayscale"},
            {"defect": "grain", "sigma": [0.1, 0.1]},
            {"defect": "texture", "alpha": [0.2, 0.7], "zoom": [1.0, 2.5], "families": []},
        ],
        "severity_sigma": 0.0,
        "augment": {
            "p": 0.5,
            "rotation_turns": 0.03,
            "zoom": 0.05,
            "translation": 0.02,
            "brightness": 0.05,
            "contrast": 0.05,
        },
    }


def test_recipes_are_found_by_name_and_called_by_it():
    for name in RECIPES:
        assert find_recipe(name).name == name
        assert find_recipe(name) == find_recipe(name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_saved_as_json_is_loaded_as_it_was(name):
    recipe = find_recipe(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ages_a_small_photo_in_every_mode(name, textures):
    photos, keys = torch.rand(2, 3, 64, 64), torch.tensor([7, 8])
    masks = []
    for mode in MODES:
        ageing = Ageing(name, textures=textures, mode=mode)
        aged, clean, mask = ageing(photos, keys)
        assert aged.shape == (2, AGED_CHANNELS[mode], 64, 64)
        assert clean.shape == (2, CLEAN_CHANNELS[mode], 64, 64)
        assert aged.isfinite().all()
        assert mask.shape == (2, 1, 64, 64)
        masks.append(mask)
    # The mode is how the pair is told, not how it aged.
    assert all(torch.equal(mask, masks[0]) for mask in masks)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_replays_exactly(name, textures):
    photos, keys = torch.rand(3, 3, 48, 64), torch.tensor([1, -5, 2**60])
    ageing = Ageing(name, textures=textures, augment=False)
    params = ageing.sample(keys, size=(48, 64))
    for replayed in (ageing.apply(photos, params, keys=keys) for _ in range(2)):
        for one, other in zip(ageing(photos, keys), replayed, strict=True):
            assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_wear_shows_and_leaves_most_of_a_picture(name, textures):
    shades = torch.linspace(0.15, 0.85, 256) + 0.1 * torch.linspace(-1, 1, 192)[:, None]
    photo = shades.expand(1, 3, 192, 256)
    ageing, hidden, same = Ageing(name, textures=textures, augment=False), [], 0
    for key in range(40):
        aged, clean, mask = ageing(photo, torch.tensor([key]))
        hidden.append(float(mask.float().mean()))
        same += torch.equal(aged, clean)
    assert not same or name == "mixed_wear_in_color"
    # A crop so small has stains and fingerprints that are large for it, see also test_realism.
    assert sorted(hidden)[20] <= 0.1
    assert sorted(hidden)[-6] <= 0.25
    assert sorted(hidden)[-3] <= 0.4
    # All but a cutting have dust at least, unless they are meant to hide nothing.
    least = {"newspaper": 10, "awgn": 0, "tones": 0}
    least = (least | {"mixed_wear": 20, "mixed_wear_in_color": 20}).get(name, 36)
    assert sum(share > 0 for share in hidden) >= least
    assert least or max(hidden) == 0


def test_awgn_is_as_noisy_as_denoisers_are_trained_for():
    gray, keys = torch.full((64, 3, 48, 48), 0.5), torch.arange(64)
    aged, clean, _ = Ageing("awgn")(gray, keys)
    levels = (255 * (aged - clean)).flatten(1).std(1).sort().values
    # Evenly from 0 to 50 levels.
    assert levels[0] < 4
    assert 46 < levels[-1] < 51
    assert levels.mean() == pytest.approx(25, abs=5)


def test_tones_changes_tones_of_some_grain_of_some_and_nothing_of_some():
    gray, keys = torch.full((64, 3, 48, 48), 0.3), torch.arange(64)
    aged, clean, _ = Ageing("tones", mode="grayscale")(gray, keys)
    other = ((aged - clean).mean((1, 2, 3)).abs() > 0.004).float().mean()
    grainy = ((aged - clean).flatten(1).std(1) > 0.002).float().mean()
    assert 0.25 < other < 0.75
    assert 0.25 < grainy < 0.75


@pytest.mark.parametrize("name", ["mixed_wear", "mixed_wear_in_color"])
def test_mixed_wear_leaves_one_in_five_alone(name, textures):
    photos, keys = torch.rand(200, 3, 16, 16), torch.arange(200)
    mode = "color" if name.endswith("color") else "grayscale"
    aged, clean, _ = Ageing(name, mode=mode, textures=textures)(photos, keys)
    same = (aged == clean).flatten(1).all(1).float().mean()
    assert 0.14 < same < 0.32


def test_a_recipe_finds_itself():
    mine = Recipe(name="mine", defects=(Grain(),))
    assert find_recipe(mine) is mine


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown recipe 'film'; there are: .*seed"):
        find_recipe("film")
    with pytest.raises(ValueError, match=r"unknown recipe 'film'; there are: .*seed"):
        Ageing("film")


def test_recipes_and_defects_cannot_be_changed():
    recipe: Any = find_recipe("seed")
    for thing, field in [(recipe, "name"), (recipe.defects[1], "sigma")]:
        with pytest.raises(FrozenInstanceError):
            setattr(thing, field, None)


def test_a_defect_of_ones_own_ages_and_is_saved(textures):
    assert isinstance(Fade(), Defect)
    recipe = Recipe(name="faded", defects=(Fade(most=0.25), Grain(sigma=(0.0, 0.0))))
    assert recipe.to_dict()["defects"][0] == {"defect": "fade", "most": 0.25}
    photos, keys = torch.rand(3, 3, 6, 5), torch.tensor([4, 5, 6])
    aged, clean, mask = Ageing(recipe, textures=textures)(photos, keys)
    amount = 0.25 * draw_uniform(keys, op=0, count=1)[:, :, None, None]
    assert torch.allclose(aged, photos + amount * (1 - photos))
    assert torch.equal(clean, photos)
    assert not mask.any()


def test_two_grains_of_one_recipe_are_different_grains(textures):
    gray, keys = torch.full((1, 3, 64, 64), 0.5), torch.tensor([9])
    once = Recipe(name="once", defects=(Grain(sigma=(0.05, 0.05)),))
    twice = Recipe(name="twice", defects=once.defects * 2)
    first = Ageing(once, textures=textures)(gray, keys).aged
    both = Ageing(twice, textures=textures)(gray, keys).aged
    # Variances add up; the same grain twice would double the deviation.
    assert (both - 0.5).std() == pytest.approx(2**0.5 * 0.05, rel=0.03)
    assert (both - first).std() == pytest.approx(0.05, rel=0.03)


def test_the_order_of_defects_is_the_order_of_life(textures):
    # Grain on each colour before the colours go is averaged by luma; after, it is not.
    gray, keys = torch.full((1, 3, 64, 64), 0.5), torch.tensor([9])
    averaged = (0.299**2 + 0.587**2 + 0.114**2) ** 0.5
    for defects, expected in [
        ((Grain(), Grayscale()), 0.1 * averaged),
        ((Grayscale(), Grain()), 0.1),
    ]:
        aged = Ageing(Recipe(name="x", defects=defects), textures=textures)(gray, keys).aged
        assert aged[:, :1].std() == pytest.approx(expected, rel=0.03)


def test_a_recipe_without_defects_is_refused():
    with pytest.raises(ValueError, match="recipe 'empty' must be a tuple of at least one"):
        Recipe(name="empty", defects=())


def test_defects_that_cannot_be_used_are_refused(unchecked):
    class Plain:
        """Neither saved nor compared: no dataclass."""

        sample, apply = Grain.sample, Grain.apply

    wrong: Any
    for wrong in (Grain(), [Grain()]):
        with pytest.raises(ValueError, match="recipe 'x' must be a tuple of at least one, got"):
            Recipe(name="x", defects=wrong)
    for wrong in (Grain, Plain(), "grain", Recipe(name="y", defects=(Grain(),))):
        with pytest.raises(ValueError, match="recipe 'x' must be instances of dataclasses derived"):
            Recipe(name="x", defects=(wrong,))


@pytest.mark.parametrize(("defect", "name"), [(Grain, "sigma"), (Texture, "alpha")])
def test_a_range_out_of_limits_is_refused_by_name(defect, name):
    for wrong in ((0.2, 0.1), (-0.1, 0.2), (0.0, 1.5), (float("nan"), 0.1), (0.1, float("nan"))):
        with pytest.raises(ValueError, match=rf"{name} must be a pair .* within 0 to 1, got \("):
            defect(**{name: wrong})


@pytest.mark.parametrize("wrong", [0.1, (0.1,), (0.1, 0.2, 0.3), None, "ab"])
def test_a_range_that_is_no_pair_is_refused_by_name(unchecked, wrong):
    with pytest.raises(ValueError, match="sigma must be a pair"):
        Grain(sigma=wrong)
