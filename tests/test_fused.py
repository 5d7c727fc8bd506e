"""The fused kernel: equal to the chain it replaces, in Triton's interpreter and on a GPU."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interpreted import COLOR, GRAY

from agedphoto.synth import MODES, Ageing, Grain, Recipe, Sometimes, find_recipe
from agedphoto.synth.fused import fits

triton = pytest.importorskip("triton")


@pytest.fixture(scope="module")
def cases() -> dict:
    """What the interpreter makes; it must be chosen before Triton is imported."""
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interpreted.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_triton_draws_the_bits_of_the_reference(cases):
    assert cases["fields"]["words"] == 0
    assert cases["fields"]["bits"] == 0
    assert cases["fields"]["normals"] < 1e-5


@pytest.mark.slow
def test_the_interpreted_kernel_equals_the_chain(cases):
    full = {name: value for name, value in cases.items() if name.split()[0] in ("batch", "crops")}
    assert len(full) == 11
    for name, (aged, clean, mask) in full.items():
        # Half a step of bfloat16 where a sum falls on the other side of it; else float32's noise.
        most = 2 / 255 if "bfloat16" in name else 1e-5
        assert aged <= most, name
        assert clean <= most, name
        assert mask <= 0.001, name


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, True])
def test_the_kernel_compiles_for_a_hopper_gpu(moves):
    """All the way to machine code, which needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from agedphoto.synth import fused_kernel

    constants = {
        "KINDS": 1 | 3 << 4 | 4 << 8, "NUM_DEFECTS": 3, "GRAY_AT": 0, "PACKED": True,
        "BYTES": True, "CROP": True, "MOVES": moves, "TONES": moves, "WORN": moves,
        "AGED_CHANNELS": 1, "CLEAN_CHANNELS": 1, "LAB": False, "ROWS": 8, "QUADS": 16, "TILES": 8,
        "POWER_OF_2": True, "SIZE_CLASS": 9, "stride_x": 3, "stride_c": 1,
    }  # fmt: skip
    pointers = dict.fromkeys(("flat", "bank", "light_ground", "mask"), "*u8")
    pointers |= dict.fromkeys(("aged", "clean"), "*bf16") | {"numbers": "*fp32"}
    pointers |= dict.fromkeys(("offsets", "heights", "widths", "keys", "choices", "counts"), "*i64")
    floats = dict.fromkeys(
        ("p", "most_angle", "most_zoom", "most_shift", "brightness", "contrast", "severity_sigma"),
        "fp32",
    )
    names = list(inspect.signature(fused_kernel.age_tiles.fn).parameters)
    signature = {
        name: "constexpr" if name in constants else (pointers | floats).get(name, "i32")
        for name in names
    }
    made = triton.compile(
        ASTSource(
            fn=fused_kernel.age_tiles,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in constants.items()},
        ),
        target=GPUTarget("cuda", 90, 32),
    )
    assert "sm_90" in made.asm["ptx"]


def test_recipes_that_fit_are_known():
    assert fits(find_recipe("seed"))
    assert fits(GRAY)
    assert fits(COLOR)
    assert not fits(Recipe(name="x", defects=(Grain(), Sometimes(what=Grain()))))
    assert not fits(Recipe(name="x", defects=(Grain(),) * 9))


def test_what_cannot_be_fused_is_refused_with_a_remedy(textures):
    other = Recipe(name="mine", defects=(Sometimes(what=Grain()),))
    with pytest.raises(ValueError, match=r"ages by .* recipe 'mine' has others; use backend="):
        Ageing(other, backend="fused")
    with pytest.raises(ValueError, match=r"writes float32, .* not torch.float64; use backend="):
        Ageing("seed", backend="fused", dtype=torch.float64)
    fused = Ageing("seed", backend="fused", textures=textures)
    with pytest.raises(ValueError, match=r"needs Triton and a CUDA device, got cpu; use 'eager'"):
        fused(torch.zeros(1, 3, 8, 8))


def test_backends_are_chosen_by_recipe_and_device():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    other = Recipe(name="mine", defects=(Sometimes(what=Grain()),))
    assert Ageing("seed").backend_on(cpu) == "eager"
    assert Ageing("seed").backend_on(gpu) == "fused"
    assert Ageing(other).backend_on(gpu) == "compiled"
    assert Ageing("seed", backend="compiled").backend_on(cpu) == "compiled"
    assert Ageing("seed", backend="eager").backend_on(gpu) == "eager"


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recipe", ["seed", GRAY, COLOR], ids=["seed", "gray", "color"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_on_a_gpu_equals_the_chain_on_the_cpu(mode, recipe, dtype, textures):
    photos = torch.randint(0, 256, (5, 3, 60, 92), dtype=torch.uint8)
    keys = torch.arange(5)
    settings = {"mode": mode, "textures": textures, "dtype": dtype}
    made = Ageing(recipe, backend="fused", **settings)(photos.cuda(), keys)
    expected = Ageing(recipe, backend="eager", **settings)(photos, keys)
    most = 1e-5 if dtype == torch.float32 else 2 / 255
    for one, other in zip(made[:2], expected[:2], strict=True):
        assert (one.cpu().float() - other.float()).abs().max() <= most
    assert (made.mask.cpu() == expected.mask).float().mean() >= 0.999


@pytest.mark.gpu
def test_channels_last_holds_the_same_numbers(textures):
    photos = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, device="cuda")
    keys = torch.arange(3, device="cuda")
    plain = Ageing("seed", textures=textures)(photos, keys)
    last = Ageing("seed", textures=textures, channels_last=True)(photos, keys)
    assert last.clean.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(plain, last, strict=True))
