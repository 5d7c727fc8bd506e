"""Kornia modules: every defect is one, at home in Kornia's containers, and keyed all the same."""

import copy
import dataclasses
import inspect
import io
import json
import pickle
import subprocess
import sys

import kornia.augmentation as K
import pytest
import torch
from scenes import scene
from torch import Tensor
from watch import Watch

from agedphoto.synth import DEFECTS, Ageing, Defect, Grain, Recipe, Sometimes, kornia_modules
from agedphoto.synth.kornia_modules import (
    RandomAgeing,
    RandomDefect,
    RandomGrain,
    RandomGrayscale,
    RandomTexture,
)
from agedphoto.synth.scene import per_pixel

NAMES = sorted(DEFECTS)
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
KEYS = torch.tensor([5, -8, 2**61, 77])
SIZE = (24, 40)


def photos(count: int = 4, channels: int = 3) -> Tensor:
    return torch.rand((count, channels, *SIZE), generator=torch.Generator().manual_seed(7))


def make(name: str, **options) -> RandomDefect:
    return getattr(kornia_modules, f"Random{DEFECTS[name].__name__}")(**options)


def changed(aged: Tensor, x: Tensor) -> Tensor:
    return (aged != x).flatten(1).any(1)


def check_equal(mask: Tensor | None, expected: Tensor | None) -> None:
    if mask is None or expected is None:
        assert mask is expected
    else:
        assert torch.equal(mask, expected)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dimming(Defect):
    """A defect as users write them."""

    share: tuple[float, float] = (0.25, 0.5)

    def sample(self, scene):
        return {"share": scene.strength(scene.uniform(1)[:, 0], self.share)}

    def apply(self, x, params, scene):
        return x * (1 - per_pixel(params["share"]).to(x.dtype)), x[:, :1] > 0.5


# What they are.


@EVERY_NAME
def test_every_defect_has_a_module_that_shows_its_fields(name):
    kind = DEFECTS[name]
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    module = make(name, p=0.25, seed=3)
    assert isinstance(module, K.IntensityAugmentationBase2D)
    assert list(inspect.signature(type(module)).parameters) == [
        *fields, "p", "same_on_batch", "keepdim", "seed", "textures",
    ]  # fmt: skip
    for field in (*fields, "p", "seed"):
        assert f"{field}: " in (type(module).__doc__ or "")
        assert f"{field}=" in repr(module)
    assert module.defects == (kind(),)
    assert repr(eval(repr(module), {type(module).__name__: type(module)})) == repr(module)


@EVERY_NAME
def test_modules_are_pickled_and_copied_with_what_they_have_seen(name, textures):
    module, x = make(name, textures=textures, seed=2), photos()
    module(x)
    again = [pickle.loads(pickle.dumps(module)), copy.deepcopy(module)]
    expected = module(x)
    for one in again:
        assert type(one) is type(module)
        assert repr(one) == repr(module)
        assert torch.equal(one(x), expected)


def test_fields_are_passed_on():
    module = RandomGrain(sigma=(0.05, 0.1), p=0.5)
    assert module.defects == (Grain(sigma=(0.05, 0.1)),)
    assert repr(module) == (
        "RandomGrain(sigma=(0.05, 0.1), p=0.5, same_on_batch=False, keepdim=False, seed=0)"
    )
    assert "Standard deviation" in (RandomGrain.__doc__ or "")


# What they do.


@EVERY_NAME
@pytest.mark.parametrize("channels", [1, 3])
def test_a_module_does_what_its_defect_does(name, channels, textures):
    x, defect = photos(channels=channels), DEFECTS[name]()
    module = make(name, p=1.0, textures=textures)
    aged = module(x, keys=KEYS)
    there = scene(module._params["keys"], size=SIZE, textures=textures)
    params = defect.sample(there)
    expected, mask = defect.apply(x, params, there)
    for what, value in params.items():
        assert torch.equal(module._params[what], value)
    if expected.shape[1] == aged.shape[1]:
        assert torch.equal(aged, expected)
    elif channels == 3:
        assert torch.equal(aged, expected.expand_as(x))
    else:
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        assert torch.allclose(aged, (expected * weights).sum(1, keepdim=True), atol=1e-6)
    check_equal(module.damage_mask, mask)


@EVERY_NAME
def test_photographs_that_are_not_chosen_come_back_bit_for_bit(name, textures):
    # Not even what is out of range changes.
    x, keys = photos(32) * 1.5 - 0.25, torch.arange(32)
    module = make(name, p=0.5, textures=textures)
    aged = module(x, keys=keys)
    chosen = module._params["batch_prob"] > 0.5
    assert 8 < chosen.sum() < 24
    assert torch.equal(aged[~chosen], x[~chosen])
    always = make(name, p=1.0, textures=textures)
    assert torch.equal(aged[chosen], always(x, keys=keys)[chosen])
    mask, full = module.damage_mask, always.damage_mask
    check_equal(mask, None if full is None else full & per_pixel(chosen))
    assert torch.equal(make(name, p=0.0, textures=textures)(x, keys=keys), x)


@EVERY_NAME
def test_replay_is_exact(name, textures):
    x, module = photos(), make(name, textures=textures)
    aged = module(x)
    params = {what: value.clone() for what, value in module._params.items()}
    seen = int(module.photos_seen)
    module(x)
    assert torch.equal(module(x, params=params), aged)
    assert torch.equal(make(name, seed=9, textures=textures)(x, params=params), aged)
    assert int(module.photos_seen) == seen + 4


@EVERY_NAME
@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize("same_on_batch", [False, True])
def test_nothing_waits_for_the_gpu_or_draws_from_the_global_generator(
    name, p, same_on_batch, textures
):
    x, module = photos(), make(name, p=p, same_on_batch=same_on_batch, textures=textures)
    # What a bank of textures keeps, it copies to the device once.
    module(x)
    state = torch.get_rng_state()
    with Watch() as watched:
        module(x)
        module(x, keys=KEYS)
        module(x, params=module.forward_parameters(x.shape))
    assert watched.seen
    assert watched.waits == []
    assert watched.draws == []
    assert torch.equal(torch.get_rng_state(), state)


@EVERY_NAME
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_type_memory_format_and_channels_are_kept(name, dtype, textures):
    for p in (0.5, 1.0):
        module = make(name, p=p, textures=textures)
        for channels in (1, 3):
            x = photos(channels=channels).to(dtype)
            aged = module(x)
            assert (aged.shape, aged.dtype) == (x.shape, dtype)
            laid = x.contiguous(memory_format=torch.channels_last)
            again = module(laid, params=module._params)
            assert again.is_contiguous(memory_format=torch.channels_last)
            assert torch.allclose(again, aged, atol=1e-6)


@EVERY_NAME
def test_containers_take_every_module(name, textures):
    x, labels = photos(), torch.arange(4.0)[:, None, None, None].expand(4, 1, *SIZE).clone()
    chain = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        make(name, p=0.7, textures=textures),
        data_keys=["input", "mask"],
    )
    aged, passed = chain(x, labels)
    assert aged.shape == x.shape
    assert torch.equal(passed, labels)
    again, _ = chain(x, labels, params=chain._params)
    assert torch.equal(again, aged)


@EVERY_NAME
def test_same_on_batch_wears_all_photographs_alike(name, textures):
    x = photos(1).expand(4, -1, -1, -1)
    module = make(name, same_on_batch=True, textures=textures)
    chosen = set()
    for _ in range(12):
        aged = module(x)
        assert torch.allclose(aged, aged[:1].expand_as(aged), atol=1e-6)
        chosen.add(tuple(module._params["batch_prob"].tolist()))
    assert chosen == {(0.0,) * 4, (1.0,) * 4}


# Where draws come from.


def test_keys_decide_whatever_the_batch():
    x, module = photos(), RandomGrain(p=0.5)
    aged = module(x, keys=KEYS)
    for chosen in ([3], [2, 0], [1, 3, 0, 2]):
        assert torch.equal(module(x[chosen], keys=KEYS[chosen]), aged[chosen])
    assert int(module.photos_seen) == 0


def test_without_keys_a_module_numbers_the_photographs_it_meets():
    x = photos()
    module = RandomGrain(p=1.0, seed=4)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    assert torch.equal(RandomGrain(p=1.0, seed=4)(torch.cat([x, x])), torch.cat([first, second]))
    assert not torch.equal(RandomGrain(p=1.0, seed=5)(x), first)
    halves = RandomGrain(p=1.0, seed=4)
    assert torch.equal(torch.cat([halves(x[:2]), halves(x[2:])]), first)


def test_the_state_dict_holds_the_number():
    x, module = photos(), RandomGrain(p=0.5)
    module(x)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    expected = module(x)
    file.seek(0)
    resumed = RandomGrain(p=0.5)
    resumed.load_state_dict(torch.load(file))
    assert torch.equal(resumed(x), expected)


def test_a_container_continues_the_count():
    x = photos()
    alone, inside = RandomGrain(p=0.5), K.AugmentationSequential(RandomGrain(p=0.5))
    for _ in range(3):
        assert torch.equal(inside(x), alone(x))


def test_kinds_and_seeds_draw_apart_from_the_same_keys():
    keys = torch.arange(2000)
    x = torch.full((2000, 1, 1, 1), 0.5)
    drawn = []
    for module in (
        RandomGrain(p=0.5),
        RandomGrain(p=0.5, seed=1),
        RandomDefect(Dimming(), p=0.5),
        RandomAgeing(Recipe(name="dim", defects=(Dimming(),)), p=0.5),
        RandomAgeing(Recipe(name="dim too", defects=(Dimming(),)), p=0.5),
    ):
        module(x, keys=keys)
        drawn.append(module._params["batch_prob"])
        assert drawn[-1].mean().item() == pytest.approx(0.5, abs=0.05)
    between = torch.corrcoef(torch.stack(drawn)) - torch.eye(len(drawn))
    assert between.abs().max() < 0.1


def test_p_is_a_share_of_the_photographs():
    keys = torch.arange(4000)
    x = torch.full((4000, 1, 1, 1), 0.5)
    for p in (0.1, 0.75):
        chosen = changed(RandomGrain(p=p)(x, keys=keys), x)
        assert chosen.float().mean().item() == pytest.approx(p, abs=0.03)


# What users bring.


def test_defects_of_users_are_modules_too():
    x, module = photos(), RandomDefect(Dimming(share=(0.5, 0.5)), p=1.0)
    assert torch.allclose(module(x), x / 2)
    check_equal(module.damage_mask, x[:, :1] > 0.5)
    assert "Dimming(share=(0.5, 0.5)), p=1.0" in repr(module)
    same = RandomDefect(Grain())
    assert torch.equal(same(x), RandomGrain()(x))


def test_a_whole_recipe_does_what_ageing_does(textures):
    x = photos()
    recipe = Recipe(
        name="mine",
        defects=(Sometimes(what=Dimming(), p=0.5), Grain(), Dimming()),
        severity_sigma=0.5,
    )
    for one in ("seed", recipe):
        module = RandomAgeing(one, p=1.0, textures=textures)
        aged = module(x)
        expected = Ageing(one, textures=textures, augment=False)(x, module._params["keys"])
        assert torch.equal(aged, expected.aged)
        check_equal(module.damage_mask, expected.mask)
        assert torch.equal(module(x, params=module._params), aged)
    assert repr(RandomAgeing(recipe)).startswith("RandomAgeing('mine', p=0.5")
    assert pickle.loads(pickle.dumps(RandomAgeing(recipe))).recipe == recipe


def test_parameters_can_be_taken_from_the_call():
    x, module = photos(), RandomGrain(p=1.0)
    aged = module(x, sigma=torch.zeros(4))
    assert torch.equal(aged, x)
    assert torch.equal(module._params["sigma"], torch.zeros(4))


def test_textures_are_read_when_none_are_given(monkeypatch, textures):
    made = []
    monkeypatch.setattr(kornia_modules, "_standard", {})
    monkeypatch.setattr(kornia_modules.TextureBank, "load", lambda: made.append(1) or textures)
    modules = [RandomTexture(p=1.0), RandomTexture(p=1.0, seed=1)]
    RandomGrain()(photos())
    assert not made
    for module in modules:
        assert changed(module(photos()), photos()).any()
    assert len(made) == 1


def test_any_shape_that_kornia_takes():
    x = photos()
    for given, batch in ((x[0], (1, 3, *SIZE)), (x[0, 0], (1, 1, *SIZE)), (x[:0], (0, 3, *SIZE))):
        assert RandomGrain()(given).shape == batch
        assert RandomGrain(keepdim=True)(given).shape == given.shape


def test_a_video_wears_alike_in_all_its_frames():
    frames = photos(2)[:, :, None].expand(-1, -1, 5, -1, -1)
    same = K.VideoSequential(RandomGrain(p=1.0), data_format="BCTHW", same_on_frame=True)
    aged = same(frames)
    assert torch.equal(aged, aged[:, :, :1].expand_as(aged))
    assert not torch.equal(aged[0], aged[1])
    other = K.VideoSequential(RandomGrain(p=1.0), data_format="BCTHW", same_on_frame=False)
    assert not torch.equal(other(frames)[:, :, 0], other(frames)[:, :, 1])


def test_what_is_out_of_range_is_clipped_before_it_is_worn():
    x = photos() * 3 - 1
    module = RandomDefect(Dimming(), p=1.0)
    assert torch.equal(module(x, keys=KEYS), module(x.clamp(0, 1), keys=KEYS))


def test_autocast_changes_nothing():
    x, module = photos(), RandomGrain(p=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        aged = module(x, keys=KEYS)
    assert torch.equal(aged, module(x, keys=KEYS))


def test_mistakes_are_named():
    x, module = photos(), RandomGrain()
    with pytest.raises(ValueError, match=r"share from 0 to 1, got 1\.5"):
        RandomGrain(p=1.5)
    with pytest.raises(ValueError, match="seed must be a whole number"):
        RandomGrain(seed=-1)
    with pytest.raises(ValueError, match="sigma must be a pair"):
        RandomGrain(sigma=(0.2, 0.1))
    with pytest.raises(TypeError, match="unexpected keyword argument 'sgma'"):
        RandomGrain(sgma=(0.1, 0.2))
    with pytest.raises(AttributeError, match="no attribute 'RandomRust'; there are: RandomAgeing"):
        kornia_modules.RandomRust  # noqa: B018
    with pytest.raises(ValueError, match=r"int64 of shape \(4,\)"):
        module(x, keys=KEYS[:3])
    with pytest.raises(ValueError, match="either params or keys"):
        module(x, params=module.forward_parameters(x.shape), keys=KEYS)
    with pytest.raises(ValueError, match="must hold its keys"):
        module(x, params={"sigma": torch.zeros(4)})
    with pytest.raises(ValueError, match="1 or 3 channels"):
        module(torch.rand(2, 4, 8, 8))
    with pytest.raises(ValueError, match="rename it"):
        RandomDefect(Clashing())(x)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Clashing(Defect):
    """A defect with an unlucky name for a parameter."""

    def sample(self, scene):
        return {"keys": scene.keys}

    def apply(self, x, params, scene):
        return x, None


# Compiled, and on a GPU.

# In another process: here the types are checked as well, which no compiler can follow.
COMPILED = """
import copy
import json
import sys
import torch
from torch._dynamo.utils import counters
from agedphoto.synth import Grain, Sometimes
from agedphoto.synth.kornia_modules import (
    RandomAgeing, RandomDefect, RandomGrain, RandomGrayscale, RandomTexture
)
from agedphoto.textures import TextureBank

torch.set_num_threads(1)
backend, device, *names = sys.argv[1:]
bank = TextureBank.synthesize(3, size_px=64)
# For those that are given none.
TextureBank.load = lambda: bank
x = torch.linspace(0.05, 0.95, 4 * 3 * 16 * 32, device=device).view(4, 3, 16, 32)
modules = {
    "grain": RandomGrain(p=0.5),
    "grayscale": RandomGrayscale(p=1.0, same_on_batch=True),
    "texture": RandomTexture(p=0.5, textures=bank),
    "standard": RandomTexture(p=0.5),
    "sometimes": RandomDefect(Sometimes(what=Grain()), p=0.5),
    "ageing": RandomAgeing("seed", p=0.5, textures=bank),
}
graphs = {}
for name in names:
    module = modules[name].to(device)
    eager = copy.deepcopy(module)
    counters.clear()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend=backend)
    for step in range(4):
        assert torch.allclose(compiled(x), eager(x), rtol=0, atol=1e-4), (name, step)
    assert int(module.photos_seen) == int(eager.photos_seen) == 16, name
    if backend == "eager":
        replayed = compiled(x, params=module._params)
        assert torch.allclose(replayed, eager(x, params=eager._params), rtol=0, atol=1e-4), name
    graphs[name] = counters["stats"]["unique_graphs"]
print(json.dumps(graphs))
"""


def graphs_of(backend: str, device: str, *names: str) -> dict[str, int]:
    process = subprocess.run(
        [sys.executable, "-c", COMPILED, backend, device, *names],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
def test_modules_compile_to_one_graph_and_count_on():
    # One for the draws and the wear, one for a replay.
    expected = {"grain": 2, "standard": 2, "sometimes": 2, "ageing": 2}
    assert graphs_of("eager", "cpu", *expected) == expected


@pytest.mark.slow
def test_inductor_compiles_modules_too():
    assert graphs_of("inductor", "cpu", "grain") == {"grain": 1}


@pytest.mark.gpu
@pytest.mark.slow
def test_inductor_compiles_modules_for_the_gpu():
    names = ("grain", "grayscale", "texture", "sometimes", "ageing")
    assert set(graphs_of("inductor", "cuda", *names)) == set(names)


@pytest.mark.gpu
@EVERY_NAME
def test_a_module_follows_its_input_to_the_gpu(name, textures):
    x = photos()
    stays, moved = (make(name, textures=textures) for _ in range(2))
    moved.to("cuda")
    expected = make(name, textures=textures)
    for _ in range(2):
        wanted = expected(x)
        for module in (stays, moved):
            aged = module(x.cuda())
            assert aged.device.type == "cuda"
            assert ((aged.cpu() - wanted).abs() > 1e-5).double().mean() <= 0.001
    assert stays.photos_seen.device.type == "cpu"
    assert moved.photos_seen.device.type == "cuda"
    # Back to where it came from.
    assert moved(x).device.type == "cpu"


@pytest.mark.gpu
@EVERY_NAME
@pytest.mark.parametrize("moves", [False, True])
def test_on_the_gpu_nothing_is_copied_or_waited_for(name, moves, textures):
    x, module = photos().cuda(), make(name, textures=textures)
    if moves:
        module.to("cuda")
    module(x)
    with Watch() as watched:
        torch.cuda.set_sync_debug_mode("error")
        try:
            module(x)
            module(x, keys=KEYS.cuda())
            module(x, params=module.forward_parameters(x.shape))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert watched.waits == []
    assert watched.draws == []


@pytest.mark.gpu
def test_a_container_draws_where_the_last_photographs_were(textures):
    x, module = photos().cuda(), RandomTexture(p=0.5, textures=textures)
    chain = K.AugmentationSequential(module, RandomGrayscale(p=0.5))
    chain(x)
    chain(x)
    assert {value.device.type for what, value in module._params.items()
            if what != "forward_input_shape"} == {"cuda"}  # fmt: skip
