"""Bringing photos into the pool before they are needed."""

from concurrent.futures import Future
from itertools import count

import numpy as np
import pytest
import torch

from agedphoto.datasets import Order, PhotoPool
from agedphoto.datasets.supply import Lookahead, OnError, PhotoSupply

CPU = torch.device("cpu")
SIDE = 4
BYTES = SIDE * SIDE * 3


class Decoder:
    """Makes photo n all n; those in `bad` raise. Done at once, or when told to."""

    name, reason, cpu_seconds = "fake", "for tests", 0.0

    def __init__(self, bad=(), error: type[Exception] = ValueError):
        self.bad, self.error, self.asked = set(bad), error, []
        self.waiting: list[tuple[Future, int]] = []
        self.at_once = True

    def submit(self, sample: int) -> Future:
        self.asked.append(sample)
        future: Future = Future()
        self.waiting.append((future, sample))
        if self.at_once:
            self.finish()
        return future

    def finish(self) -> None:
        for future, sample in self.waiting:
            if not future.cancelled():
                if sample in self.bad:
                    future.set_exception(self.error(f"photo {sample} is damaged"))
                else:
                    future.set_result(torch.full((SIDE, SIDE, 3), sample, dtype=torch.uint8))
        self.waiting.clear()

    def report_wait(self, share: float) -> None: ...

    def close(self) -> None: ...


def supply_of(decoder, *, num=10, room=10, on_error: OnError = "raise", max_bad=3, most_decoding=4):
    return PhotoSupply(
        decoder,
        PhotoPool(room * BYTES, device=CPU),
        samples=np.arange(num),
        photo_bytes=np.full(num, BYTES),
        most_decoding=most_decoding,
        on_error=on_error,
        max_bad=max_bad,
    )


def steps(order: Order):
    for epoch in count():
        lanes = order.epoch(epoch, first_lane=0, num_lanes=order.global_batch)
        yield from (lanes.batch(number) for number in range(order.num_batches))


def test_looking_ahead_gives_every_batch_and_just_what_the_next_ones_want():
    order = Order(num_photos=30, crops_per_photo=4, global_batch=5, mix_photos=2)
    plan = steps(order)
    expected = [next(plan) for _ in range(100)]
    ahead = Lookahead(
        steps(order), photo_bytes=np.full(30, BYTES), most_batches=7, most_bytes=10**9
    )
    for number in range(80):
        step, wanted = ahead.next()
        np.testing.assert_array_equal(step.photos, expected[number].photos)
        in_order = [p for s in expected[number : number + 7] for p in s.photos.tolist()]
        assert set(wanted) == set(in_order)
        # The most urgent first.
        assert set(list(wanted)[: len(set(step.photos.tolist()))]) == set(step.photos.tolist()) or (
            number > 0
        )
        ahead.done()


@pytest.mark.parametrize("most_bytes", [1, 8 * BYTES, 20 * BYTES])
def test_looking_ahead_stops_where_there_is_no_more_room(most_bytes):
    order = Order(num_photos=60, crops_per_photo=2, global_batch=5, mix_photos=1)
    ahead = Lookahead(
        steps(order), photo_bytes=np.full(60, BYTES), most_batches=50, most_bytes=most_bytes
    )
    for _ in range(40):
        step, wanted = ahead.next()
        # The next batch is there in any case, and nothing else that does not fit.
        assert len(wanted) * BYTES <= max(most_bytes, 5 * BYTES)
        assert set(step.photos.tolist()) <= set(wanted)
        ahead.done()


def test_a_plan_ends():
    order = Order(num_photos=6, crops_per_photo=1, global_batch=3)
    lanes = order.epoch(0, first_lane=0, num_lanes=3)
    plan = (lanes.batch(number) for number in range(2))
    ahead = Lookahead(plan, photo_bytes=np.full(6, BYTES), most_batches=9, most_bytes=10**9)
    for _ in range(2):
        ahead.next()
        ahead.done()
    with pytest.raises(IndexError):
        ahead.next()


def test_what_is_needed_is_brought_and_what_is_wanted_follows():
    decoder = Decoder()
    supply = supply_of(decoder)
    assert supply.bring([3, 1, 3], [3, 1, 7, 8]) == {3: 3, 1: 1}
    assert decoder.asked == [3, 1, 7, 8]
    assert set(supply.pool.photos) == {3, 1, 7, 8}
    supply.bring([7, 8], [7, 8])
    assert decoder.asked == [3, 1, 7, 8]
    assert int(supply.pool[7].max()) == 7


def test_no_more_than_so_many_are_on_their_way():
    decoder = Decoder()
    supply = supply_of(decoder, num=100, room=100)
    supply.bring([0], [0])
    decoder.at_once = False
    supply.bring([0], range(100))
    assert len(decoder.waiting) == 4
    supply.bring([0], range(100))
    assert len(decoder.waiting) == 4


def test_what_is_no_longer_wanted_is_cancelled():
    decoder = Decoder()
    supply = supply_of(decoder)
    supply.bring([0], [0])
    decoder.at_once = False
    supply.bring([0], [0, 5, 6])
    waiting = {sample: future for future, sample in decoder.waiting}
    supply.bring([0], [0, 6])
    assert waiting[5].cancelled()
    assert not waiting[6].cancelled()


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_bad_photo_raises_when_it_is_needed_and_not_before(error):
    decoder = Decoder(bad=[5], error=error)
    supply = supply_of(decoder)
    supply.bring([0], [0, 5])
    supply.bring([1], [1, 5])
    with pytest.raises(error, match="photo 5 is damaged"):
        supply.bring([5, 2], [5, 2])
    # It is tried again: the error may have been of the moment.
    decoder.bad.clear()
    assert supply.bring([5, 2], [5, 2]) == {5: 5, 2: 2}


def test_a_skipped_photo_has_nothing_in_its_place():
    decoder = Decoder(bad=[5])
    supply = supply_of(decoder, on_error="skip")
    assert supply.bring([5, 2], [5, 2]) == {5: None, 2: 2}
    assert supply.bring([5, 2], [5, 2]) == {5: None, 2: 2}
    assert decoder.asked.count(5) == 1
    assert supply.bad == {5: "photo 5 is damaged"}


def test_the_next_good_photo_stands_in_for_a_bad_one():
    decoder = Decoder(bad=[5, 6, 9])
    supply = supply_of(decoder, on_error="substitute")
    assert supply.bring([5], [5]) == {5: 7}
    assert supply.bring([9, 6, 1], [9, 6, 1]) == {9: 0, 6: 7, 1: 1}
    assert all(photo in supply.pool for photo in (7, 0, 1))
    assert set(supply.bad) == {5, 6, 9}


def test_what_stands_in_fits_although_it_was_not_planned_for():
    """The pool holds a batch and no more; what is only wanted later gives way."""
    supply = supply_of(Decoder(bad=[0, 1]), room=3, on_error="substitute")
    supply.bring([7, 8], [7, 8, 9])
    assert supply.bring([0, 1, 8], [0, 1, 7, 8, 9]) == {0: 2, 1: 2, 8: 8}
    assert supply.bring([3, 4, 5], [3, 4, 5, 8, 9]) == {3: 3, 4: 4, 5: 5}
    assert {3, 4, 5} <= set(supply.pool.photos)


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_too_many_bad_photos_are_an_error(on_error):
    supply = supply_of(Decoder(bad=range(9)), on_error=on_error, max_bad=3)
    with pytest.raises(ValueError, match=r"4 photos are bad, max_bad is 3; the last: photo \d is"):
        supply.bring([0, 1, 2, 3], [0, 1, 2, 3])


def test_when_all_are_bad_nothing_can_stand_in():
    supply = supply_of(Decoder(bad=range(2)), num=2, on_error="substitute", max_bad=5)
    with pytest.raises(ValueError, match="every photo is bad; the last: photo"):
        supply.bring([0], [0])


def test_an_error_that_is_a_fault_of_ours_is_never_swallowed():
    supply = supply_of(Decoder(bad=[1], error=ZeroDivisionError), on_error="skip")
    with pytest.raises(ZeroDivisionError):
        supply.bring([1], [1])
