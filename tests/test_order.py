"""The order of samples."""

from itertools import chain, pairwise

import numpy as np
import pytest

from agedphoto.datasets import Order


def samples(order: Order, epoch: int = 0, world_size: int = 1) -> list[list[list[tuple]]]:
    """Everything of an epoch: [rank][batch] is a list of (photo, crop, valid)."""
    lanes = order.global_batch // world_size
    ranks = [
        order.epoch(epoch, first_lane=rank * lanes, num_lanes=lanes) for rank in range(world_size)
    ]
    return [
        [
            list(zip(*(x.tolist() for x in (b.photos, b.crops, b.valid)), strict=True))
            for b in (rank.batch(number) for number in range(order.num_batches))
        ]
        for rank in ranks
    ]


def random_orders(count: int) -> list[dict]:
    """Orders of all kinds, small and odd ones above all."""
    rng = np.random.default_rng(0)
    found = []
    while len(found) < count:
        order = {
            "num_photos": int(rng.integers(1, 60)),
            "crops_per_photo": int(rng.integers(1, 20)),
            "global_batch": 24 if len(found) % 2 else int(rng.integers(1, 40)),
            "mix_photos": int(rng.integers(1, 7)),
            "pad_last": bool(rng.integers(2)),
            "seed": int(rng.integers(2**63)),
        }
        if order["pad_last"] or (
            order["num_photos"] * order["crops_per_photo"] >= order["global_batch"]
        ):
            found.append(order)
    return found


@pytest.mark.parametrize("plan", random_orders(40))
def test_every_crop_of_every_photo_comes_once_an_epoch(plan):
    order = Order(**plan)
    epoch = samples(order, epoch=3)[0]
    N, K, G = order.num_photos, order.crops_per_photo, order.global_batch
    assert all(len(batch) == G for batch in epoch)
    seen = [(photo, crop) for batch in epoch for photo, crop, valid in batch if valid]
    everything = {(photo, crop) for photo in range(N) for crop in range(K)}
    assert len(set(seen)) == len(seen)
    if order.pad_last:
        assert set(seen) == everything
        assert len(epoch) == -(-N * K // G)
    else:
        assert set(seen) <= everything
        assert len(epoch) == N * K // G
        assert len(seen) == len(epoch) * G
    padding = {(photo, crop) for batch in epoch for photo, crop, valid in batch if not valid}
    assert padding <= everything
    assert all(valid for batch in epoch[:-1] for *_, valid in batch)


@pytest.mark.parametrize("plan", [plan for plan in random_orders(40) if plan["global_batch"] == 24])
@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_the_global_batches_are_the_same_for_any_number_of_ranks(plan, world_size):
    order = Order(**plan)
    ranks = samples(order, epoch=1, world_size=world_size)
    joined = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert joined == samples(order, epoch=1)[0]


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
@pytest.mark.parametrize(("num_photos", "crops"), [(50, 16), (31, 7), (100, 1), (24, 5)])
def test_a_photo_belongs_to_one_rank_but_for_one_at_each_border(world_size, num_photos, crops):
    order = Order(num_photos=num_photos, crops_per_photo=crops, global_batch=24)
    ranks = [
        {photo for batch in rank for photo, *_ in batch}
        for rank in samples(order, world_size=world_size)
    ]
    for a in range(world_size):
        for b in range(a + 1, world_size):
            assert len(ranks[a] & ranks[b]) <= (1 if b == a + 1 else 0)


@pytest.mark.parametrize("plan", random_orders(12))
def test_batches_are_the_same_in_any_order_of_asking(plan):
    order = Order(**plan)
    in_sequence = samples(order)[0]
    epoch = order.epoch(0, first_lane=0, num_lanes=order.global_batch)
    rng = np.random.default_rng(1)
    for number in rng.permutation(np.repeat(np.arange(order.num_batches), 2))[:30].tolist():
        batch = epoch.batch(number)
        columns = (batch.photos.tolist(), batch.crops.tolist(), batch.valid.tolist())
        assert list(zip(*columns, strict=True)) == in_sequence[number]


def test_batches_handed_out_do_not_change_afterwards():
    order = Order(num_photos=20, crops_per_photo=4, global_batch=8)
    epoch = order.epoch(0, first_lane=0, num_lanes=8)
    first = epoch.batch(0)
    before = first.photos.copy(), first.crops.copy(), first.valid.copy()
    for number in range(order.num_batches):
        epoch.batch(number)
    for then, now in zip(before, (first.photos, first.crops, first.valid), strict=True):
        np.testing.assert_array_equal(then, now)


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed=0):
        return Order(num_photos=40, crops_per_photo=6, global_batch=24, seed=seed)

    plans = [
        samples(order(seed), epoch) for seed in (0, 1, 2**64 - 1) for epoch in (0, 1, 2**32 - 1)
    ]
    assert all(a != b for i, a in enumerate(plans) for b in plans[:i])
    assert plans[0] == samples(order(), 0)
    # Another epoch is no mere shift: photos keep neither their place nor their neighbours.
    first, second = ([batch[0][0] for batch in plan[0]] for plan in plans[:2])
    assert first != second


@pytest.mark.parametrize("mix_photos", [1, 4, 8])
def test_a_batch_shows_as_many_photos_as_it_has_places(mix_photos):
    order = Order(num_photos=96, crops_per_photo=16, global_batch=24, mix_photos=mix_photos)
    for batch in samples(order)[0]:
        assert len({photo for photo, *_ in batch}) == 24
    few = Order(num_photos=30, crops_per_photo=16, global_batch=24, mix_photos=mix_photos)
    for batch in samples(few)[0]:
        # Lanes end within photos here; a photo may lie in two.
        assert len({photo for photo, *_ in batch}) >= 16


def test_neighbouring_batches_show_different_photos():
    order = Order(num_photos=96, crops_per_photo=16, global_batch=24, mix_photos=4)
    photos = [{photo for photo, *_ in batch} for batch in samples(order)[0]]
    shared = [len(a & b) for a, b in pairwise(photos)]
    assert np.mean(shared) < 10
    unmixed = Order(num_photos=96, crops_per_photo=16, global_batch=24, mix_photos=1)
    photos = [{photo for photo, *_ in batch} for batch in samples(unmixed)[0]]
    assert np.mean([len(a & b) for a, b in pairwise(photos)]) > 14


@pytest.mark.parametrize(
    ("num_photos", "crops", "batch", "mix"),
    [(400, 16, 24, 4), (400, 4, 16, 4), (300, 16, 24, 8), (200, 16, 16, 1), (800, 16, 64, 4)],
)
def test_new_photos_are_wanted_at_an_even_rate(num_photos, crops, batch, mix):
    """G / K a batch on average; every lane begins in the first batches of an epoch."""
    order = Order(num_photos=num_photos, crops_per_photo=crops, global_batch=batch, mix_photos=mix)
    seen, new = set(), []
    for photos in ({photo for photo, *_ in b} for b in samples(order)[0]):
        new.append(len(photos - seen))
        seen |= photos
    rate = batch / crops
    assert new[0] == batch
    assert max(new[1:8]) <= 0.75 * batch
    assert max(new[8:]) <= 2 * rate + 5
    # Over any 16 batches the chance of the shuffle has evened out.
    window = np.convolve(new[8:], np.ones(16), "valid") / 16
    assert window.max() <= 1.6 * rate + 0.5


def test_a_photo_is_in_use_for_a_short_while():
    """From its first crop to its last: what the pool has to bridge."""
    order = Order(num_photos=200, crops_per_photo=8, global_batch=16, mix_photos=4)
    batches = [{photo for photo, *_ in batch} for batch in samples(order)[0]]
    first, last, lanes = {}, {}, {}
    for number, photos in enumerate(batches):
        for photo in photos:
            first.setdefault(photo, number)
            last[photo] = number
    for place in range(16):
        for batch in samples(order)[0]:
            lanes.setdefault(batch[place][0], set()).add(place)
    spans = [last[photo] - first[photo] for photo in first if len(lanes[photo]) == 1]
    assert max(spans) < 2 * 4 * 8
    for number in range(len(batches)):
        in_use = sum(first[photo] <= number <= last[photo] for photo in first)
        assert in_use <= 16 * (4 + 2)


@pytest.mark.parametrize(
    ("num_photos", "crops", "batch"), [(1, 1, 1), (1, 1, 24), (2, 3, 24), (5, 24, 24), (3, 1, 2)]
)
def test_sets_smaller_than_a_batch_are_padded(num_photos, crops, batch):
    order = Order(num_photos=num_photos, crops_per_photo=crops, global_batch=batch, pad_last=True)
    epoch = samples(order)[0]
    valid = [(photo, crop) for b in epoch for photo, crop, valid in b if valid]
    assert sorted(valid) == [(photo, crop) for photo in range(num_photos) for crop in range(crops)]


@pytest.mark.parametrize("name", ["num_photos", "crops_per_photo", "global_batch", "mix_photos"])
def test_numbers_below_one_are_refused(name):
    plan: dict = {"num_photos": 4, "crops_per_photo": 4, "global_batch": 4, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Order(**plan)


def test_a_plan_without_a_full_batch_is_refused_with_the_largest_that_works():
    with pytest.raises(ValueError, match="use a global batch of at most 6, more crops_per_photo"):
        Order(num_photos=2, crops_per_photo=3, global_batch=7)
    assert Order(num_photos=2, crops_per_photo=3, global_batch=6).num_batches == 1


def test_places_outside_the_plan_are_refused():
    order = Order(num_photos=4, crops_per_photo=4, global_batch=8)
    for first, count in ((-1, 2), (0, 9), (8, 1), (0, 0)):
        with pytest.raises(ValueError, match="are not all within the global batch of 8"):
            order.epoch(0, first_lane=first, num_lanes=count)
    epoch = order.epoch(0, first_lane=0, num_lanes=8)
    for number in (-1, 2):
        with pytest.raises(IndexError, match=f"batch {number} of 2"):
            epoch.batch(number)
    for seed, number in ((-1, 0), (2**64, 0), (0, -1), (0, 2**32)):
        with pytest.raises(ValueError, match="must be a whole number from 0 to"):
            Order(num_photos=4, crops_per_photo=4, global_batch=8, seed=seed).epoch(
                number, first_lane=0, num_lanes=8
            )


def test_a_million_photos_are_planned_in_no_time():
    order = Order(num_photos=1_000_000, crops_per_photo=16, global_batch=2048)
    epoch = order.epoch(7, first_lane=512, num_lanes=256)
    batch = epoch.batch(order.num_batches - 1)
    assert batch.photos.max() < 1_000_000
    assert len(set(batch.photos.tolist())) == 256
