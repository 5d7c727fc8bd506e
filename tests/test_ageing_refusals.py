"""What users do with ageing that cannot be done, and what must not break it."""

import copy
import json
import pickle
import subprocess
import sys
import threading
from typing import Any

import jaxtyping
import pytest
import torch

from agedphoto.synth import (
    RECIPES,
    Ageing,
    AnyOrder,
    Grain,
    Grayscale,
    Recipe,
    Sometimes,
    Texture,
    Toning,
)
from agedphoto.synth.ageing import _PRODUCTS, exact_products
from agedphoto.textures import TextureBank

PHOTOS = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
KEYS = torch.tensor([3, -8])


@pytest.fixture
def unchecked():
    """Let a wrong type reach the function, as it does outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "chosen",
    [
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cudnn.fp32_precision = 'ieee'",
        "torch.set_float32_matmul_precision('high')",
    ],
)
def test_any_way_to_choose_tf32_is_borne_and_kept(chosen):
    code = f"""
import torch
{chosen}
from agedphoto.synth.ageing import _PRODUCTS, exact_products
before = [kind.fp32_precision for kind in _PRODUCTS]
with exact_products():
    assert all(kind.fp32_precision in ("ieee", "none") for kind in _PRODUCTS)
assert [kind.fp32_precision for kind in _PRODUCTS] == before
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_products_are_exact_until_the_last_thread_has_left():
    kind: Any = _PRODUCTS[1]
    before, inside, leave = kind.fp32_precision, threading.Event(), threading.Event()

    def stay() -> None:
        with exact_products():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    with exact_products():
        thread.start()
        assert inside.wait(30)
    assert kind.fp32_precision == "ieee"
    leave.set()
    thread.join()
    assert kind.fp32_precision == before


@pytest.mark.parametrize("name", RECIPES)
def test_an_empty_batch_gives_an_empty_batch(name, textures):
    made = Ageing(RECIPES[name](), textures=TextureBank.load())(PHOTOS[:0], KEYS[:0])
    assert [part.shape[0] for part in made] == [0, 0, 0]


@pytest.mark.parametrize("size", [(0, 8), (8, 0)])
def test_photos_without_pixels_are_refused(size):
    with pytest.raises(ValueError, match="photos must have pixels, got the shape"):
        Ageing("seed")(torch.rand(2, 3, *size), KEYS)


def test_apply_refuses_what_does_not_belong_together(unchecked, textures):
    ageing = Ageing("seed", textures=textures, augment=False)
    params = ageing.sample(KEYS, size=(24, 32))
    with pytest.raises(ValueError, match=r"keys must be int64 of shape \(2,\)"):
        ageing.apply(PHOTOS, params, keys=KEYS[:1])
    with pytest.raises(ValueError, match=r"params of Grain lack 'sigma'; give what `sample`"):
        ageing.apply(PHOTOS, [params[0], {}, params[2]], keys=KEYS)
    with pytest.raises(ValueError, match="top and left must be multiples of 16"):
        ageing.apply(PHOTOS, params, keys=KEYS, size=(100, 100), top=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defects": [{"defect": []}]}, "unknown defect"),
        ({"defects": [{"defect": "sometimes", "what": "dust"}]}, "what must be made of defects"),
        ({"defects": [{"defect": "sometimes", "what": None}]}, "what must be made of defects"),
        ({"defects": [{"defect": "any_order", "defects": ["a", "b"]}]}, "must be made of defects"),
        ({"severity_sigma": None}, "severity_sigma must be a number, got None"),
        ({"severity_sigma": [1]}, "severity_sigma must be a number"),
        ({"defects": [{"defect": "texture", "families": "dust"}]}, "families must be a tuple"),
        ({"defects": [{"defect": "texture", "families": None}]}, "families must be a tuple"),
        ({"defects": [{"defect": "grain", "sigma": [0.1, 0.2, 0.3]}]}, "sigma must be a pair"),
        ({"defects": [{"defect": "grain", "sigmas": [0.1, 0.2]}]}, "grain has the fields sigma"),
        ({"colour": 1}, "a recipe has no field 'colour'"),
        ({"defects": "grain"}, "this is no recipe"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_sentence(unchecked, change, message):
    data = Recipe(name="x", defects=(Grain(),)).to_dict() | change
    with pytest.raises(ValueError, match=message):
        Recipe.from_json(json.dumps(data))


def test_json_without_end_is_refused():
    with pytest.raises(ValueError, match="this recipe is not JSON"):
        Recipe.from_json("[" * 100_000)


def test_composites_nested_too_deep_are_refused():
    nested = Sometimes(what=Sometimes(what=Sometimes(what=Grain())))
    Recipe(name="x", defects=(nested,))
    with pytest.raises(ValueError, match="nested 4 deep, at most 3 can be"):
        Recipe(name="x", defects=(Sometimes(what=nested),))


@pytest.mark.parametrize("defect", [Grayscale(), Toning(), Sometimes(what=Toning())])
def test_what_changes_channels_has_its_place(defect):
    with pytest.raises(ValueError, match="changes the number of channels"):
        AnyOrder(defects=(Grain(), defect))


def test_a_bank_of_any_strides_is_read_alike(textures):
    turned = textures.textures.transpose(1, 2)
    bank = TextureBank(turned, textures.names)
    assert bank.textures.is_contiguous()
    assert torch.equal(bank.textures, turned)
    recipe = Recipe(name="x", defects=(Texture(families=("dust",)),))
    assert Ageing(recipe, textures=bank)(PHOTOS, KEYS).mask.any()


def test_an_ageing_is_pickled_and_copied(textures):
    ageing = Ageing("seed", textures=textures)
    ageing._compiled = lambda *_: None  # type: ignore[assignment, return-value]
    expected = ageing(PHOTOS, KEYS)
    for other in (pickle.loads(pickle.dumps(ageing)), copy.copy(ageing)):
        assert torch.equal(other(PHOTOS, KEYS).aged, expected.aged)


def test_threads_share_no_key(textures):
    ageing = Ageing("seed", textures=textures)
    seen: list[torch.Tensor] = []

    def draw() -> None:
        for _ in range(200):
            seen.append(ageing._next_keys(3))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = torch.cat(seen)
    assert len(keys.unique()) == len(keys) == 4 * 200 * 3


def test_textures_larger_than_memory_are_refused():
    with pytest.raises(ValueError, match="size_px must be at most 8192, got 100000000"):
        TextureBank.synthesize(1, size_px=100_000_000)
