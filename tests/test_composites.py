"""Composites: a share of the photographs, and every order, each photograph by itself."""

from itertools import permutations

import pytest
import torch
from scenes import scene

from agedphoto.synth import (
    AnyOrder,
    Defocus,
    Dust,
    Grain,
    Grayscale,
    InOrder,
    Recipe,
    Sometimes,
    Texture,
    ToneCurve,
)
from agedphoto.synth.composites import parts_of

KEYS = torch.arange(400)
PHOTOS = torch.rand(400, 1, 6, 5, generator=torch.Generator().manual_seed(0))


def test_a_defect_happens_to_its_share_and_to_no_other(textures):
    there = scene(KEYS, op=4, size=(6, 5), textures=textures)
    defect = Sometimes(what=Texture(alpha=(0.9, 1.0)), p=0.3)
    params = defect.sample(there)
    aged, mask = defect.apply(PHOTOS, params, there)
    assert params["happens"].float().mean() == pytest.approx(0.3, abs=0.07)
    spared = ~params["happens"]
    assert torch.equal(aged[spared], PHOTOS[spared])
    assert mask is not None
    assert not mask[spared].any()
    assert mask.any()
    full, _ = defect.what.apply(PHOTOS, defect.what.sample(there.part(0)), there.part(0))
    assert torch.equal(aged[~spared], full[~spared])


def test_never_and_always():
    there = scene(KEYS, size=(6, 5))
    for p, changed in ((0.0, 0), (1.0, 400)):
        defect = Sometimes(what=Grain(), p=p)
        aged, _ = defect.apply(PHOTOS, defect.sample(there), there)
        assert (aged != PHOTOS).flatten(1).any(1).sum() == changed


def test_each_photograph_has_an_order_of_its_own():
    there = scene(KEYS, op=2, size=(6, 5))
    defects = (ToneCurve(gamma=(2.0, 2.0)), ToneCurve(black=(0.2, 0.2)), Grain())
    both = AnyOrder(defects=defects)
    params = both.sample(there)
    aged, _ = both.apply(PHOTOS, params, there)
    drawn = [
        {name[2:]: value for name, value in params.items() if name.startswith(f"{n}.")}
        for n in range(3)
    ]
    assert (torch.bincount(params["order"], minlength=6) > 40).all()
    for number, order in enumerate(permutations(range(3))):
        x = PHOTOS
        for n in order:
            x, _ = defects[n].apply(x, drawn[n], there.part(n))
        its = params["order"] == number
        assert torch.equal(aged[its], x[its])


def test_what_happens_to_some_is_what_would_happen_to_all(monkeypatch):
    there = scene(KEYS, size=(6, 5))
    defect = Sometimes(what=InOrder(defects=(Defocus(), Dust(), ToneCurve())), p=0.4)
    params = defect.sample(there)
    some, some_hidden = defect.apply(PHOTOS, params, there)
    monkeypatch.setattr("agedphoto.synth.composites.is_compiling", lambda: True)
    both, both_hidden = defect.apply(PHOTOS, params, there)
    torch.testing.assert_close(some, both, rtol=0, atol=1e-6)
    assert some_hidden is not None
    assert both_hidden is not None
    assert torch.equal(some_hidden, both_hidden)
    assert some_hidden.any()


def test_in_order_is_one_after_another():
    there = scene(KEYS, op=3, size=(6, 5))
    defects = (Grain(), ToneCurve(gamma=(2.0, 2.0)), Dust())
    both = InOrder(defects=defects)
    params = both.sample(there)
    aged, hidden = both.apply(PHOTOS, params, there)
    assert hidden is not None
    x, expected = PHOTOS, torch.zeros_like(hidden)
    for number, defect in enumerate(defects):
        part = there.part(number)
        x, mask = defect.apply(x, defect.sample(part), part)
        expected |= mask if mask is not None else False
    assert torch.equal(aged, x)
    assert torch.equal(hidden, expected)


def test_composites_reach_as_far_as_their_parts():
    size = (300, 400)
    blur = Defocus()
    assert Sometimes(what=blur).reach_px(size) == blur.reach_px(size) > 0
    assert AnyOrder(defects=(blur, blur)).reach_px(size) == 2 * blur.reach_px(size)
    assert InOrder(defects=(blur, Grain(), blur)).reach_px(size) == 2 * blur.reach_px(size)
    assert InOrder(defects=(blur, Texture())).uses_textures
    assert parts_of(InOrder(defects=(blur, Grain()))) == (blur, Grain())
    assert parts_of(AnyOrder(defects=(blur, Grain()))) == (blur, Grain())
    assert not Sometimes(what=blur).uses_textures
    assert AnyOrder(defects=(blur, Texture())).uses_textures


def test_nested_composites_save_and_load():
    recipe = Recipe(
        name="nested",
        defects=(
            Sometimes(
                what=AnyOrder(defects=(Grain(), Sometimes(what=Texture(families=("dust",)), p=0.1)))
            ),
            Sometimes(what=InOrder(defects=(Grain(), Dust()))),
            Grayscale(),
        ),
        severity_sigma=0.3,
    )
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_what_cannot_be_is_refused():
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="p must be a share from 0 to 1, got"):
            Sometimes(what=Grain(), p=p)
    for defects in ((Grain(),), (Grain(),) * 4):
        with pytest.raises(ValueError, match="defects must be a tuple of 2 to 3, got"):
            AnyOrder(defects=defects)
    with pytest.raises(ValueError, match="defects must be a tuple of 1 to 64, got"):
        InOrder(defects=())
    with pytest.raises(ValueError, match="Grayscale changes the number of channels"):
        InOrder(defects=(Grain(), Grayscale()))
