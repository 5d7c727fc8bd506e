"""Crops, and whole photos made small."""

import numpy as np
import pytest
import torch
from PIL import Image

from agedphoto.datasets.views import cut_crops, place_whole, shrink, whole_size


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((1356, 2040), 512, (340, 512)),
        ((2040, 1356), 512, (512, 340)),
        ((100, 100), 512, (100, 100)),
        ((512, 300), 512, (512, 300)),
        ((1, 4000), 512, (1, 512)),
        ((3, 4000), 500, (1, 500)),
    ],
)
def test_the_long_side_comes_down_and_the_aspect_stays(size, long_side, expected):
    height, width = whole_size(np.array([size[0]]), np.array([size[1]]), long_side)
    assert (int(height[0]), int(width[0])) == expected
    assert tuple(shrink(photo(*size), long_side).shape) == (*expected, 3)


def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks():
    pixels = photo(12, 18)
    blocks = pixels.numpy().reshape(4, 3, 6, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(pixels, 6).numpy(), blocks, atol=0.51)


def test_shrinking_is_close_to_what_pillow_does_with_areas():
    y, x = np.mgrid[0:170, 0:255]
    smooth = np.stack([y, x, (x + y) / 2], -1).astype(np.uint8)
    theirs = np.asarray(Image.fromarray(smooth).resize((100, 67), Image.Resampling.BOX))
    ours = shrink(torch.from_numpy(smooth), 100).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_shrinking_does_not_alias():
    lines = torch.zeros((400, 400, 3), dtype=torch.uint8)
    lines[::2] = 255
    small = shrink(lines, 90)
    assert int(small.min()) > 80
    assert int(small.max()) < 175


def test_crops_are_cut_where_they_are_said_to_be():
    photos = [photo(20, 30, 1), None, photo(16, 16, 2)]
    out = torch.full((3, 8, 8, 3), 77, dtype=torch.uint8)
    cut_crops(photos, [3, 0, 8], [20, 0, 1], out)
    np.testing.assert_array_equal(out[0], photos[0][3:11, 20:28])
    assert int(out[1].max()) == 0
    np.testing.assert_array_equal(out[2], photos[2][8:16, 1:9])


def test_whole_photos_lie_in_the_corner_mirrored_in_place():
    photos = [photo(5, 8, 1), photo(8, 3, 2), None]
    out = torch.full((3, 8, 8, 3), 77, dtype=torch.uint8)
    inside = place_whole(photos, [False, True, True], out)
    np.testing.assert_array_equal(out[0, :5], photos[0])
    np.testing.assert_array_equal(out[1, :, :3], photos[1].numpy()[:, ::-1])
    assert inside.sum(dim=(1, 2, 3)).tolist() == [40, 24, 0]
    assert bool(inside[0, 0, :5].all())
    assert bool(inside[1, 0, :, :3].all())
    assert int(out.permute(0, 3, 1, 2)[~inside.expand(-1, 3, -1, -1)].max()) == 0
