"""Crops: inside the photo, anywhere in it, in all eight positions."""

import numpy as np
import pytest
import torch
from scipy import stats

from agedphoto.synth import sample_crops, turn_crops

TURNS = torch.arange(8)


def keys(count: int) -> torch.Tensor:
    return torch.arange(count) * 0x9E3779B97F4A7C15 % 2**61


def sizes(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((count,), height), torch.full((count,), width)


def test_boxes_lie_inside_photos_of_any_size():
    generator = torch.Generator().manual_seed(0)
    heights, widths = torch.randint(16, 4000, (2, 500), generator=generator)
    boxes = sample_crops(keys(500), heights, widths, crop_px=16)
    for start, length in [(boxes.top, heights), (boxes.left, widths)]:
        assert start.dtype == torch.int64
        assert (start >= 0).all()
        assert (start + 16 <= length).all()


def test_all_places_and_turns_are_alike_likely():
    boxes = sample_crops(keys(6000), *sizes(6000, 10, 12), crop_px=8)
    for numbers, count in [(boxes.top, 3), (boxes.left, 5), (boxes.turn, 8)]:
        seen = torch.bincount(numbers, minlength=count)
        assert len(seen) == count
        assert stats.chisquare(seen.numpy()).pvalue > 1e-3
    places = boxes.top * 40 + boxes.left * 8 + boxes.turn
    assert stats.chisquare(torch.bincount(places, minlength=120).numpy()).pvalue > 1e-3


def test_a_crop_as_large_as_the_photo_takes_it_whole():
    boxes = sample_crops(keys(50), *sizes(50, 9, 9), crop_px=9)
    assert not boxes.top.any()
    assert not boxes.left.any()
    assert len(boxes.turn.unique()) == 8


def test_what_a_key_draws_is_pinned():
    heights, widths = torch.tensor([1000, 2000, 3000]), torch.tensor([700, 800, 900])
    boxes = sample_crops(torch.tensor([0, -1, 2**62 + 12345]), heights, widths, crop_px=256)
    assert boxes.top.tolist() == [98, 167, 983]
    assert boxes.left.tolist() == [187, 348, 194]
    assert boxes.turn.tolist() == [5, 2, 2]


def test_the_box_of_a_photo_does_not_depend_on_the_others():
    heights, widths = torch.arange(20, 30), torch.arange(50, 40, -1)
    whole = sample_crops(keys(10), heights, widths, crop_px=8)
    order = torch.tensor([7, 2, 9])
    part = sample_crops(keys(10)[order], heights[order], widths[order], crop_px=8)
    for name in ("top", "left", "turn"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[order])


def test_a_crop_larger_than_a_photo_is_refused_with_the_largest_that_fits():
    heights, widths = torch.tensor([64, 40]), torch.tensor([64, 50])
    with pytest.raises(ValueError, match=r"crop_px is 41, .* at most 40"):
        sample_crops(keys(2), heights, widths, crop_px=41)


@pytest.mark.parametrize("crop_px", [0, -3])
def test_a_crop_of_no_pixel_is_refused(crop_px):
    with pytest.raises(ValueError, match=f"crop_px must be at least 1, got {crop_px}"):
        sample_crops(keys(1), *sizes(1, 8, 8), crop_px=crop_px)


def test_turns_are_the_eight_positions_of_a_square():
    photo = torch.arange(25, dtype=torch.uint8).reshape(1, 1, 5, 5)
    made = turn_crops(photo.expand(8, 3, 5, 5), TURNS)
    for number, turned in enumerate(made.numpy()):
        expected = photo[0, 0].numpy()
        if number & 1:
            expected = expected[::-1]
        if number & 2:
            expected = expected[:, ::-1]
        if number & 4:
            expected = expected.T
        assert (turned == expected).all()
    rotated = {np.rot90(photo[0, 0].numpy(), k).tobytes() for k in range(4)}
    mirrored = {np.rot90(photo[0, 0].numpy().T, k).tobytes() for k in range(4)}
    assert {turned[0].tobytes() for turned in made.numpy()} == rotated | mirrored
    assert len(rotated | mirrored) == 8


def test_turning_leaves_the_crops_given_as_they_are():
    crops = torch.arange(8 * 48, dtype=torch.int64).remainder(251).to(torch.uint8)
    crops = crops.reshape(8, 4, 4, 3).permute(0, 3, 1, 2)
    before = crops.clone()
    turned = turn_crops(crops, TURNS)
    assert torch.equal(crops, before)
    assert torch.equal(turned, turn_crops(before.contiguous(), TURNS))


@pytest.mark.gpu
def test_a_gpu_draws_the_same_boxes():
    heights, widths = sizes(1000, 700, 900)
    here = sample_crops(keys(1000), heights, widths, crop_px=64)
    there = sample_crops(keys(1000).cuda(), heights.cuda(), widths.cuda(), crop_px=64)
    for name in ("top", "left", "turn"):
        assert torch.equal(getattr(there, name).cpu(), getattr(here, name))
