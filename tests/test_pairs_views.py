"""Aged pairs of whole photos, and pools in host memory."""

import numpy as np
import pytest
import torch
from batches import CROP, SIZES, same, take

from agedphoto.datasets import open_index
from agedphoto.datasets.views import shrink, whole_size
from agedphoto.synth import sample_keys
from agedphoto.synth.crops import sample_mirror


def test_whole_photos_are_made_small_and_lie_in_their_corner(open_pairs, shards, device):
    source = open_pairs(
        view="whole", long_side_px=12, mode="color", device=str(device), augment=False
    )
    index = open_index(shards)
    seen = set()
    mirrored = set()
    for batch in source:
        assert batch.clean.shape == (8, 3, 12, 12)
        assert batch.inside is not None
        for row, photo in enumerate(batch.photos):
            pixels = shrink(torch.from_numpy(index.read(photo)), 12)
            flip = bool(sample_mirror(batch.keys[row : row + 1])[0])
            expected = (pixels.flip(1) if flip else pixels).permute(2, 0, 1).float() / 255
            H, W = expected.shape[1:]
            clean = batch.clean[row].cpu()
            torch.testing.assert_close(clean[:, :H, :W], expected, atol=1e-6, rtol=0)
            inside = batch.inside[row, 0].cpu()
            assert bool(inside[:H, :W].all())
            assert int(inside.sum()) == H * W
            outside = ~inside
            for picture in (clean, batch.aged[row].cpu(), batch.mask[row].cpu()):
                assert float(picture[:, outside].float().abs().sum()) == 0
            seen.add(photo)
            mirrored.add(flip)
    assert seen == set(range(len(SIZES)))
    assert mirrored == {True, False}


def test_whole_photos_leave_none_out_and_the_pool_holds_the_small_ones(make_shards, open_pairs):
    many = make_shards([(60, 80), (5, 7), (90, 30), (64, 64)], name="odd")
    source = open_pairs(many, view="whole", long_side_px=16, batch_size=4, crop_px=50)
    list(source)
    assert source.left_out == ()
    assert source.num_photos == 4
    height, width = whole_size(np.array([60, 5, 90, 64]), np.array([80, 7, 30, 64]), 16)
    assert source.stats()["pool_bytes"] == int((3 * height * width).sum())


def test_a_skipped_whole_photo_is_nowhere(open_pairs, shards):
    tar = shards / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    index = open_index(shards)
    data[index.offset[2] + 20] ^= 0xFF
    tar.write_bytes(data)
    for batch in open_pairs(view="whole", long_side_px=12, on_error="skip"):
        assert batch.inside is not None
        nowhere = batch.inside.sum(dim=(1, 2, 3)) == 0
        assert torch.equal(nowhere, ~batch.valid)


def test_mirroring_is_a_fair_coin():
    keys = sample_keys(0, 0, torch.arange(4000), torch.zeros(4000, dtype=torch.int64))
    assert abs(float(sample_mirror(keys).float().mean()) - 0.5) < 0.03


def test_a_pool_on_the_host_gives_the_same_pairs(open_pairs, device):
    on_device = open_pairs(device=str(device))
    on_host = open_pairs(device=str(device), pool="host")
    assert same(take(on_host, 15), take(on_device, 15))
    assert "on cpu for all 14 photos" in on_host.describe()


def test_a_batch_moves_as_a_whole(open_pairs):
    batch = next(iter(open_pairs(view="whole", long_side_px=CROP)))
    moved = batch.to("meta", non_blocking=True)
    assert {t.device.type for t in (moved.aged, moved.clean, moved.mask, moved.keys)} == {"meta"}
    assert moved.inside is not None
    assert (moved.valid.device.type, moved.inside.device.type) == ("meta", "meta")
    assert moved.photos == batch.photos


def test_what_is_described_is_what_was_taken(open_pairs):
    everything = 3 * sum(h * w for h, w in SIZES)
    source = open_pairs(batch_size=1, mix_photos=1, pool_bytes=everything // 2)
    assert f"{(everything // 2) / everything:.0%} of the 14 photos" in source.describe()
    assert "decoder cpu" in source.describe()


@pytest.mark.gpu
def test_batches_made_ahead_on_a_stream_of_their_own_are_whole_when_handed_over(open_pairs):
    """Memory is poisoned on the user's stream while batches are being made on the other."""
    expected = take(open_pairs(device="cuda", ready_batches=0), 60)
    source = open_pairs(device="cuda", ready_batches=3)
    got = []
    while len(got) < 60:
        for batch in source:
            got.append(batch.to("cpu"))
            junk = [torch.full_like(batch.aged, float("nan")) for _ in range(8)]
            del junk, batch
            if len(got) == 60:
                break
    assert same(got, [batch.to("cpu") for batch in expected])
