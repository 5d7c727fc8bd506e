"""Tiles leave no seam: they add up to the whole, and cost what they say."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut, chelsea

from agedphoto.restore.tiles import (
    _spans,
    _weights,
    apply_tiled,
    check_tiles,
    count_tiles,
    overlap_px_for,
)
from agedphoto.train import PRESETS, UNet, UNetConfig, net_config

CPU = torch.device("cpu")
LENGTHS = [1, 2, 7, 16, 63, 64, 65, 95, 96, 97, 111, 112, 113, 128, 200, 1000, 4999]


def tiled(net, picture, *, stride=8, tile_px=64, overlap_px=16, **options):
    return apply_tiled(
        net, picture, stride=stride, tile_px=tile_px, overlap_px=overlap_px, device=CPU, **options
    )


def photo(height: int, width: int) -> torch.Tensor:
    """Part of a photograph, gray, with some grain: (1, H, W)."""
    gray = np.asarray(chelsea() if width <= 451 else astronaut(), np.float32).mean(2) / 255
    grain = np.random.default_rng(0).normal(0, 0.1, gray.shape)
    return torch.from_numpy((gray + grain).clip(0, 1).astype(np.float32)[None, :height, :width])


def denoiser(config: UNetConfig) -> UNet:
    """A network with random weights, of about the reach of a trained one.

    Blocks add a little to what they are given, as in trained networks; drawn at full strength, the
    coarsest level would count for far more than in any network that restores.
    """
    generator = torch.Generator().manual_seed(0)
    net = UNet(config).eval()
    for name, weight in net.named_parameters():
        kind = name.split(".")[-2]
        scale = {"second": 0.2, "tail": 0.05}.get(kind, 1.0)
        std = scale / weight[0].numel() ** 0.5
        torch.nn.init.normal_(weight, 0, std, generator=generator)
    return net


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    ("tile_px", "overlap_px"), [(64, 0), (64, 8), (64, 16), (64, 32), (96, 40)]
)
def test_weights_of_all_tiles_add_up_to_one_everywhere(length, tile_px, overlap_px):
    padded = -(-length // 8) * 8
    total = torch.zeros(padded)
    for start, end in _spans(length, tile_px, overlap_px):
        weights = _weights(start, end, padded, overlap_px)
        assert ((weights >= 0) & (weights <= 1)).all()
        total[start:end] += weights
    torch.testing.assert_close(total, torch.ones(padded), rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_tiles_lie_on_the_grid_and_the_last_is_larger_than_the_overlap(length):
    spans = _spans(length, 64, 16)
    assert all(start % 8 == 0 and end - start == 64 for start, end in spans)
    assert spans[0][0] == 0
    assert spans[-1][1] >= length
    assert len(spans) == 1 or length - spans[-1][0] > 16


def test_three_eighths_of_an_overlap_are_thrown_away_at_either_end():
    weights = _weights(48, 112, 1000, 16)
    assert (weights[:6] == 0).all()
    assert ((weights[6:10] > 0) & (weights[6:10] < 1)).all()
    assert (weights[10:54] == 1).all()
    assert (weights[58:] == 0).all()
    # A picture's own border is nobody's overlap.
    assert (_weights(0, 64, 64, 16) == 1).all()


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (5, 3), (64, 64), (65, 64), (64, 65), (100, 213), (1, 5000), (3, 2000), (2000, 3)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_does_nothing_gives_the_picture_back(height, width, channels):
    picture = torch.rand(channels, height, width)
    torch.testing.assert_close(tiled(lambda x: x, picture), picture, rtol=0, atol=1e-6)


def test_a_network_that_looks_at_nothing_around_is_tiled_exactly():
    picture = torch.rand(1, 150, 90)
    answer = tiled(lambda x: torch.cat([x**2, 1 - x], 1), picture)
    torch.testing.assert_close(answer, torch.cat([picture**2, 1 - picture]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width"), [(250, 333), (129, 128), (200, 65), (3, 2000), (1, 5000), (400, 17)]
)
def test_beyond_its_reach_a_network_answers_in_tiles_exactly_as_in_one_piece(height, width):
    config = UNetConfig(widths=(4, 6, 8), blocks=1, middle_blocks=1)
    net = denoiser(config)
    picture = torch.rand(1, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = net(picture[None])[0]
    # It sees 44 px far; a quarter of the overlap is thrown away.
    answer = tiled(net, picture, tile_px=384, overlap_px=192)
    torch.testing.assert_close(answer, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_at_the_default_overlap_there_is_no_seam_of_a_tenth_of_an_8_bit_step(preset):
    """The picture is not a multiple of anything; the smallest tiles have the most borders."""
    net, picture = denoiser(net_config(preset, "grayscale")), photo(299, 433)
    with torch.no_grad():
        whole = net(picture[None])[0]
    assert (whole - picture).square().mean().sqrt() > 4 / 255
    stride = net.config.stride
    overlap_px = overlap_px_for(net.config)
    answer = tiled(net, picture, stride=stride, tile_px=2 * overlap_px, overlap_px=overlap_px)
    assert (answer - whole).abs().max() < 0.1 / 255


@pytest.mark.parametrize("preset", PRESETS)
def test_the_default_overlap_fits_every_preset(preset):
    stride = PRESETS[preset].stride
    overlap_px = overlap_px_for(PRESETS[preset])
    check_tiles(1024, overlap_px, stride=stride)
    assert count_tiles(1024, 1024, tile_px=1024, overlap_px=overlap_px) == 1
    assert count_tiles(1024, 1025, tile_px=1024, overlap_px=overlap_px) == 2


def test_deeper_networks_share_more_with_their_neighbours():
    shapes = [
        UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1),
        UNetConfig(widths=(4, 6), blocks=2, middle_blocks=1),
        UNetConfig(widths=(4, 6), blocks=2, middle_blocks=4),
        *(PRESETS[name] for name in ("tiny", "base", "large")),
    ]
    overlaps = [overlap_px_for(shape) for shape in shapes]
    assert overlaps == sorted(set(overlaps))
    assert all(px % shape.stride == 0 for px, shape in zip(overlaps, shapes, strict=True))


@pytest.mark.parametrize("size", [(130, 400), (64, 333), (200, 64)])
@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_tiles_of_a_row_may_go_through_the_network_together(size, at_once):
    net, batches, tiles = denoiser(UNetConfig(widths=(8, 12), blocks=1, middle_blocks=1)), [], []

    def watched(x):
        batches.append(len(x))
        return net(x)

    alone = tiled(net, photo(*size))
    together = tiled(watched, photo(*size), at_once=at_once, on_tile=lambda: tiles.append(1))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert max(batches) <= at_once
    assert sum(batches) == len(tiles) == count_tiles(*size, tile_px=64, overlap_px=16)
    # As many as there are of one width.
    whole = sum(end <= -(-size[1] // 8) * 8 for _, end in _spans(size[1], 64, 16))
    assert max(batches) == min(at_once, whole)


def test_a_picture_that_fits_into_a_tile_is_done_in_one_piece():
    sizes = []

    def net(x):
        sizes.append(tuple(x.shape))
        return x

    tiled(net, torch.rand(1, 64, 50))
    assert sizes == [(1, 1, 64, 50)]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (300, 200), (1, 5000)])
def test_tiles_are_counted_before_and_as_they_are_done(height, width):
    done = []
    tiled(lambda x: x, torch.rand(1, height, width), on_tile=lambda: done.append(1))
    assert len(done) == count_tiles(height, width, tile_px=64, overlap_px=16)


def test_no_tile_is_larger_than_asked_for():
    def net(x):
        assert max(x.shape[2:]) <= 64
        assert x.shape[2] % 8 == x.shape[3] % 8 == 0
        return x

    tiled(net, torch.rand(1, 203, 131))


def test_no_gradient_is_kept_and_the_picture_is_not_changed():
    picture = torch.rand(1, 100, 100)
    before = picture.clone()
    answer = tiled(denoiser(UNetConfig(widths=(4, 6, 8), blocks=1, middle_blocks=1)), picture)
    assert not answer.requires_grad
    assert torch.equal(picture, before)


@pytest.mark.parametrize(
    ("tile_px", "overlap_px", "message"),
    [
        (0, 16, "tile must be a multiple of 8 px and at least 32 px"),
        (-64, 16, "at least 32 px"),
        (24, 16, "at least 32 px"),
        (60, 16, "multiple of 8 px .* got 60"),
        (0, 0, "at least 8 px"),
        (64, -8, "overlap_px must be a multiple of 8, got -8"),
        (64, 12, "overlap_px must be a multiple of 8, got 12"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(tile_px, overlap_px, message):
    with pytest.raises(ValueError, match=message):
        tiled(lambda x: x, torch.rand(1, 10, 10), tile_px=tile_px, overlap_px=overlap_px)
