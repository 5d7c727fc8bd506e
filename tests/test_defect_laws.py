"""The laws that every defect keeps, whatever it does to a photograph: see `synth.Defect`."""

import json
import subprocess
import sys

import pytest
import torch
from scenes import scene
from torch import Tensor
from watch import Watch

from agedphoto.synth import DEFECTS, Defect, Grayscale, Recipe

NAMES = sorted(DEFECTS)
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
KEYS = torch.tensor([11, -7, 2**62 + 5, 400])
HEIGHT, WIDTH = 48, 64
WINDOW = 32
EVERY_NAME = pytest.mark.parametrize("name", NAMES)


def photos(count: int = 2, channels: int = 3, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Waves, an edge and some texture, from shadows to highlights, no two photos alike."""
    y = torch.arange(height)[:, None].float()
    x = torch.arange(width)[None, :].float()
    made = []
    for number in range(count * channels):
        wave = ((0.13 + 0.01 * number) * x + 0.07 * y + number).sin()
        edge = (x + (number % 3) * y > (width + height) / 2).float()
        fine = ((12.9898 * x + 78.233 * y + number).sin() * 43758.5453).frac()
        made.append(0.45 + 0.25 * wave + 0.2 * edge + 0.04 * fine)
    return torch.stack(made).clamp(0.02, 0.98).view(count, channels, height, width)


def age(defect: Defect, x: Tensor, keys: Tensor, textures, **place) -> tuple[Tensor, Tensor | None]:
    """Draw and apply, for whole pictures unless told otherwise."""
    there = scene(keys, **({"size": (x.shape[2], x.shape[3]), "textures": textures} | place))
    return defect.apply(x, defect.sample(there), there)


def differing(a: Tensor, b: Tensor, tolerance: float) -> float:
    """Share of the values that differ by more than a tolerance."""
    return ((a.double() - b.double()).abs() > tolerance).double().mean().item()


@EVERY_NAME
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_severity_zero_is_the_identity_and_masks_nothing(name, dtype, channels, textures):
    x = photos(channels=channels).to(dtype)
    aged, mask = age(DEFECTS[name](), x, KEYS[:2], textures, severity=0.0)
    # Black and white is how a film is, and no wear.
    if DEFECTS[name] is not Grayscale:
        assert torch.equal(aged, x.expand_as(aged))
    assert mask is None or not mask.any()


@EVERY_NAME
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_stay_in_range_and_of_their_type(name, dtype, channels, textures):
    x = photos(4, channels).to(dtype)
    x[0], x[1] = 0, 1
    aged, mask = age(DEFECTS[name](), x, KEYS, textures, severity=4.0)
    assert (aged.dtype, aged.device) == (x.dtype, x.device)
    assert aged.shape[0] == 4
    assert aged.shape[1] in (1, 3)
    assert aged.shape[2:] == x.shape[2:]
    assert aged.isfinite().all()
    assert aged.min() >= 0
    assert aged.max() <= 1
    if mask is not None:
        assert mask.dtype == torch.bool
        assert mask.shape == (4, 1, HEIGHT, WIDTH)


@EVERY_NAME
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_every_type_looks_as_float32_does(name, dtype, textures):
    x = photos().to(dtype)
    aged, mask = age(DEFECTS[name](), x, KEYS[:2], textures)
    expected, expected_mask = age(DEFECTS[name](), x.float(), KEYS[:2], textures)
    assert differing(aged, expected, 2 / 255) <= 0.001
    if mask is not None and expected_mask is not None:
        assert differing(mask, expected_mask, 0) <= 0.001


@EVERY_NAME
def test_the_memory_format_is_kept_and_changes_nothing(name, textures):
    x = photos()
    expected, expected_mask = age(DEFECTS[name](), x, KEYS[:2], textures)
    laid = x.contiguous(memory_format=torch.channels_last)
    aged, mask = age(DEFECTS[name](), laid, KEYS[:2], textures)
    assert aged.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(aged, expected, rtol=0, atol=1e-6)
    if mask is not None and expected_mask is not None:
        assert torch.equal(mask, expected_mask)
    assert expected.is_contiguous()


@EVERY_NAME
def test_a_photograph_does_not_depend_on_the_others(name, textures):
    x, defect = photos(4), DEFECTS[name]()
    whole, mask = age(defect, x, KEYS, textures)
    for chosen in ([0], [3, 1], [2, 3, 0, 1]):
        part, part_mask = age(defect, x[chosen], KEYS[chosen], textures)
        assert torch.allclose(part, whole[chosen], rtol=0, atol=1e-6)
        if mask is not None and part_mask is not None:
            assert torch.equal(part_mask, mask[chosen])


@EVERY_NAME
def test_params_do_not_depend_on_the_others(name, textures):
    defect, size = DEFECTS[name](), (HEIGHT, WIDTH)
    whole = defect.sample(scene(KEYS, size=size, textures=textures))
    part = defect.sample(scene(KEYS[[3, 1]], size=size, textures=textures))
    assert whole.keys() == part.keys()
    for what in whole:
        assert whole[what].shape[0] == 4
        assert torch.equal(part[what], whole[what][[3, 1]])


@EVERY_NAME
def test_replay_is_exact_and_the_input_stays(name, textures):
    x, defect = photos(), DEFECTS[name]()
    there = scene(KEYS[:2], size=(HEIGHT, WIDTH), textures=textures)
    params = defect.sample(there)
    before, drawn = x.clone(), {what: value.clone() for what, value in params.items()}
    first, first_mask = defect.apply(x, params, there)
    second, second_mask = defect.apply(x, params, there)
    assert torch.equal(first, second)
    if first_mask is not None and second_mask is not None:
        assert torch.equal(first_mask, second_mask)
    assert torch.equal(x, before)
    assert all(torch.equal(params[what], drawn[what]) for what in params)


@EVERY_NAME
def test_apply_does_not_ask_how_severe(name, textures):
    x, defect, size = photos(), DEFECTS[name](), (HEIGHT, WIDTH)
    worn = scene(KEYS[:2], size=size, textures=textures)
    params = defect.sample(worn)
    other = scene(KEYS[:2], size=size, textures=textures, severity=0.0)
    assert torch.equal(defect.apply(x, params, worn)[0], defect.apply(x, params, other)[0])


@EVERY_NAME
@pytest.mark.parametrize("corner", [(0, 0), (64, 80), (128, 160)])
def test_a_window_ages_as_it_does_in_the_whole(name, corner, textures):
    size = (160, 192)
    check_window(DEFECTS[name](), photos(2, 3, *size), corner, (0, 0), size, textures)


@EVERY_NAME
def test_a_window_of_a_large_picture_ages_as_a_larger_one_does(name, textures):
    defect, size = DEFECTS[name](), (2048, 3072)
    reach = -(-defect.reach_px(size) // 16) * 16
    side = WINDOW + 2 * (reach + 32)
    place = (max(1008 - reach, 0) // 16 * 16, max(1504 - reach, 0) // 16 * 16)
    x = photos(1, 3, min(side, 2048 - place[0]), min(side, 3072 - place[1]))
    corner = (min(reach + 32, x.shape[2] - WINDOW), min(reach + 32, x.shape[3] - WINDOW))
    check_window(defect, x, corner, place, size, textures)


def check_window(defect: Defect, x: Tensor, corner, place, size, textures) -> None:
    """Age x, which lies at a place of larger pictures, and a window at a corner of it alone."""
    keys, (row, column) = KEYS[: len(x)], corner
    there = scene(keys, size=size, textures=textures, top=place[0], left=place[1])
    params = defect.sample(there)
    expected, expected_mask = defect.apply(x, params, there)
    reach = -(-defect.reach_px(size) // 16) * 16
    top, left = max(row - reach, 0), max(column - reach, 0)
    part = x[:, :, top : row + WINDOW + reach, left : column + WINDOW + reach]
    window = scene(keys, size=size, textures=textures, top=place[0] + top, left=place[1] + left)
    for what, value in defect.sample(window).items():
        assert torch.equal(value, params[what]), what
    aged, mask = defect.apply(part, params, window)

    def inside(one: Tensor, up: int, across: int) -> Tensor:
        return one[:, :, row - up : row - up + WINDOW, column - across : column - across + WINDOW]

    assert differing(inside(aged, top, left), inside(expected, 0, 0), 1e-4) <= 0.001
    if mask is not None and expected_mask is not None:
        assert differing(inside(mask, top, left), inside(expected_mask, 0, 0), 0) <= 0.001


@EVERY_NAME
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_tiniest_pictures_age_too(name, size, channels, textures):
    aged, mask = age(DEFECTS[name](), photos(2, channels, *size), KEYS[:2], textures, severity=4.0)
    assert aged.shape[2:] == size
    assert aged.isfinite().all()
    assert aged.min() >= 0
    assert aged.max() <= 1
    assert mask is None or mask.shape == (2, 1, *size)


@EVERY_NAME
def test_nothing_waits_for_the_gpu_or_draws_from_the_global_generator(name, textures):
    x, defect = photos(), DEFECTS[name]()
    # What a bank of textures keeps, it copies to the device once.
    age(defect, x, KEYS[:2], textures)
    with Watch() as watched:
        age(defect, x, KEYS[:2], textures)
    assert watched.seen or DEFECTS[name] is Grayscale
    assert watched.waits == []
    assert watched.draws == []


@EVERY_NAME
def test_some_photographs_look_different_afterwards(name, textures):
    x, keys = photos(8, 3, 96, 128), torch.arange(8)
    aged, mask = age(DEFECTS[name](), x, keys, textures)
    assert (aged - x).abs().amax((1, 2, 3)).max() >= 1 / 255
    if mask is not None:
        changed = (aged - x).abs().amax(1, keepdim=True) > 0
        assert (mask & ~changed).double().mean() <= 0.001


@EVERY_NAME
def test_a_saved_recipe_has_an_equal_defect(name):
    recipe = Recipe(name="one", defects=(DEFECTS[name](),))
    assert Recipe.from_json(recipe.to_json()) == recipe


# In another process: here the types are checked as well, which no compiler can follow.
COMPILED = """
import json
import sys
import torch
from agedphoto.synth import DEFECTS, Scene
from agedphoto.textures import TextureBank

torch.set_num_threads(1)
backend, device, *names = sys.argv[1:]
bank = TextureBank.synthesize(3, size_px=64).to(device)
keys = torch.tensor([11, -7], device=device)
x = torch.linspace(0.05, 0.95, 2 * 3 * 32 * 48, device=device).view(2, 3, 32, 48)

def differing(a, b):
    return ((a.double() - b.double()).abs() > 1e-4).double().mean().item()

def check(defect):
    def age(x, keys):
        severity = torch.ones(2, device=device)
        scene = Scene(keys=keys, op=1, size=(32, 48), severity=severity, textures=bank)
        return defect.apply(x, defect.sample(scene), scene)

    # What a bank keeps on the device, it copies there once.
    expected = age(x, keys)
    torch._dynamo.reset()
    made = torch.compile(age, fullgraph=True, dynamic=False, backend=backend)(x, keys)
    return max(differing(a, b) for a, b in zip(made, expected) if a is not None)

faults = {}
for name in names:
    try:
        worst = check(DEFECTS[name]())
        if worst > 0.001:
            faults[name] = f"{worst:.2%} of the values differ"
    except Exception as error:
        faults[name] = f"{type(error).__name__}: {str(error)[:2000]}"
print(json.dumps(faults))
"""


def check_compiled(backend: str, device: str, names: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-c", COMPILED, backend, device, *names],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    faults = json.loads(process.stdout.splitlines()[-1])
    assert not faults, "\n\n".join(f"{name}: {fault}" for name, fault in faults.items())


@pytest.mark.slow
def test_every_defect_is_traced_as_one_graph_that_does_the_same():
    check_compiled("eager", "cpu", NAMES)


@pytest.mark.slow
def test_inductor_changes_nothing():
    check_compiled("inductor", "cpu", ["texture"])


@pytest.mark.gpu
@pytest.mark.slow
def test_inductor_changes_nothing_on_the_gpu():
    check_compiled("inductor", "cuda", ["grain", "texture"])


@pytest.mark.gpu
@EVERY_NAME
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2 / 255)])
@pytest.mark.parametrize("channels", [1, 3])
def test_cpu_and_gpu_agree(name, dtype, tolerance, channels, textures):
    x, defect = photos(4, channels, 96, 128).to(dtype), DEFECTS[name]()
    expected, expected_mask = age(defect, x, KEYS, textures)
    aged, mask = age(defect, x.cuda(), KEYS.cuda(), textures.to("cuda"))
    assert aged.device.type == "cuda"
    assert differing(aged.cpu(), expected, tolerance) <= 0.001
    if mask is not None and expected_mask is not None:
        assert differing(mask.cpu(), expected_mask, 0) <= 0.001
