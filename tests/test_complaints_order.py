"""What users of other loaders complain about, and that it does not happen here: rows 1 to 8, about
places, ranks, epochs and what is random. Rows 9 to 18 are in test_complaints_faults.py."""

import hashlib
import inspect
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import CROP, joined, same, take
from faulty_server import wait_until
from PIL import Image

from agedphoto.datasets import AgedPairs, Batch, Order, find_photos, open_index, write_shards
from agedphoto.datasets.maker import BatchMaker
from agedphoto.synth import Ageing, Grain, Recipe, Texture, sample_keys


def multiply(shards: Path, count: int) -> Path:
    """Let the index name so many photos; they share the bytes of those that are there."""
    index = open_index(shards)
    named = index.select(np.arange(count) % len(index))
    keys = np.array([f"{n:06d}" for n in range(count)], dtype=named.keys.dtype)
    (shards / "index.json").write_bytes(replace(named, keys=keys).to_json())
    return shards


def saved(source: AgedPairs) -> dict:
    """A state that was written into a file and read back."""
    return json.loads(json.dumps(source.state_dict()))


def keys_of(batches: list[Batch]) -> list[int]:
    return [key for batch in batches for key in batch.keys.tolist()]


# Row 1: training cannot be resumed within an epoch.


def test_going_to_the_end_of_a_large_epoch_reads_and_replays_nothing(open_pairs, make_shards):
    """Only `repeat and hope` is offered, or everything before the place is gone through again."""
    shards = multiply(make_shards([(20, 24), (22, 20)], name="large"), 100_000)
    options = {"pool_bytes": 1_000_000, "prefetch_batches": 1}
    state = saved(open_pairs(shards, **options))
    source = open_pairs(shards, **options)
    last = len(source) - 1
    state |= {"epoch": 900, "samples": last * 8}
    begun = time.perf_counter()
    source.load_state_dict(state)
    (batch,) = list(source)
    assert time.perf_counter() - begun < 2
    assert source.stats()["photos_decoded"] == len(set(batch.photos))
    order = Order(num_photos=100_000, crops_per_photo=4, global_batch=8, seed=5, mix_photos=4)
    expected = order.epoch(900, first_lane=0, num_lanes=8).batch(last)
    assert list(batch.photos) == expected.photos.tolist()
    keys = sample_keys(5, 900, *map(torch.from_numpy, (expected.photos, expected.crops)))
    assert torch.equal(batch.keys, keys)
    assert (source.state_dict()["epoch"], source.state_dict()["samples"]) == (901, 0)


# Row 2: a resumed run is off by what was made ahead, or runs beyond the end of its epoch.


@pytest.mark.parametrize("done", [0, 3, 6, 7, 9])
def test_batches_made_ahead_are_not_in_the_state_and_a_resumed_epoch_ends(
    open_pairs, monkeypatch, done
):
    """The state counts what the loader has prefetched; at the end of an epoch it hangs, or starts
    one epoch too many."""
    epochs = [list(source) for source in [open_pairs()] for _ in range(3)]
    made: list[int] = []
    make = BatchMaker.make

    def counting(self: BatchMaker, epoch, *rest) -> Batch:
        made.append(epoch)
        return make(self, epoch, *rest)

    monkeypatch.setattr(BatchMaker, "make", counting)
    source = open_pairs(ready_batches=2)
    for _ in range(done // 7):
        list(source)
    batches: Iterator[Batch] = iter(source)
    for _ in range(done % 7):
        next(batches)
    if 0 < done % 7 < 6:
        # What is ready, and one that is waiting for room.
        assert wait_until(lambda: len(made) >= min(done + 2, 7 * (done // 7 + 1)))
    state = saved(source)
    assert (state["epoch"], state["samples"]) == (done // 7, done % 7 * 8)

    resumed = open_pairs(ready_batches=3, prefetch_batches=5)
    resumed.load_state_dict(state)
    assert same(list(resumed), epochs[done // 7][done % 7 :])
    assert same(list(resumed), epochs[done // 7 + 1])


# Row 3: a state fits only the number of workers and processes that it was saved on.


def test_a_run_moves_over_one_two_and_four_ranks_and_any_number_of_threads(open_pairs):
    """On another number of ranks it is refused, or samples are lost and come twice."""
    expected = take(open_pairs(), 12)
    got, state = [], None
    plan = [
        (1, 3, {"num_threads": 1}),
        (2, 2, {"num_threads": 3, "ready_batches": 2}),
        (4, 4, {"num_threads": 2, "prefetch_batches": 1, "pool_bytes": 70_000}),
        (1, 3, {"num_threads": 5}),
    ]
    for world_size, count, options in plan:
        ranks = [
            open_pairs(batch_size=8 // world_size, rank=rank, world_size=world_size, **options)
            for rank in range(world_size)
        ]
        if state:
            for rank in ranks:
                rank.load_state_dict(state)
        got += [joined(part) for part in zip(*(take(rank, count) for rank in ranks), strict=True)]
        states = [saved(rank) for rank in ranks]
        assert all(one == states[0] for one in states)
        state = states[-1]
    assert same(got, expected)


# Row 4: ranks get unequal numbers of batches, and the faster wait for ever.


def test_all_ranks_hand_out_as_many_batches_as_they_all_announce(make_shards, textures):
    """One rank runs out before the others, which wait for it in the next all-reduce."""
    rng = np.random.default_rng(0)
    shards = make_shards([(16, 18), (18, 16), (17, 17)], name="few")
    for number in range(24):
        photos, crops = int(rng.integers(1, 20)), int(rng.integers(1, 6))
        batch_size, world_size = int(rng.integers(1, 5)), int(rng.choice([2, 3, 4, 8]))
        last_batch = ("drop", "pad")[number % 2]
        samples, of_all = photos * crops, batch_size * world_size
        if last_batch == "drop" and samples < of_all:
            photos = photos + of_all
            samples = photos * crops
        multiply(shards, photos)
        valid, whole = 0, samples // of_all
        for rank in range(world_size):
            with AgedPairs(
                shards, crop_px=8, batch_size=batch_size, crops_per_photo=crops, device="cpu",
                rank=rank, world_size=world_size, last_batch=last_batch, num_threads=1,
                textures=textures,
            ) as source:  # fmt: skip
                batches = list(source)
            expected = whole if last_batch == "drop" else -(-samples // of_all)
            assert len(batches) == len(source) == expected
            assert {batch.aged.shape[0] for batch in batches} == {batch_size}
            valid += sum(int(batch.valid.sum()) for batch in batches)
        assert valid == (whole * of_all if last_batch == "drop" else samples)


# Row 5: there must be as many shards as workers and ranks.


def test_one_shard_feeds_four_ranks_evenly(open_pairs, shards):
    """With fewer shards than ranks some are idle, hang, or are refused."""
    assert len(open_index(shards).shards) == 1
    everything = list(open_pairs(batch_size=4, last_batch="pad"))
    ranks = [open_pairs(batch_size=1, rank=r, world_size=4, last_batch="pad") for r in range(4)]
    parts = [list(rank) for rank in ranks]
    assert same([joined(part) for part in zip(*parts, strict=True)], everything)
    seen = [set(keys_of(part)) for part in parts]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 14 * 4
    # Of the single shard, each reads little more than its share.
    for rank in ranks:
        assert rank.stats()["bytes_read"] < 0.6 * (shards / "train-000000.tar").stat().st_size


def test_there_may_be_more_ranks_than_photos(open_pairs, make_shards):
    """A rank that gets no photo of its own must not be left without a batch."""
    few = make_shards([(16, 18), (18, 16)], name="two")
    options = {"crops_per_photo": 12, "last_batch": "pad"}
    ranks = [open_pairs(few, batch_size=1, rank=r, world_size=8, **options) for r in range(8)]
    parts = [list(rank) for rank in ranks]
    assert {len(part) for part in parts} == {3}
    assert len({key for part in parts for key in keys_of(part)}) == 2 * 12


# Row 6: an epoch is multiplied by the workers, skipped, or never ends.


@pytest.mark.parametrize("num_threads", [1, 5])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pass_is_one_epoch_however_many_threads_and_whatever_is_around_it(
    open_pairs, num_threads, wrapped
):
    """The length of an epoch is multiplied by the workers, and passes begin anywhere."""
    expected = [list(source) for source in [open_pairs()] for _ in range(3)]
    source = open_pairs(num_threads=num_threads, ready_batches=2)
    loader = torch.utils.data.DataLoader(source, batch_size=None) if wrapped else source
    for epoch in range(3):
        assert source.epoch == epoch
        assert len(loader) == len(source) == 7
        batches = iter(loader)
        got = [next(batches) for _ in range(7)]
        # Once at its end, a pass stays there.
        assert [next(batches, None) for _ in range(3)] == [None] * 3
        assert same(got, expected[epoch])


# Row 7: every epoch, or every worker, draws the same augmentation.


def test_no_two_pictures_are_aged_alike_in_any_epoch_on_any_rank(open_pairs, tmp_path):
    """Generators are copied into the workers, and seeded alike at the start of every epoch."""
    gray = tmp_path / "gray"
    gray.mkdir()
    for n in range(6):
        Image.new("RGB", (20, 20), (128, 128, 128)).save(gray / f"{n}.png")
    write_shards(find_photos(gray), tmp_path / "set", root=gray)
    ranks = [
        open_pairs(tmp_path / "set", batch_size=4, rank=rank, world_size=2, augment=False)
        for rank in range(2)
    ]
    batches = [batch for _ in range(3) for rank in ranks for batch in rank]
    pictures = [picture.numpy().tobytes() for batch in batches for picture in batch.aged]
    assert len(pictures) == 3 * 6 * 4
    # They differ by their ageing alone.
    assert all(float(batch.clean.min()) == float(batch.clean.max()) for batch in batches)
    assert len(set(pictures)) == len(pictures)
    grain = torch.cat([batch.aged for batch in batches]).flatten(1)
    assert float(torch.corrcoef(grain).fill_diagonal_(0).abs().max()) < 0.6
    assert len(set(keys_of(batches))) == len(pictures)
    orders = [[photo for batch in list(ranks[0]) for photo in batch.photos] for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]


ELSEWHERE = """
import hashlib, pickle, random, sys
import numpy as np, torch
from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank

def generators():
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))

random.seed(9), np.random.seed(9), torch.manual_seed(9)
before = generators()
digest = hashlib.sha256()
with AgedPairs(
    sys.argv[1], crop_px=16, batch_size=8, crops_per_photo=4, seed=5, device="cpu", num_threads=4,
    textures=TextureBank.synthesize(5, size_px=128), ready_batches=2, rank=0, world_size=1,
) as pairs:
    for epoch in range(2):
        for batch in pairs:
            for tensor in batch.tensors().values():
                digest.update(tensor.numpy().tobytes())
print(digest.hexdigest(), "unmoved" if generators() == before else "moved")
"""


@pytest.fixture
def elsewhere(shards) -> list[str]:
    """What another process says: the digest of two epochs, and of its global generators."""
    process = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(shards)],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.split()


def test_the_seed_settles_everything_in_any_process_with_any_number_of_threads(
    open_pairs, elsewhere
):
    """What comes depends on the number of workers, on hash seeds, on who has drawn before."""
    digest = hashlib.sha256()
    for batch in take(open_pairs(num_threads=1), 14):
        for tensor in batch.tensors().values():
            digest.update(tensor.numpy().tobytes())
    assert elsewhere[0] == digest.hexdigest()


# Row 8: the generator cannot be chosen, and misspelt arguments vanish.


def test_arguments_that_do_not_exist_are_refused_everywhere(shards, textures):
    """`generator=` is taken, ignored, and the result is no more reproducible than before."""
    photos = torch.zeros(2, 3, CROP, CROP)
    ageing = Ageing(textures=textures)
    assert "keys" in inspect.signature(ageing).parameters
    for call in (
        lambda: Ageing(textures=textures, generator=torch.Generator()),  # type: ignore[call-arg]
        lambda: ageing(photos, generator=torch.Generator()),  # type: ignore[call-arg]
        lambda: AgedPairs(shards, generator=torch.Generator()),  # type: ignore[call-arg]
        lambda: Grain(generator=torch.Generator()),  # type: ignore[call-arg]
        lambda: Texture(generator=torch.Generator()),  # type: ignore[call-arg]
        lambda: Recipe(name="x", defects=(Grain(),), generator=None),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match="generator"):
            call()


def test_the_key_alone_decides_how_a_photograph_ages(textures):
    """Shuffling or splitting a batch changes how each picture in it is augmented."""
    photos = torch.linspace(0, 1, 6 * 3 * CROP * CROP).view(6, 3, CROP, CROP)
    keys = sample_keys(1, 2, torch.arange(6), torch.zeros(6, dtype=torch.int64))
    ageing = Ageing(textures=textures)
    together = ageing(photos, keys)
    for other in (ageing(photos.flip(0), keys.flip(0)), Ageing(textures=textures, seed=8)(
        photos.flip(0), keys.flip(0)
    )):  # fmt: skip
        assert all(torch.equal(a.flip(0), b) for a, b in zip(together, other, strict=True))
    for n in range(6):
        alone = ageing(photos[n : n + 1], keys[n : n + 1])
        assert all(torch.equal(a[n : n + 1], b) for a, b in zip(together, alone, strict=True))


def test_global_generators_are_neither_read_nor_moved_by_a_pass(elsewhere, open_pairs):
    """A loader in the background draws from the generators that the user has seeded."""
    # In another process: here the types are checked as well, and that draws from Python's.
    assert elsewhere[1] == "unmoved"
    passes: list[list[Batch]] = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        passes.append(list(open_pairs(ready_batches=2)))
    assert same(*passes)
