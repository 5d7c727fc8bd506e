"""Silver mirroring: light on what is dark, from the edges in, and bluish."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.mirroring import SHEEN, SilverMirroring, mirror, sheen_of

WEIGHTS = np.array([0.299, 0.587, 0.114])


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_sheen_is_screened_over_what_is_dark():
    x, sheen = pictures(2, 3, 9, 8), pictures(2, 1, 9, 8, seed=1)
    luma = np.tensordot(x.numpy(), WEIGHTS, axes=(1, 0))[:, None]
    light = (1 - luma) ** 2 * sheen.numpy() * np.array(SHEEN)[None, :, None, None]
    expected = 1 - (1 - x.numpy()) * (1 - light)
    assert np.allclose(mirror(x, sheen).numpy(), expected, rtol=0, atol=1e-6)
    assert torch.equal(mirror(x, 0 * sheen), x)
    white = torch.ones(2, 3, 9, 8)
    assert torch.allclose(mirror(white, sheen), white)


def test_black_turns_bluish_and_never_darker():
    x = torch.zeros(4, 3, 80, 80)
    there = scene(torch.arange(4), size=(80, 80), op=1)
    defect = SilverMirroring(sheen=(0.5, 0.5))
    aged, mask = defect.apply(x, defect.sample(there), there)
    assert mask is not None
    red, green, blue = aged.unbind(1)
    assert (red >= 0).all()
    assert (blue >= green).all()
    assert (green >= red).all()
    assert mask.any()


@pytest.mark.parametrize("width_px", [20.0, 60.0])
def test_it_fades_from_the_edges_in(width_px):
    defect = SilverMirroring(sheen=(0.4, 0.4), width_px=(width_px, width_px), inside=(0.0, 0.0))
    there = scene(torch.arange(64), size=(400, 400), op=1)
    made = sheen_of(defect.sample(there), there, 400, 400)[:, 0].mean(0).numpy()
    middle = made[180:220]
    profile = middle.mean(0)
    # Unevenly, as noise has it, so that on average it reaches a little farther than 1/e.
    assert 0.3 < profile[int(width_px)] / profile[0] < 0.65
    assert profile[200] < 0.2 * profile[0]
    assert np.allclose(made, made[::-1, ::-1], rtol=0, atol=0.12)


def test_patches_lie_inside_when_asked():
    there = scene(torch.arange(16), size=(600, 600), op=1)
    for inside in (0.0, 0.8):
        defect = SilverMirroring(sheen=(0.5, 0.5), width_px=(20.0, 20.0), inside=(inside, inside))
        middle = sheen_of(defect.sample(there), there, 600, 600)[..., 250:350, 250:350]
        assert (middle.max() > 0.1) == (inside > 0)
