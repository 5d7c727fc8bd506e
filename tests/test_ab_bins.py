"""The bins of colours, compared with scikit-image and with sums written out."""

import math
import time

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from agedphoto.train.ab_bins import (
    STEP,
    ab_bins,
    decode,
    mean_of_bins,
    nearest_bins,
    num_bins,
    rebalance_weights,
    soft_targets,
)


def colors(count: int = 4000, seed: int = 0) -> torch.Tensor:
    """Return a and b of random sRGB colours, (1, 2, 1, count)."""
    rgb = np.random.default_rng(seed).random((1, count, 3))
    return torch.from_numpy(rgb2lab(rgb)[None, ..., 1:].transpose(0, 3, 1, 2)).float()


def dense(ab: torch.Tensor) -> torch.Tensor:
    """Return the soft targets as one number for every bin, (Q, pixels)."""
    bins, shares = soft_targets(ab)
    targets = torch.zeros(num_bins(), bins[0, 0].numel())
    return targets.scatter_add_(0, bins[0].flatten(1), shares[0].flatten(1))


def test_the_bins_are_the_cells_of_all_colors():
    levels = np.arange(256) / 255
    green, blue = np.meshgrid(levels, levels, indexing="ij")
    found: set[tuple[int, int]] = set()
    for red in levels:
        rgb = np.stack((np.full_like(green, red), green, blue), -1)
        cells = np.rint(rgb2lab(rgb)[..., 1:] / STEP).astype(np.int64)
        codes = np.unique((cells[..., 0] + 50) * 100 + cells[..., 1] + 50)
        found |= {(int(code) // 100 - 50, int(code) % 100 - 50) for code in codes}
    bins = {(round(a / STEP), round(b / STEP)) for a, b in ab_bins().tolist()}
    assert bins == found
    assert len(bins) == num_bins() == 261


def test_the_bins_take_half_a_second_at_most_and_only_once():
    ab_bins.cache_clear()
    started = time.process_time()
    first = ab_bins()
    assert time.process_time() - started < 0.5
    assert ab_bins() is first


def test_soft_targets_sum_to_one():
    bins, shares = soft_targets(colors())
    assert bins.shape == shares.shape
    assert torch.allclose(shares.sum(1), torch.ones(1, 1, shares.shape[-1]))
    assert shares.min() >= 0
    assert 0 <= int(bins.min()) < int(bins.max()) < num_bins()


def test_soft_targets_are_a_gaussian_over_all_bins_but_for_a_thousandth():
    ab = colors(500)
    distance = torch.cdist(ab[0, :, 0].mT.double(), ab_bins().double())
    gaussian = torch.exp(-distance.square() / (2 * 5.0**2))
    gaussian /= gaussian.sum(1, keepdim=True)
    assert (dense(ab).mT - gaussian).abs().sum(1).max() < 2e-3


def test_soft_targets_decode_to_the_color_within_a_few_units():
    ab = colors()
    back = mean_of_bins(dense(ab)[None, :, None])
    # At the gamut's edge there are bins on one side only.
    error = (back - ab).square().sum(1).sqrt()
    assert error.max() < 8
    assert error.mean() < 1


def test_the_centre_of_a_bin_is_in_it():
    centres = ab_bins().mT[None, :, None]
    assert torch.equal(nearest_bins(centres)[0, 0], torch.arange(num_bins()))
    assert torch.equal(nearest_bins(centres + 4.9)[0, 0], torch.arange(num_bins()))


def test_colors_that_do_not_exist_get_the_nearest_bin():
    wild = torch.tensor([[300.0, -300.0], [0.0, 300.0]]).mT[None, :, None]
    number = nearest_bins(wild)[0, 0]
    expected = torch.cdist(torch.tensor([[110.0, -110.0], [0.0, 110.0]]), ab_bins()).argmin(1)
    assert torch.equal(number, expected)
    assert torch.isfinite(soft_targets(wild)[1]).all()


@pytest.mark.parametrize("mix", [0.0, 0.3, 0.5, 1.0])
def test_weights_leave_the_mean_loss_as_it_is(mix):
    prior = torch.rand(num_bins(), generator=torch.Generator().manual_seed(1)) ** 4 + 1e-4
    prior /= prior.sum()
    weights = rebalance_weights(prior, mix)
    assert (prior * weights).sum().item() == pytest.approx(1, abs=1e-5)
    order = prior.argsort()
    assert (weights[order].diff() <= 1e-6).all()


def test_weights_are_even_where_all_is_mixed_in_and_inverse_where_nothing_is():
    prior = torch.tensor([0.7, 0.2, 0.1])
    assert torch.allclose(rebalance_weights(prior, 1.0), torch.ones(3))
    assert torch.allclose(rebalance_weights(prior, 0.0) * prior, torch.full((3,), 1 / 3))


def test_cold_decoding_is_the_likeliest_bin_and_warm_the_mean():
    logits = torch.randn(1, num_bins(), 3, 4, generator=torch.Generator().manual_seed(2))
    even = torch.ones(num_bins())
    cold = decode(logits, even, temperature=1e-3, undo=1.0)
    likeliest = ab_bins()[logits.argmax(1)].movedim(-1, 1)
    assert torch.allclose(cold, likeliest, atol=1e-3)
    warm = decode(logits, even, temperature=1.0, undo=1.0)
    shares = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    mean = torch.einsum("bqhw,qc->bchw", shares, ab_bins().double())
    assert torch.allclose(warm.double(), mean, atol=1e-3)


def test_undoing_all_of_the_rebalancing_gives_back_the_prior():
    prior = torch.rand(num_bins(), generator=torch.Generator().manual_seed(3)) + 0.01
    prior /= prior.sum()
    weights = rebalance_weights(prior)
    # What a network that was trained on weighted pixels and knows nothing of a picture says.
    logits = (prior * weights).log()[None, :, None, None]
    mean = decode(logits, weights, temperature=1.0, undo=1.0)
    assert torch.allclose(mean[0, :, 0, 0], prior @ ab_bins(), atol=1e-3)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="mix must be in"):
        rebalance_weights(torch.ones(3) / 3, 1.5)
    logits = torch.zeros(1, num_bins(), 1, 1)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            decode(logits, torch.ones(num_bins()), temperature=temperature)
