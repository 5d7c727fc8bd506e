"""Noise: of the strength asked for, gray where drawn so; speckle in proportion to the light."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agedphoto.synth.noise import GaussianNoise, SpeckleNoise, add_noise, speckle
from agedphoto.synth.scene import Scene

KINDS = [GaussianNoise, SpeckleNoise]


def scene(
    batch: int = 3, size: tuple[int, int] = (40, 50), severity: float = 1.0, **where
) -> Scene:
    keys = torch.arange(batch) - 1
    return Scene(keys=keys, op=1, size=size, severity=torch.full((batch,), severity), **where)


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_no_severity_is_identity(kind, dtype):
    x, here = pictures(3, 3, 9, 11).to(dtype), scene(severity=0.0)
    aged, mask = kind().apply(x, kind().sample(here), here)
    assert torch.equal(aged, x)
    assert mask is None


def test_formulas_are_those_of_numpy():
    x, sigma = pictures(2, 3, 7, 6), torch.tensor([0.05, 0.4])
    noise = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(2))
    a, n, s = (
        x.double().numpy(),
        noise.double().numpy(),
        sigma.double().numpy()[:, None, None, None],
    )
    added = add_noise(x, noise, sigma=sigma).numpy()
    assert np.allclose(added, np.clip(a + s * n, 0, 1), atol=1e-6)
    assert np.allclose(
        speckle(x, noise, sigma=sigma).numpy(), np.clip(a + a * s * n, 0, 1), atol=1e-6
    )


def test_speckle_grows_with_the_light_and_gaussian_noise_does_not():
    tones = torch.tensor([0.1, 0.3, 0.6])
    x = tones[:, None, None, None].expand(3, 1, 128, 128)
    fixed = {"sigma": torch.full((3,), 0.02), "gray": torch.zeros(3, dtype=torch.bool)}
    added = GaussianNoise().apply(x, fixed, scene())[0].std((1, 2, 3))
    assert added.tolist() == pytest.approx([0.02] * 3, rel=0.03)
    times = SpeckleNoise().apply(x, fixed, scene())[0].std((1, 2, 3))
    assert times.tolist() == pytest.approx((0.02 * tones).tolist(), rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_colours_share_their_noise_where_it_is_gray(kind):
    x, here = torch.full((200, 3, 16, 16), 0.5), scene(200)
    params = kind(gray=0.3).sample(here)
    noise = kind(gray=0.3).apply(x, params, here)[0]
    same = (noise == noise[:, :1]).flatten(1).all(1)
    assert torch.equal(same, params["gray"])
    assert same.float().mean() == pytest.approx(0.3, abs=0.1)
    for share, gray in ((0.0, False), (1.0, True)):
        assert (kind(gray=share).sample(here)["gray"] == gray).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_has_the_noise_of_the_whole(kind):
    x, here = pictures(3, 3, 40, 50), scene()
    params = kind().sample(here)
    expected = kind().apply(x, params, here)[0][..., 16:33, 32:41]
    part = kind().apply(x[..., 16:33, 32:41], params, replace(here, top=16, left=32))[0]
    assert torch.equal(part, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_does_not_depend_on_the_others(kind):
    x, here = pictures(3, 3, 13, 15), scene()
    aged = kind().apply(x, kind().sample(here), here)[0]
    few = replace(here, keys=here.keys[[2, 0]], severity=here.severity[[2, 0]])
    assert torch.equal(kind().apply(x[[2, 0]], kind().sample(few), few)[0], aged[[2, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_severity_multiplies_sigma(kind):
    mild, hard = (kind().sample(scene(severity=s))["sigma"] for s in (0.5, 2.0))
    assert torch.allclose(4 * mild, hard)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_fields_are_refused_by_name(kind):
    with pytest.raises(ValueError, match="sigma must be a pair"):
        kind(sigma=(0.0, 1.5))
    with pytest.raises(ValueError, match="gray must be a share"):
        kind(gray=-0.1)
