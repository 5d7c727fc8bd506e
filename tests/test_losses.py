"""Losses, compared with NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from agedphoto.train.losses import LOSSES, charbonnier

WRITTEN_OUT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "charbonnier": lambda difference: np.sqrt(difference**2 + 1e-6),
    "l1": np.abs,
    "mse": np.square,
}


def pictures(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand(3, 2, 5, 7, generator=generator).to(dtype),
        torch.rand(3, 2, 5, 7, generator=generator),
    )


def test_every_loss_is_written_out_here():
    assert LOSSES.keys() == WRITTEN_OUT.keys()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_picture_has_the_mean_over_its_places_in_float32(name, dtype):
    restored, clean = pictures(dtype)
    difference = restored.double().numpy() - clean.double().numpy()
    expected = WRITTEN_OUT[name](difference).mean(axis=(1, 2, 3))
    found = LOSSES[name](restored, clean)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_difference_counts_the_same_in_either_direction(name):
    restored, clean = pictures()
    assert torch.equal(LOSSES[name](restored, clean), LOSSES[name](clean, restored))


@pytest.mark.parametrize("name", LOSSES)
def test_pictures_that_agree_have_the_least_loss_and_a_finite_gradient(name):
    _, clean = pictures()
    restored = clean.clone().requires_grad_()
    loss = LOSSES[name](restored, clean)
    loss.sum().backward()
    assert loss.detach().numpy() == pytest.approx(1e-3 if name == "charbonnier" else 0)
    assert restored.grad is not None
    assert restored.grad.abs().max() == 0


def test_charbonnier_is_l1_far_away_and_mse_nearby():
    """Its slope is the difference over epsilon near nothing, and the sign far from it."""
    clean = torch.zeros(1, 1, 1, 1)
    slopes = []
    for difference in (1e-6, 0.5):
        restored = torch.full((1, 1, 1, 1), difference, requires_grad=True)
        charbonnier(restored, clean).sum().backward()
        assert restored.grad is not None
        slopes.append(restored.grad.item())
    assert slopes == pytest.approx([1e-3, 1.0], rel=1e-3)
