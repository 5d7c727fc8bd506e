"""The bare support: its colour, and how it is laid over a picture."""

import numpy as np
import pytest
import torch

from agedphoto.synth.bare import bare_colour, cover


def test_the_luma_of_the_colour_is_its_gray():
    light, warmth = torch.tensor([0.9, 0.5, 0.0]), torch.tensor([0.0, 0.4, 1.0])
    colour = bare_colour(3, light=light, warmth=warmth)
    gray = bare_colour(1, light=light, warmth=warmth)
    assert colour.shape == (3, 3, 1, 1)
    assert gray.shape == (3, 1, 1, 1)
    luma = (colour[..., 0, 0] * torch.tensor([0.299, 0.587, 0.114])).sum(1)
    assert torch.allclose(gray.flatten(), luma, atol=1e-6)


def test_warmth_takes_blue_first():
    red, green, blue = bare_colour(3, light=torch.ones(1), warmth=torch.ones(1)).flatten().tolist()
    assert red == 1
    assert red > green > blue
    neutral = bare_colour(3, light=torch.ones(1), warmth=torch.zeros(1))
    assert torch.equal(neutral, torch.ones_like(neutral))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_opacity_mixes_and_nothing_is_laid_on_at_zero(dtype):
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64).to(dtype)
    layer, opacity = torch.rand(2, 3, 1, 1), torch.rand(2, 1, 4, 5)
    wide, laid, share = (t.double().numpy() for t in (x, layer, opacity))
    mixed = cover(x, layer, opacity=opacity)
    assert mixed.dtype == (dtype if dtype == torch.float64 else torch.float32)
    assert np.allclose(mixed, wide * (1 - share) + laid * share, atol=1e-6)
    assert torch.equal(cover(x, layer, opacity=0 * opacity).to(dtype), x)
    assert torch.allclose(cover(x, layer, opacity=0 * opacity + 1), layer.to(mixed.dtype))
