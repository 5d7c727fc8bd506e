"""Grain: of the strength asked for, drawn from the photograph's own key and nothing else."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth import Grain, grain, normal_field

KEYS = torch.tensor([3, -4, 2**62])


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def strength(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_zero_strength_is_identity(dtype, channels, device):
    x = pictures(3, channels, 9, 11).to(device, dtype)
    aged = grain(x, sigma=torch.zeros(3, device=device), keys=KEYS.to(device), op=1)
    assert torch.equal(aged, x)
    assert (aged.dtype, aged.device) == (x.dtype, x.device)


def test_output_stays_in_range_and_the_input_as_it_is(device):
    x = pictures(3, 3, 16, 16).to(device)
    before = x.clone()
    for sigma in (strength(0.0, 0.0, 0.0), strength(0.1, 0.5, 1.0)):
        aged = grain(x, sigma=sigma.to(device), keys=KEYS.to(device), op=1)
        assert aged.min() >= 0
        assert aged.max() <= 1
        aged.zero_()
        assert torch.equal(x, before)


def test_grain_is_the_normal_field_clipped():
    x, sigma = pictures(3, 3, 7, 6), strength(0.01, 0.1, 0.4)
    field = normal_field(KEYS, op=2, planes=3, height=7, width=6).double().numpy()
    expected = x.double().numpy() + sigma.double().numpy()[:, None, None, None] * field
    aged = grain(x, sigma=sigma, keys=KEYS, op=2)
    assert np.allclose(aged.numpy(), expected.clip(0, 1), rtol=0, atol=1e-6)


def test_sigma_is_the_standard_deviation():
    sigma = strength(0.02, 0.05, 0.10)
    gray = torch.full((3, 1, 256, 256), 0.5)
    noise = grain(gray, sigma=sigma, keys=KEYS, op=1) - 0.5
    assert noise.std((1, 2, 3)).tolist() == pytest.approx(sigma.tolist(), rel=0.01)
    assert noise.mean((1, 2, 3)).abs().max() < 0.001


def test_colours_have_independent_grain():
    gray = torch.full((1, 3, 128, 128), 0.5)
    noise = grain(gray, sigma=strength(0.05), keys=KEYS[:1], op=1)[0]
    between = np.corrcoef(noise.flatten(1).numpy())
    assert np.abs(between - np.eye(3)).max() < 0.04


def test_a_smaller_picture_has_the_grain_of_the_corner_of_a_larger():
    x, sigma = pictures(3, 1, 20, 21), strength(0.1, 0.2, 0.3)
    whole = grain(x, sigma=sigma, keys=KEYS, op=1)
    corner = grain(x[..., :11, :14], sigma=sigma, keys=KEYS, op=1)
    assert torch.equal(corner, whole[..., :11, :14])


def test_a_photograph_does_not_depend_on_the_others():
    x, sigma = pictures(3, 3, 13, 15), strength(0.1, 0.2, 0.3)
    whole = grain(x, sigma=sigma, keys=KEYS, op=1)
    for chosen in ([0], [2], [2, 0], [1, 2, 0]):
        part = grain(x[chosen], sigma=sigma[chosen], keys=KEYS[chosen], op=1)
        assert torch.equal(part, whole[chosen])


def test_the_layout_of_the_input_changes_nothing():
    x, sigma = pictures(3, 3, 13, 15), strength(0.1, 0.2, 0.3)
    expected = grain(x, sigma=sigma, keys=KEYS, op=1)
    for laid in (
        x.contiguous(memory_format=torch.channels_last),
        x.repeat(1, 1, 2, 2)[..., ::2, ::2].copy_(x),
    ):
        assert not laid.is_contiguous()
        assert torch.equal(grain(laid, sigma=sigma, keys=KEYS, op=1), expected)


def test_sigma_is_drawn_evenly_from_its_range():
    keys = torch.arange(4000)
    defect = Grain(sigma=(0.05, 0.15))
    sigma = defect.sample(scene(keys, op=1, size=(8, 8)))["sigma"]
    assert sigma.min() >= 0.05
    assert sigma.max() < 0.15
    assert (sigma.histc(10, 0.05, 0.15) - 400).abs().max() < 100
    other = defect.sample(scene(keys, op=2, size=(8, 8)))["sigma"]
    assert abs(np.corrcoef(sigma.numpy(), other.numpy())[0, 1]) < 0.06


def test_a_range_of_one_number_gives_that_number():
    drawn = Grain().sample(scene(KEYS, op=1, size=(8, 8)))
    assert torch.equal(drawn["sigma"], torch.full((3,), 0.10))


def test_grain_hides_nothing():
    defect, x = Grain(sigma=(0.1, 0.5)), pictures(3, 1, 8, 9)
    there = scene(KEYS, op=1, size=(8, 9))
    params = defect.sample(there)
    aged, mask = defect.apply(x, params, there)
    assert mask is None
    assert torch.equal(aged, grain(x, sigma=params["sigma"], keys=KEYS, op=1))
