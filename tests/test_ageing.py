"""Ageing: a photograph ages alike in any batch, of any type, as often as one likes."""

from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import torch

from agedphoto.synth import (
    MODES,
    AgedPhotos,
    Ageing,
    Defect,
    Grain,
    Recipe,
    Texture,
    normal_field,
    read_textures,
    sample_keys,
)

B, SIZE = 4, (37, 53)
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


@pytest.fixture
def photos() -> torch.Tensor:
    """Uint8 noise, so that every level occurs."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (B, 3, *SIZE), generator=generator, dtype=torch.uint8)


@pytest.fixture
def keys() -> torch.Tensor:
    return sample_keys(7, 0, torch.arange(B), torch.arange(B))


@pytest.fixture
def unchecked():
    """Let a wrong type reach the function, as it does outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def same(one: AgedPhotos, other: AgedPhotos) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def chosen(pairs: AgedPhotos, numbers: list[int]) -> AgedPhotos:
    return AgedPhotos(*(part[numbers] for part in pairs))


@pytest.mark.parametrize("mode", MODES)
def test_a_photograph_does_not_depend_on_the_others(mode, photos, keys, textures):
    ageing = Ageing(mode=mode, textures=textures)
    whole = ageing(photos, keys)
    for numbers in ([2], [3, 0], [1, 2, 3], [3, 1, 0, 2]):
        assert same(ageing(photos[numbers], keys[numbers]), chosen(whole, numbers))


def test_the_seed_recipe_is_luma_then_grain_then_wear(photos, keys, textures):
    ageing = Ageing("seed", mode="grayscale", textures=textures, augment=False)
    aged, clean, mask = ageing(photos, keys)
    luma = (photos.double() / 255 * LUMA[:, None, None]).sum(1, keepdim=True)
    grainy = luma + 0.10 * normal_field(keys, op=1, planes=1, height=SIZE[0], width=SIZE[1])
    params = ageing.sample(keys, size=SIZE)[2]
    window = (params[name] for name in ("texture", "top", "left", "turn", "step"))
    layer = read_textures(textures.textures, *window, size=SIZE)
    light = params["alpha"][:, None, None, None] * layer
    expected = (grainy.clamp(0, 1) + light).clamp(0, 1)
    assert torch.allclose(clean.double(), luma, rtol=0, atol=1e-6)
    assert torch.allclose(aged.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(mask, light >= 0.05)
    assert 0 < mask.float().mean() < 0.5


@pytest.mark.parametrize("mode", MODES)
def test_uint8_and_float_age_alike(mode, photos, keys, textures):
    ageing = Ageing(mode=mode, textures=textures)
    expected = ageing(photos, keys)
    assert same(ageing(photos.float() / 255, keys), expected)
    for made, wanted in zip(ageing(photos.double() / 255, keys), expected, strict=True):
        assert made.dtype == wanted.dtype
        assert torch.allclose(made.float(), wanted.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_layout_of_the_photos_changes_nothing(mode, photos, keys, textures):
    ageing = Ageing(mode=mode, textures=textures)
    expected = ageing(photos, keys)
    for laid in (
        photos.contiguous(memory_format=torch.channels_last),
        photos.repeat_interleave(2, -1)[..., ::2],
    ):
        assert not laid.is_contiguous()
        made = ageing(laid, keys)
        assert same(made, expected)
        assert all(part.is_contiguous() for part in made)


def test_half_precision_photos_are_aged_in_full(keys, textures):
    # Luma rounded to bfloat16 would be off by up to 1/256.
    photos = torch.rand(B, 3, *SIZE).to(torch.bfloat16)
    ageing = Ageing(mode="grayscale", textures=textures)
    assert same(ageing(photos, keys), ageing(photos.float(), keys))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_is_the_rounding_of_float32(dtype, mode, photos, keys, textures):
    full = Ageing(mode=mode, textures=textures)(photos, keys)
    made = Ageing(mode=mode, textures=textures, dtype=dtype)(photos, keys)
    assert made.mask.dtype == torch.bool
    assert torch.equal(made.aged, full.aged.to(dtype))
    assert torch.equal(made.clean, full.clean.to(dtype))
    assert torch.equal(made.mask, full.mask)


@pytest.mark.parametrize("mode", MODES)
def test_output_stays_in_range(mode, photos, keys, textures):
    aged, clean, _ = Ageing(mode=mode, textures=textures)(photos, keys)
    assert aged.min() >= 0
    assert aged.max() <= 1
    assert clean.min() >= (-1 if mode == "lab" else 0)
    assert clean.max() <= 1 + 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_zero_strength_is_identity(mode, photos, keys, textures):
    nothing = Recipe(name="x", defects=(Grain(sigma=(0.0, 0.0)), Texture(alpha=(0.0, 0.0))))
    aged, clean, mask = Ageing(nothing, mode=mode, textures=textures)(photos, keys)
    if mode in ("grayscale", "color"):
        assert torch.equal(aged, clean)
    assert not mask.any()


def test_the_photos_given_stay_as_they_are(photos, keys, textures):
    for given in (photos, photos.float() / 255):
        before = given.clone()
        for mode in MODES:
            Ageing(mode=mode, textures=textures)(given, keys)
        assert torch.equal(given, before)


def test_keys_decide(photos, keys, textures):
    ageing = Ageing(textures=textures, seed=1, augment=False)
    once = ageing(photos, keys)
    assert same(ageing(photos, keys), once)
    # Neither the seed of the object nor its past matters where keys are given.
    assert same(Ageing(textures=textures, seed=2, augment=False)(photos, keys), once)
    other = ageing(photos, keys + 1)
    assert torch.equal(other.clean, once.clean)
    assert ((other.aged != once.aged).flatten(1).float().mean(1) > 0.5).all()


def test_without_keys_photographs_are_numbered_over_the_calls(photos, textures):
    ageing = Ageing(textures=textures, seed=5)
    first, second, third = ageing(photos), ageing(photos[:1]), ageing(photos)
    numbers = torch.arange(2 * B + 1)
    expected = sample_keys(5, 0, numbers, torch.zeros_like(numbers))
    assert same(first, ageing(photos, expected[:B]))
    assert same(second, ageing(photos[:1], expected[B : B + 1]))
    assert same(third, ageing(photos, expected[B + 1 :]))
    assert not same(first, third)


def test_a_fresh_object_repeats_the_sequence(photos, textures):
    one, other, third = (Ageing(textures=textures, seed=seed) for seed in (5, 5, 6))
    # Calls with keys of one's own are not counted.
    one(photos, torch.arange(B))
    for _ in range(2):
        made = one(photos)
        assert same(other(photos), made)
        assert not same(third(photos), made)


def test_parameters_replay_exactly(photos, keys, textures):
    ageing = Ageing(mode="grayscale", textures=textures, augment=False)
    params = ageing.sample(keys, size=SIZE)
    expected = ageing(photos, keys)
    copied = [{name: value.clone() for name, value in drawn.items()} for drawn in params]
    assert same(ageing.apply(photos, copied, keys=keys), expected)
    assert same(ageing.apply(photos.float() / 255, copied, keys=keys), expected)
    assert [sorted(drawn) for drawn in params] == [
        [],
        ["sigma"],
        ["alpha", "left", "step", "texture", "top", "turn"],
    ]
    assert all(len(value) == B for drawn in params for value in drawn.values())


def test_changed_parameters_change_their_photograph_alone(photos, keys, textures):
    ageing = Ageing(textures=textures, augment=False)
    expected, params = ageing(photos, keys), ageing.sample(keys, size=SIZE)
    params[1]["sigma"][2] = 0.3
    made = ageing.apply(photos, params, keys=keys)
    assert same(chosen(made, [0, 1, 3]), chosen(expected, [0, 1, 3]))
    assert not torch.equal(made.aged[2], expected.aged[2])


def test_parameters_of_another_recipe_are_not_applied(photos, keys, textures):
    ageing = Ageing(textures=textures)
    with pytest.raises(ValueError, match=r"params .* 2 defects, but recipe 'seed' has 3"):
        ageing.apply(photos, ageing.sample(keys, size=SIZE)[:2], keys=keys)


def test_the_global_generator_is_neither_read_nor_changed(photos, textures):
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.random.get_rng_state()
        made.append(Ageing(textures=textures)(photos))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert same(*made)


@dataclass(frozen=True)
class Blur(Defect):
    """Average with the neighbours on both sides."""

    def sample(self, scene):
        return {}

    def apply(self, x, params, scene):
        weight = torch.full((3, 1, 1, 3), 1 / 3)
        return torch.nn.functional.conv2d(x, weight, padding=(0, 1), groups=3), None


def test_autocast_changes_nothing(photos, keys, textures):
    for recipe, mode in [("seed", "lab"), (Recipe(name="x", defects=(Blur(),)), "rgb")]:
        ageing = Ageing(recipe, mode=mode, textures=textures)
        expected = ageing(photos, keys)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert same(ageing(photos, keys), expected)


def test_masks_of_several_defects_are_joined(photos, keys, textures):
    single = Recipe(name="x", defects=(Texture(),))
    double = Recipe(name="xx", defects=(Texture(), Texture()))
    once = Ageing(single, textures=textures)(photos, keys)
    twice = Ageing(double, textures=textures)(photos, keys)
    assert (twice.mask | once.mask == twice.mask).all()
    assert twice.mask.sum() > once.mask.sum()


def test_an_empty_batch_gives_an_empty_batch(textures):
    for mode in MODES:
        made = Ageing(mode=mode, textures=textures)(torch.zeros(0, 3, 8, 8))
        assert [len(part) for part in made] == [0, 0, 0]


def test_a_picture_of_one_pixel_ages(keys, textures):
    aged, _, mask = Ageing(textures=textures)(torch.full((B, 3, 1, 1), 0.5), keys)
    assert aged.shape == (B, 3, 1, 1)
    assert mask.shape == (B, 1, 1, 1)


def test_textures_are_read_at_the_first_call_alone(monkeypatch, photos, textures):
    calls = []

    def load():
        calls.append(1)
        return textures

    monkeypatch.setattr("agedphoto.synth.banks.TextureBank.load", load)
    ageing = Ageing()
    assert not calls
    made = [ageing(photos, torch.arange(B)) for _ in range(2)]
    assert calls == [1]
    assert same(*made)


@dataclass(frozen=True)
class Record(Defect):
    """Keep what a defect is given; take nothing from the picture."""

    seen: list

    @property
    def uses_textures(self):
        return True

    def sample(self, scene):
        self.seen.append((scene.op, scene.size, len(scene.bank)))
        return {}

    def apply(self, x, params, scene):
        self.seen.append((scene.op, tuple(x.shape), x.dtype))
        return x, None


def test_defects_are_given_their_place_and_the_size(photos, keys, textures):
    seen: list = []
    recipe = Recipe(name="x", defects=(Grain(), Record(seen), Record(seen)))
    Ageing(recipe, textures=textures)(photos, keys)
    assert seen == [
        (1, SIZE, 5),
        (2, SIZE, 5),
        (1, (B, 3, *SIZE), torch.float32),
        (2, (B, 3, *SIZE), torch.float32),
    ]


def test_wrong_settings_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"unknown recipe 'sede'; there are: .*seed"):
        Ageing("sede")
    with pytest.raises(ValueError, match=r"seed must be a whole number .*, got -1"):
        Ageing(seed=-1)
    with pytest.raises(ValueError, match=r"dtype .* got torch.uint8; use torch.float32"):
        Ageing(dtype=torch.uint8)


def test_an_unknown_mode_is_refused_with_those_there_are(unchecked):
    with pytest.raises(ValueError, match="unknown mode 'sepia'; there are: grayscale, rgb, lab"):
        Ageing(mode="sepia")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 8, 8, 3), (2, 4, 8, 8)])
def test_photos_of_a_wrong_shape_are_refused(unchecked, shape, textures):
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\), got \(.* batch dimension"):
        Ageing(textures=textures)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int8])
def test_photos_of_a_wrong_type_are_refused(dtype, textures):
    photos = torch.zeros(2, 3, 8, 8, dtype=dtype)
    with pytest.raises(ValueError, match=f"uint8 or floating point, got {dtype}; scale them"):
        Ageing(textures=textures)(photos)


@pytest.mark.parametrize(
    "keys", [torch.arange(3), torch.arange(1), torch.zeros(2, 1).long(), torch.arange(2).int()]
)
def test_wrong_keys_are_refused(unchecked, keys, textures):
    with pytest.raises(ValueError, match=r"keys must be int64 of shape \(2,\).* got torch.int"):
        Ageing(textures=textures)(torch.zeros(2, 3, 8, 8), keys)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [SIZE, (150, 201)])
def test_a_gpu_ages_like_the_cpu(mode, size, textures):
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (B, 3, *size), generator=generator, dtype=torch.uint8)
    ageing, keys = Ageing(mode=mode, textures=textures, augment=False), torch.arange(B)
    drawn = ageing.sample(keys, size=size)
    for here, there in zip(drawn, ageing.sample(keys.cuda(), size=size), strict=True):
        for name, value in here.items():
            if value.dtype == torch.int64:
                assert torch.equal(there[name].cpu(), value)
            else:
                assert torch.allclose(there[name].cpu(), value, rtol=0, atol=1e-6)
    expected = ageing(photos, keys)
    made = ageing(photos.cuda(), keys)
    assert all(part.is_cuda for part in made)
    assert torch.allclose(made.aged.cpu(), expected.aged, rtol=0, atol=1e-5)
    assert torch.allclose(made.clean.cpu(), expected.clean, rtol=0, atol=1e-5)
    assert (made.mask.cpu() == expected.mask).float().mean() >= 0.999
