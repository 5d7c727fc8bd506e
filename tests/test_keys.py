"""Keys: pure in (seed, epoch, sample, crop), pinned, and never alike."""

from itertools import pairwise, product

import jaxtyping
import pytest
import torch

from agedphoto.synth import sample_keys

# Philox4x32-10 of (epoch, low and high word of the sample, crop) under the words of the seed.
PINNED = {
    (0, 0, 0, 0): -2204013331526194987,
    (1, 0, 0, 0): -1942724084816673168,
    (0, 1, 0, 0): 6679402142117448868,
    (0, 0, 1, 0): -1575307377185339924,
    (0, 0, 0, 1): 1389609246023119845,
    (2**64 - 1, 2**32 - 1, 2**63 - 1, 2**32 - 1): 3397250590815621343,
    (0x0123456789ABCDEF, 5, 2**40 + 3, 7): -363902239582783030,
    (0, 0, -1, 0): -5086709347739147493,
}


@pytest.fixture
def unchecked():
    """Let a wrong type reach the function, as it does outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def key(seed: int, epoch: int, sample: int, crop: int) -> int:
    return int(sample_keys(seed, epoch, torch.tensor([sample]), torch.tensor([crop])))


@pytest.mark.parametrize(("of", "expected"), PINNED.items())
def test_the_key_schedule_is_pinned(of, expected):
    assert key(*of) == expected


def test_keys_are_never_alike_over_a_grid():
    numbers = [0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]
    samples, crops = torch.tensor(list(product([*numbers, 2**32, 2**62, -1], numbers))).T
    made = [
        number
        for seed, epoch in product([*numbers, 2**32, 2**64 - 1], numbers)
        for number in sample_keys(seed, epoch, samples, crops).tolist()
    ]
    assert len(set(made)) == len(made) == 9 * 7 * 10 * 7


def test_neighbouring_samples_differ_in_half_of_their_bits():
    samples = torch.arange(1000)
    made = sample_keys(0, 0, samples, torch.zeros_like(samples)).tolist()
    differing = [(a ^ b) % 2**64 for a, b in pairwise(made)]
    mean = sum(number.bit_count() for number in differing) / len(differing)
    assert mean == pytest.approx(32, abs=0.7)
    # All 64 bits are used: half of the keys are negative.
    assert 400 < sum(number < 0 for number in made) < 600


def test_a_key_does_not_depend_on_its_place_in_the_batch():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 2**40, (32,), generator=generator)
    crops = torch.randint(0, 16, (32,), generator=generator)
    whole = sample_keys(3, 1, samples, crops)
    order = torch.randperm(32, generator=generator)
    assert torch.equal(sample_keys(3, 1, samples[order], crops[order]), whole[order])
    for begin, end in [(0, 1), (1, 20), (20, 32)]:
        part = sample_keys(3, 1, samples[begin:end], crops[begin:end])
        assert torch.equal(part, whole[begin:end])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_narrow_integers_give_the_same_keys(dtype):
    samples, crops = torch.arange(100), torch.arange(100).flip(0)
    expected = sample_keys(5, 2, samples, crops)
    assert torch.equal(sample_keys(5, 2, samples.to(dtype), crops.to(dtype)), expected)


@pytest.mark.parametrize("seed", [-1, 2**64, True])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed .* from 0 to 2\*\*64 - 1, got {seed}"):
        key(seed, 0, 0, 0)


@pytest.mark.parametrize("epoch", [-1, 2**32, False])
def test_an_epoch_out_of_range_is_refused(epoch):
    with pytest.raises(ValueError, match=rf"epoch .* from 0 to 2\*\*32 - 1, got {epoch}"):
        key(0, epoch, 0, 0)


@pytest.mark.parametrize("wrong", [0.0, "7", None])
def test_a_seed_or_epoch_that_is_no_whole_number_is_refused(unchecked, wrong):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        key(wrong, 0, 0, 0)
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        key(0, wrong, 0, 0)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_keys():
    samples, crops = torch.arange(1000) - 3, torch.arange(1000)
    made = sample_keys(2**64 - 1, 2**32 - 1, samples.cuda(), crops.cuda())
    assert torch.equal(made.cpu(), sample_keys(2**64 - 1, 2**32 - 1, samples, crops))
