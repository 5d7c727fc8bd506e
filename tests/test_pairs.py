"""Aged pairs out of shards."""

import gc
import json
import math
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from batches import CROP, SIZES, joined, same, take
from faulty_server import wait_until

from agedphoto.datasets import AgedPairs, ShardIndex, memory, open_index, write_shards
from agedphoto.synth import Ageing, Grain, Recipe, sample_crops, sample_keys
from agedphoto.textures import TextureBank


def turned_by_hand(crop: np.ndarray, turn: int) -> np.ndarray:
    if turn & 1:
        crop = crop[::-1]
    if turn & 2:
        crop = crop[:, ::-1]
    return crop.transpose(1, 0, 2) if turn & 4 else crop


def test_every_pair_is_the_aged_crop_its_key_stands_for(open_pairs, shards, textures, device):
    """Found by key among all that there may be, cut with numpy, aged one by one."""
    source = open_pairs(mode="color", recipe="seed", device=str(device))
    index = open_index(shards)
    ageing = Ageing("seed", mode="color", textures=textures)
    margin = ageing.augment.margin_px(CROP)
    assert margin > 0
    left = {}
    for photo in range(len(index)):
        keys = sample_keys(5, 0, torch.full((4,), photo), torch.arange(4))
        left |= {key: (photo, crop) for crop, key in enumerate(keys.tolist())}
    for batch in source:
        assert batch.aged.device.type == device.type
        for place, key in enumerate(batch.keys.tolist()):
            photo, _ = left.pop(key)
            assert batch.photos[place] == photo
            height, width = SIZES[photo]
            box = sample_crops(
                torch.tensor([key]), torch.tensor([height]), torch.tensor([width]), crop_px=CROP
            )
            top, left_px = int(box.top), int(box.left)
            # Beyond its borders a photo is reflected.
            wide = np.pad(
                index.read(photo), ((margin, margin), (margin, margin), (0, 0)), "reflect"
            )
            side = CROP + 2 * margin
            crop = wide[top : top + side, left_px : left_px + side]
            crop = turned_by_hand(crop, int(box.turn)).copy()
            photos = torch.from_numpy(crop).permute(2, 0, 1)[None].to(device)
            aged, clean, mask = ageing(photos, torch.tensor([key]), margin_px=margin)
            torch.testing.assert_close(batch.aged[place], aged[0], rtol=0, atol=1e-6)
            assert torch.equal(batch.mask[place], mask[0])
            torch.testing.assert_close(batch.clean[place], clean[0], rtol=0, atol=0)
    assert len(left) == len(SIZES) * 4 - len(source) * 8


@pytest.mark.parametrize(
    ("mode", "aged", "clean"), [("grayscale", 1, 1), ("rgb", 1, 3), ("lab", 1, 3), ("color", 3, 3)]
)
def test_modes_have_their_channels_and_types(open_pairs, mode, aged, clean):
    batch = next(iter(open_pairs(mode=mode, dtype=torch.bfloat16)))
    assert (batch.aged.shape, batch.aged.dtype) == ((8, aged, CROP, CROP), torch.bfloat16)
    assert (batch.clean.shape, batch.clean.dtype) == ((8, clean, CROP, CROP), torch.bfloat16)
    assert (batch.mask.shape, batch.mask.dtype) == ((8, 1, CROP, CROP), torch.bool)
    assert (batch.keys.dtype, batch.valid.dtype) == (torch.int64, torch.bool)


@pytest.mark.parametrize("options", [{"num_threads": 1}, {"num_threads": 8, "prefetch_batches": 1}])
def test_every_run_gives_the_same_pairs(open_pairs, options):
    assert same(take(open_pairs(), 10), take(open_pairs(**options), 10))


def test_another_seed_gives_other_pairs(open_pairs):
    first, second = next(iter(open_pairs())), next(iter(open_pairs(seed=6)))
    assert not set(first.keys.tolist()) & set(second.keys.tolist())


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("last_batch", ["drop", "pad"])
def test_ranks_together_give_the_same_global_batches(open_pairs, world_size, last_batch):
    alone = take(open_pairs(last_batch=last_batch), 9)
    ranks = [
        open_pairs(
            batch_size=8 // world_size, rank=rank, world_size=world_size, last_batch=last_batch
        )
        for rank in range(world_size)
    ]
    assert {len(rank) for rank in ranks} == {len(open_pairs(last_batch=last_batch))}
    parts = zip(*(take(rank, 9) for rank in ranks), strict=True)
    assert same([joined(part) for part in parts], alone)


def test_a_pass_that_ends_leads_to_the_next_epoch_and_one_broken_off_begins_anew(open_pairs):
    source = open_pairs()
    first = list(source)
    assert (len(first), source.epoch) == (len(source), 1)
    second = list(source)
    assert not same(first, second)
    again = open_pairs()
    broken_off = [batch for _, batch in zip(range(3), again, strict=False)]
    assert again.epoch == 0
    assert same(broken_off, first[:3])
    assert same(list(again), first)
    assert same(list(again), second)


def test_every_crop_comes_once_an_epoch(open_pairs):
    keys = [key for batch in open_pairs(batch_size=7) for key in batch.keys.tolist()]
    assert len(set(keys)) == len(keys) == len(SIZES) * 4


def test_setting_the_epoch_goes_to_its_start(open_pairs):
    source = open_pairs()
    epochs = [list(source) for _ in range(3)]
    source.set_epoch(1)
    assert same(list(source), epochs[1])
    assert same(list(source), epochs[2])
    next(iter(source))
    source.set_epoch(0)
    assert same(list(source), epochs[0])
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match="epoch must be a whole number"):
            source.set_epoch(wrong)
    source.set_epoch(2**32 - 1)
    assert len(list(source)) == len(source)


def test_a_pass_under_way_is_not_disturbed_by_another(open_pairs):
    expected = list(open_pairs())
    source = open_pairs()
    slow = iter(source)
    got = [next(slow), next(slow)]
    assert same(list(source), expected)
    assert same([*got, *slow], expected)


@pytest.mark.parametrize("done", [0, 1, 3, 6, 7, 8, 14])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_saved_place_goes_on_with_the_next_batch(open_pairs, done, world_size):
    """0, the middle, the last but one, the last of an epoch, beyond; on other ranks too."""
    source = open_pairs()
    assert len(source) == 7
    expected = take(source, done + 9)[done:]
    source = open_pairs()
    take(source, done)
    state = json.loads(json.dumps(source.state_dict()))
    assert len(json.dumps(state)) < 1000
    assert (state["epoch"], state["samples"]) == (done // 7, done % 7 * 8)
    parts = []
    for rank in range(world_size):
        fresh = open_pairs(batch_size=8 // world_size, rank=rank, world_size=world_size)
        fresh.load_state_dict(state)
        assert fresh.state_dict() == state
        parts.append(take(fresh, 9))
    assert same([joined(part) for part in zip(*parts, strict=True)], expected)


def test_a_state_is_after_the_batch_just_handed_out(open_pairs):
    source = open_pairs()
    for number, _ in enumerate(source):
        done = number + 1
        expected = (0, 8 * done) if done < len(source) else (1, 0)
        assert (source.state_dict()["epoch"], source.state_dict()["samples"]) == expected


def test_a_resumed_pass_is_the_rest_of_its_epoch_once(open_pairs):
    expected = list(open_pairs())
    source = open_pairs()
    take(source, 3)
    source.load_state_dict(source.state_dict())
    assert same(list(source), expected[3:])
    source.set_epoch(0)
    assert same(list(source), expected)


def test_a_foreign_state_is_refused_with_what_differs_and_what_would_fit(open_pairs):
    state = open_pairs().state_dict()
    before = open_pairs(batch_size=4)
    with pytest.raises(ValueError, match="global_batch was 8, is 4; use batch_size=8 on 1 ranks"):
        before.load_state_dict(state)
    with pytest.raises(ValueError, match="global_batch was 8, is 3; 3 ranks cannot share a global"):
        open_pairs(batch_size=1, rank=1, world_size=3).load_state_dict(state)
    changes = {
        "seed": 6, "crops_per_photo": 5, "mix_photos": 2, "last_batch": "pad", "mode": "lab",
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(ValueError, match=f"not of these pairs: {name} was .*, is {value!r}$"):
            open_pairs(**{name: value}).load_state_dict(state)
    with pytest.raises(ValueError, match="side_px was 16, is 8"):
        open_pairs(crop_px=8).load_state_dict(state)
    with pytest.raises(ValueError, match="view was 'crop', is 'whole'"):
        open_pairs(view="whole", long_side_px=16).load_state_dict(state)
    with pytest.raises(ValueError, match="recipe was"):
        open_pairs(recipe=Recipe(name="grain", defects=(Grain(),))).load_state_dict(state)
    with pytest.raises(ValueError, match="textures was"):
        open_pairs(textures=TextureBank.synthesize(5, size_px=64)).load_state_dict(state)
    with pytest.raises(ValueError, match="version was 1, is 2"):
        open_pairs().load_state_dict(state | {"version": 1})
    for nothing in ({}, None, [1]):
        with pytest.raises(ValueError, match="this is no state of AgedPairs"):
            open_pairs().load_state_dict(nothing)


def test_a_state_of_other_photos_is_refused(open_pairs, make_shards):
    other = open_pairs(make_shards(SIZES[::-1], name="other"))
    with pytest.raises(ValueError, match="fingerprint was"):
        other.load_state_dict(open_pairs().state_dict())


def test_a_state_outlives_a_new_split(open_pairs, shards, make_photos):
    state = open_pairs().state_dict()
    more = make_photos([(20, 20)], folder="more", seed=99)
    write_shards(sorted(more.iterdir()), shards, split="valid")
    resumed = open_pairs()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


@pytest.mark.parametrize("samples", [-8, 3, 56, 10**9, 8.0, "8", None])
def test_a_damaged_state_is_refused_and_changes_nothing(open_pairs, samples):
    source = open_pairs()
    with pytest.raises(ValueError, match=r"multiple of 8 below 56, got .*; the state is damaged"):
        source.load_state_dict(source.state_dict() | {"samples": samples})
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        source.load_state_dict(source.state_dict() | {"epoch": -1, "samples": 8})
    assert source.state_dict() == open_pairs().state_dict()


def test_what_fits_is_decoded_once_for_all(open_pairs):
    source = open_pairs()
    for _ in range(3):
        list(source)
    stats = source.stats()
    assert stats["photos_decoded"] == stats["pool_photos"] == len(SIZES)
    assert stats["pool_bytes"] == stats["pool_capacity_bytes"] == 3 * sum(h * w for h, w in SIZES)
    assert stats["pairs"] == 3 * len(source) * 8


def test_each_rank_decodes_its_own_photos_alone(open_pairs):
    decoded = []
    for rank in range(2):
        source = open_pairs(batch_size=4, rank=rank, world_size=2, prefetch_batches=1)
        for _ in range(len(source) - 1):
            take(source, 1)
        decoded.append({photo for batch in source for photo in batch.photos})
    assert len(decoded[0] & decoded[1]) <= 1


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_all_ranks_together_decode_what_one_alone_would(make_shards, open_pairs, world_size):
    """A batch more at most: what is wanted next, and a photo at each border of two ranks."""
    many = make_shards([(16 + n % 3, 18) for n in range(96)], name="many", format="png")
    options = {"crops_per_photo": 4, "prefetch_batches": 1, "mix_photos": 1}

    def decoded(rank: int, ranks: int) -> int:
        source = open_pairs(many, batch_size=24 // ranks, rank=rank, world_size=ranks, **options)
        for number, _ in enumerate(source, 1):
            if number == len(source):
                break
        return int(source.stats()["photos_decoded"])

    alone = decoded(0, 1)
    together = sum(decoded(rank, world_size) for rank in range(world_size))
    assert 96 <= alone <= 96 + 24
    assert abs(together - alone) <= 24


@pytest.mark.parametrize("prefetch_batches", [1, 4, 8])
@pytest.mark.parametrize("mix_photos", [1, 4])
def test_what_does_not_fit_is_decoded_about_once_an_epoch(
    make_shards, open_pairs, monkeypatch, prefetch_batches, mix_photos
):
    """With the smallest pool there may be."""
    many = make_shards([(16 + n % 3, 18 + n % 5) for n in range(120)], name="many", format="png")
    options = {
        "batch_size": 4, "crops_per_photo": 8, "mix_photos": mix_photos,
        "prefetch_batches": prefetch_batches, "recipe": "seed",
    }  # fmt: skip
    with pytest.raises(ValueError, match="pool_bytes is 1, but photos in use need up to") as caught:
        open_pairs(many, pool_bytes=1, **options)
    least = int(str(caught.value).partition("up to ")[2].partition(";")[0].replace(",", ""))
    with pytest.raises(ValueError, match="use at least that, or a smaller batch_size"):
        open_pairs(many, pool_bytes=least - 1, **options)
    reads = Counter()
    read = ShardIndex.read_bytes
    monkeypatch.setattr(
        ShardIndex,
        "read_bytes",
        lambda index, sample, *a: (reads.update([sample]), read(index, sample, *a))[1],
    )
    source = open_pairs(many, pool_bytes=least, **options)
    for _ in range(2):
        for _ in source:
            assert source.stats()["pool_bytes"] <= least
    assert 2 * 110 < sum(reads.values()) <= 2 * 120 * 1.1 + 4 * prefetch_batches
    assert source.stats()["pool_capacity_bytes"] == least


def test_a_small_pool_gives_the_same_pairs(make_shards, open_pairs):
    many = make_shards([(16 + n % 9, 40 - n % 7) for n in range(60)], name="many")
    options = {"batch_size": 4, "crops_per_photo": 2, "mix_photos": 1, "prefetch_batches": 2}
    small = open_pairs(many, pool_bytes=40_000, **options)
    assert small.stats()["pool_capacity_bytes"] < 60 * 16 * 34 * 3
    expected = take(open_pairs(many, **options), 65)
    assert same(take(small, 65), expected)


@pytest.mark.parametrize(
    ("crops", "mix", "prefetch"), [(1, 1, 8), (1, 1, 20), (2, 1, 12), (3, 2, 9)]
)
def test_prefetching_far_ahead_never_asks_too_much_of_the_pool(
    make_shards, open_pairs, crops, mix, prefetch
):
    """Small windows: the batches ahead reach into many of them, and into the next epoch."""
    many = make_shards([(16 + n % 3, 18) for n in range(60)], name="many", format="png")
    options = {
        "batch_size": 2, "crops_per_photo": crops, "mix_photos": mix, "prefetch_batches": prefetch,
    }  # fmt: skip
    with pytest.raises(ValueError, match="pool_bytes is 1") as caught:
        open_pairs(many, pool_bytes=1, **options)
    least = int(str(caught.value).partition("up to ")[2].partition(";")[0].replace(",", ""))
    source = open_pairs(many, pool_bytes=least, **options)
    assert len(take(source, 2 * len(source))) == 2 * len(source)


def test_passes_broken_off_leave_the_pool_usable(make_shards, open_pairs):
    """Photos that were on their way for another epoch are not wanted any more."""
    many = make_shards([(16 + n % 3, 18) for n in range(60)], name="many", format="png")
    options = {"batch_size": 2, "crops_per_photo": 1, "mix_photos": 1, "prefetch_batches": 3}
    source = open_pairs(many, pool_bytes=2 * 3 * 18 * 18 * 3, num_threads=1, **options)
    for epoch in range(20):
        source.set_epoch(epoch)
        take(source, 1 + epoch % 3)
    source.set_epoch(0)
    assert same(take(source, 30), take(open_pairs(many, **options), 30))


def test_the_next_epoch_is_prefetched(make_shards, open_pairs, monkeypatch):
    """Its first photos are on their way before the last batch of this one is handed out."""
    many = make_shards([(16, 18 + n % 3) for n in range(120)], name="many", format="png")
    decoded = []
    read = ShardIndex.read_bytes
    monkeypatch.setattr(
        ShardIndex,
        "read_bytes",
        lambda index, number, *a: (decoded.append(number), read(index, number, *a))[1],
    )
    options = {"batch_size": 4, "crops_per_photo": 2, "mix_photos": 1, "prefetch_batches": 6}
    source = open_pairs(many, pool_bytes=60 * 16 * 20 * 3, num_threads=1, **options)
    list(source)
    wait_until(lambda: len(decoded) > 120)
    following = {photo for batch in take(source, 2) for photo in batch.photos}
    assert following & set(decoded[120:])


def test_small_photos_are_left_out_and_the_others_keep_their_numbers(make_shards, open_pairs):
    sizes = [(20, 20), (15, 40), (20, 20), (40, 15), (16, 16)]
    source = open_pairs(make_shards(sizes, name="mixed"), batch_size=4)
    assert source.left_out == ("0001", "0003")
    assert source.num_photos == 3
    batches = list(source)
    assert {photo for batch in batches for photo in batch.photos} == {0, 2, 4}
    keys = sample_keys(5, 0, torch.tensor([4] * 4), torch.arange(4)).tolist()
    got = {key for batch in batches for key in batch.keys.tolist()}
    assert set(keys) <= got


def test_a_crop_larger_than_every_photo_is_refused_with_the_largest_that_works(open_pairs):
    with pytest.raises(
        ValueError, match=r"crop_px 23 is larger .*short side is 22 px, use at most"
    ):
        open_pairs(crop_px=23)
    assert open_pairs(crop_px=22, batch_size=2).num_photos > 0


def test_the_last_batch_may_be_padded(open_pairs):
    source = open_pairs(batch_size=10, last_batch="pad")
    batches = list(source)
    assert len(batches) == len(source) == math.ceil(len(SIZES) * 4 / 10)
    assert [int(batch.valid.sum()) for batch in batches] == [10, 10, 10, 10, 10, 6]
    keys = [key for batch in batches for key in batch.keys[batch.valid].tolist()]
    assert len(set(keys)) == len(keys) == len(SIZES) * 4
    assert batches[-1].aged.shape[0] == 10


def test_a_set_smaller_than_the_batch_may_be_padded(make_shards, open_pairs):
    few = make_shards([(20, 20)], name="few")
    with pytest.raises(ValueError, match="use a global batch of at most 4, more crops_per_photo"):
        open_pairs(few)
    (batch,) = list(open_pairs(few, last_batch="pad"))
    assert batch.valid.tolist() == [True] * 4 + [False] * 4


def test_a_damaged_photo_stops_the_loop_where_it_is_needed_and_is_named(open_pairs, shards):
    index = open_index(shards)
    first = next(number for number, batch in enumerate(open_pairs()) if 6 in batch.photos)
    shard = shards / index.shards[0].name
    data = bytearray(shard.read_bytes())
    data[index.offset[6] + 30] ^= 1
    shard.write_bytes(data)
    for _ in range(2):
        source, got = open_pairs(), []
        with pytest.raises(ValueError, match=f"photograph '0006' of {shard}: is damaged"):
            got.extend(batch.keys for batch in source)
        assert len(source.state_dict()) > 0
        # `extend` keeps what came before.
        assert source.state_dict()["samples"] == 8 * first


def test_a_shard_that_vanishes_stops_the_loop(open_pairs, shards):
    source = open_pairs(prefetch_batches=1)
    (shards / "train-000000.tar").unlink()
    with pytest.raises(OSError, match=r"train-000000.tar: cannot be read"):
        list(source)


def threads_at_work() -> int:
    return sum(thread.name.startswith("decode") for thread in threading.enumerate())


def test_closing_leaves_no_threads(open_pairs):
    before = threads_at_work()
    with open_pairs(num_threads=3) as source:
        next(iter(source))
        assert threads_at_work() > before
    assert threads_at_work() == before
    source.close()


@pytest.mark.parametrize("library", ["json", "accelerate.data_loader"])
def test_pairs_that_are_forgotten_leave_no_threads(shards, textures, library):
    """Whatever else is imported and might look for them."""
    pytest.importorskip(library)
    before = threads_at_work()
    source = AgedPairs(
        shards, crop_px=CROP, batch_size=2, textures=textures, device="cpu", rank=0, world_size=1
    )
    next(iter(source))
    del source
    # Frames of earlier failures may still know it.
    assert wait_until(lambda: gc.collect() >= 0 and threads_at_work() == before, seconds=10)


def test_times_add_up(open_pairs):
    source = open_pairs()
    assert source.stats()["pairs_per_s"] == 0
    begun = time.perf_counter()
    for _ in source:
        time.sleep(0.01)
    elapsed = time.perf_counter() - begun
    stats = source.stats()
    assert 0 < stats["first_batch_s"] < elapsed
    after_the_first = stats["pairs"] - 8
    assert 0.5 * elapsed < after_the_first / stats["pairs_per_s"] <= elapsed
    stalled = 1 - stats["accelerator_utilization"]
    # Made in the user's own thread, which is work and no waiting.
    assert stats["wait_share"] + stats["make_share"] == pytest.approx(stalled, abs=0.1)
    assert stats["wait_share"] < stalled < 1
    assert stats["pairs_per_s_unhindered"] > stats["pairs_per_s"]
    assert stats["decode_cpu_s"] > 0
    assert stats["bytes_read"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_px": 0}, "crop_px must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"prefetch_batches": 0}, "prefetch_batches must be a whole number of at least 1, got 0"),
        ({"num_threads": 0}, "num_threads must be a whole number of at least 1, got 0"),
        ({"crops_per_photo": 0}, "crops_per_photo must be a whole number of at least 1, got 0"),
        ({"mix_photos": 0}, "mix_photos must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"split": "test"}, "no split 'test' in .*; there are: train"),
        ({"rank": 2, "world_size": 2}, "rank must be 0 to 1"),
        ({"batch_size": 57}, "use a global batch of at most 56"),
        ({"recipe": "none such"}, "none such"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(open_pairs, options, message):
    with pytest.raises(ValueError, match=message):
        open_pairs(**options)


def test_too_little_memory_is_an_error_with_both_numbers(open_pairs, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(
        ValueError, match=r"on cpu: 1,000 bytes are free for this rank.* need up to \d\d,\d\d\d"
    ):
        open_pairs()


def test_no_more_memory_is_taken_than_all_photos_need(open_pairs):
    capacity = open_pairs(pool_bytes=10**15).stats()["pool_capacity_bytes"]
    assert capacity == 3 * sum(h * w for h, w in SIZES)
