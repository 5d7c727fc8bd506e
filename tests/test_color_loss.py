"""The loss of the colour network, compared with one written out pixel by pixel."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from agedphoto.synth import LAB_SCALE
from agedphoto.train.ab_bins import ab_bins, num_bins, rebalance_weights
from agedphoto.train.color_loss import average_colors, color_loss, estimate_prior

SCALE = torch.tensor(LAB_SCALE)[:, None, None]


def photos(count: int = 2, height: int = 16, width: int = 12, seed: int = 0) -> torch.Tensor:
    """Return blocky random photographs, scaled as the mode `lab` is."""
    rng = np.random.default_rng(seed)
    rgb = rng.random((count, -(-height // 2), -(-width // 2), 3)).repeat(2, 1).repeat(2, 2)
    lab = torch.from_numpy(rgb2lab(rgb[:, :height, :width]).transpose(0, 3, 1, 2))
    return (lab / SCALE).float()


def some_logits(lab: torch.Tensor, seed: int = 0) -> torch.Tensor:
    B, _, H, W = lab.shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, num_bins(), -(-H // 4), -(-W // 4), generator=generator)


def some_weights() -> torch.Tensor:
    prior = torch.rand(num_bins(), generator=torch.Generator().manual_seed(5))
    return rebalance_weights(prior / prior.sum())


def written_out(logits, lab, inside, weights) -> float:
    """The loss of one photograph, pixel by pixel in float64."""
    bins = ab_bins().double().numpy()
    scores = logits.double().numpy()
    total = share_total = 0.0
    for row in range(scores.shape[1]):
        for column in range(scores.shape[2]):
            there = inside[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].numpy()
            ab = (lab * SCALE)[1:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            if not there.any():
                continue
            mean = ab.double().numpy()[:, there].mean(1)
            share = there.sum() / 16
            near = np.exp(-((bins - mean) ** 2).sum(1) / 50)
            near /= near.sum()
            pixel = scores[:, row, column]
            log_p = pixel - np.log(np.exp(pixel).sum())
            total += share * weights[near.argmax()].item() * -(near * log_p).sum()
            share_total += share
    return total / share_total


def test_it_is_the_weighted_cross_entropy_written_out():
    lab = photos(height=18, width=13)
    inside = torch.rand(2, 1, 18, 13, generator=torch.Generator().manual_seed(3)) < 0.7
    logits, weights = some_logits(lab), some_weights()
    loss = color_loss(logits, lab, inside, weights)
    expected = [written_out(*each, weights) for each in zip(logits, lab, inside, strict=True)]
    assert loss.dtype == torch.float32
    # A mean exactly between two cells may count for either.
    assert np.allclose(loss.numpy(), expected, rtol=5e-3)


def test_it_falls_when_the_network_is_right():
    lab = photos()
    ab, _ = average_colors(lab, None)
    distance = torch.cdist(ab.movedim(1, -1).flatten(1, 2), ab_bins())
    right = -(distance**2).mT.unflatten(2, ab.shape[2:]) / 50
    loss = color_loss(right, lab, None, torch.ones(num_bins()))
    untrained = color_loss(torch.zeros_like(right), lab, None, torch.ones(num_bins()))
    assert torch.allclose(untrained, torch.full((2,), num_bins()).log(), atol=1e-4)
    assert (loss < 0.5 * untrained).all()


def test_what_lies_outside_does_not_count():
    lab = photos(height=16, width=16)
    inside = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    inside[..., :10, :7] = True
    logits, weights = some_logits(lab), some_weights()
    expected = color_loss(logits, lab, inside, weights)
    noise, other = photos(height=16, width=16, seed=8), logits.clone()
    other[:, :, 3:] = 50.0
    other[:, 7, :, 2:] = -50.0
    loss = color_loss(other, lab.where(inside, noise), inside, weights)
    assert torch.allclose(loss, expected)


def test_a_photograph_does_not_depend_on_those_beside_it():
    lab, logits = photos(count=3), some_logits(photos(count=3))
    weights = some_weights()
    together = color_loss(logits, lab, None, weights)
    alone = torch.cat(
        [color_loss(logits[i : i + 1], lab[i : i + 1], None, weights) for i in range(3)]
    )
    assert torch.allclose(together, alone)


def test_nearly_gray_photographs_teach_nothing():
    lab = photos()
    lab[0, 1:] = 4.9 / 110
    lab[0, 2] *= -1
    logits = some_logits(lab).requires_grad_()
    loss = color_loss(logits, lab, None, some_weights())
    loss.sum().backward()
    assert logits.grad is not None
    assert loss[0] == 0
    assert logits.grad[0].abs().max() == 0
    assert loss[1] > 0
    # One pixel of colour makes it a colour photograph.
    lab[0, 1, 0, 0] = 5.1 / 110
    assert color_loss(logits, lab, None, some_weights())[0] > 0


def test_colour_outside_does_not_make_a_photograph_coloured():
    lab = photos()
    inside = torch.zeros(2, 1, 16, 12, dtype=torch.bool)
    inside[:, :, :8] = True
    lab[:, 1:, :8] = 0
    assert color_loss(some_logits(lab), lab, inside, some_weights()).abs().max() == 0
    inside[:] = False
    assert color_loss(some_logits(lab), lab, inside, some_weights()).abs().max() == 0


def test_the_prior_is_the_share_of_the_colors_and_reaches_every_bin():
    lab = torch.zeros(1, 3, 16, 16)
    lab[:, 1, :, :4] = 60 / 110
    lab[:, 2, :, :4] = 50 / 110
    prior = estimate_prior([(lab, None)])
    assert prior.sum().item() == pytest.approx(1, abs=1e-5)
    assert prior.min() > 0
    red = torch.linalg.vector_norm(ab_bins() - torch.tensor([60.0, 50.0]), dim=1) < 25
    assert prior[red].sum().item() == pytest.approx(0.25, abs=0.01)


def test_the_prior_does_not_depend_on_the_batches():
    lab = photos(count=4)
    inside = torch.rand(4, 1, 16, 12, generator=torch.Generator().manual_seed(3)) < 0.5
    whole = estimate_prior([(lab, inside)])
    halves = estimate_prior([(lab[:1], inside[:1]), (lab[1:], inside[1:])])
    assert torch.allclose(whole, halves, rtol=1e-4)


def test_photographs_without_colour_have_no_prior():
    with pytest.raises(ValueError, match="no colours to learn"):
        estimate_prior([(torch.zeros(2, 3, 8, 8), None)])
