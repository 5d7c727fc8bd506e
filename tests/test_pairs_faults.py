"""Aged pairs when things go wrong: damaged photos, vanished shards, errors in threads, Ctrl-C."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import SIZES, joined, same, take
from torch.utils.data import DataLoader

from agedphoto.datasets import AgedPairs, ShardIndex, open_index


def damage(shards: Path, *samples: int) -> None:
    """Flip a byte in the midst of some photographs."""
    index = open_index(shards)
    for sample in samples:
        path = Path(index.url(int(index.shard[sample])))
        data = bytearray(path.read_bytes())
        data[index.offset[sample] + index.size[sample] // 2] ^= 0xFF
        path.write_bytes(data)


def epoch_of(source: AgedPairs) -> dict[int, tuple]:
    """Everything of an epoch by key."""
    return {
        key: (photo, valid, aged, clean)
        for batch in source
        for key, photo, valid, aged, clean in zip(
            batch.keys.tolist(), batch.photos, batch.valid.tolist(), batch.aged, batch.clean,
            strict=True,
        )
    }  # fmt: skip


def test_a_skipped_photo_is_black_and_not_valid_and_the_rest_is_as_ever(open_pairs, shards):
    whole = epoch_of(open_pairs())
    damage(shards, 3, 9)
    source = open_pairs(on_error="skip")
    for key, (photo, valid, aged, clean) in epoch_of(source).items():
        expected = whole[key]
        if expected[0] in (3, 9):
            assert (photo, valid) == (-1, False)
            assert float(clean.max()) == 0
        else:
            assert (photo, valid) == expected[:2]
            assert torch.equal(aged, expected[2])
    assert sorted(source.bad) == ["0003", "0009"]
    assert "photograph '0003' of" in source.bad["0003"]
    assert source.stats()["bad_photos"] == 2


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_next_good_photo_stands_in_on_any_number_of_ranks(open_pairs, shards, world_size):
    alone = open_pairs(on_error="substitute")
    damage(shards, 3, 4, 13)
    expected = list(alone)
    ranks = [
        open_pairs(on_error="substitute", batch_size=8 // world_size, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    parts = zip(*map(list, ranks), strict=True)
    assert same([joined(part) for part in parts], expected)
    seen = {photo for batch in expected for photo in batch.photos}
    assert seen == set(range(len(SIZES))) - {3, 4, 13}
    assert all(bool(batch.valid.all()) for batch in expected)
    bad = {key for source in ranks for key in source.bad}
    assert bad == {"0003", "0004", "0013"} == set(alone.bad)


def test_what_stands_in_is_cut_from_the_right_photo(open_pairs, shards):
    damage(shards, 3)
    source = open_pairs(on_error="substitute", mode="color", recipe="seed", augment=False)
    index = open_index(shards)
    stand_in = index.read(4).astype(np.float32) / 255
    found = 0
    whole = {key for key, entry in epoch_of(open_pairs(on_error="skip")).items() if not entry[1]}
    for key, (photo, _, _, clean) in epoch_of(source).items():
        if key in whole:
            assert photo == 4
            values = set(np.round(stand_in.reshape(-1), 5).tolist())
            assert set(np.round(clean.numpy().reshape(-1), 5).tolist()) <= values
            found += 1
    assert found >= 3


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_more_bad_photos_than_allowed_stop_the_loop(open_pairs, shards, on_error):
    damage(shards, 1, 5, 7)
    source = open_pairs(on_error=on_error, max_bad=2)
    with pytest.raises(ValueError, match=r"3 photos are bad, max_bad is 2; the last: photograph"):
        list(source)


@pytest.mark.parametrize("ready_batches", [0, 2])
def test_a_truncated_shard_is_named(open_pairs, shards, ready_batches):
    tar = shards / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"train-000000.tar: \d+ of \d+ bytes are there"):
        list(open_pairs(ready_batches=ready_batches))
    source = open_pairs(on_error="skip", ready_batches=ready_batches)
    good = sum(int(batch.valid.sum()) for batch in source)
    assert 0 < good < len(SIZES) * 4
    assert len(source.bad) >= len(SIZES) // 2 - 1


@pytest.mark.parametrize("ready_batches", [0, 2])
def test_a_shard_that_vanishes_while_training_is_named_within_a_second(
    open_pairs, shards, ready_batches
):
    # The pool holds half of the set, so that reading goes on.
    largest = sorted(3 * h * w for h, w in SIZES)
    source = open_pairs(
        batch_size=2, mix_photos=1, prefetch_batches=1, pool_bytes=sum(largest[-6:]),
        ready_batches=ready_batches, crops_per_photo=1,
    )  # fmt: skip
    batches = iter(source)
    next(batches)
    (shards / "train-000000.tar").unlink()
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"photograph '\d+' of .*train-000000.tar: cannot be read"):
        list(batches)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("ready_batches", [0, 1, 3])
def test_an_error_in_any_thread_reaches_the_loop_within_a_second(
    open_pairs, monkeypatch, ready_batches
):
    source = open_pairs(ready_batches=ready_batches)
    reading = threading.Event()

    def fail(*_):
        reading.set()
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(ShardIndex, "read_bytes", fail)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"photograph '\d+' of .*: a fault of ours"):
        list(source)
    assert time.monotonic() - begun < 1
    assert reading.is_set()


@pytest.mark.parametrize("ready_batches", [0, 2])
def test_closing_in_the_midst_of_a_pass_ends_it_with_an_error(open_pairs, ready_batches):
    source = open_pairs(ready_batches=ready_batches)
    batches = iter(source)
    next(batches)
    source.close()
    with pytest.raises(ValueError, match="closed"):
        list(batches)
    with pytest.raises(ValueError, match="these pairs are closed; open new ones"):
        next(iter(source))


def test_making_ahead_changes_nothing(open_pairs):
    expected = take(open_pairs(), 20)
    source = open_pairs(ready_batches=3)
    assert same(take(source, 20), expected)
    state = source.state_dict()
    # Counted is what was handed out, not what was made.
    assert (state["epoch"], state["samples"]) == (20 // 7, 20 % 7 * 8)


def test_a_data_loader_hands_the_batches_through(open_pairs):
    loader = DataLoader(open_pairs(), batch_size=None)
    assert len(loader) == 7
    assert same(list(loader), list(open_pairs()))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_are_refused(open_pairs, context):
    loader = DataLoader(
        open_pairs(), batch_size=None, num_workers=1, multiprocessing_context=context
    )
    with pytest.raises(ValueError, match="num_workers=0"):
        list(loader)


def test_pairs_cannot_be_sent_to_another_process(open_pairs):
    with pytest.raises(ValueError, match="cannot be sent to another; open it there"):
        pickle.dumps(open_pairs())


INTERRUPTED = """
import sys, threading, time
from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank
pairs = AgedPairs(
    sys.argv[1], crop_px=16, batch_size=4, device="cpu", ready_batches=int(sys.argv[2]),
    textures=TextureBank.synthesize(2, size_px=64), rank=0, world_size=1, crops_per_photo=2,
)
try:
    while True:
        for batch in pairs:
            print("batch", flush=True)
            time.sleep(0.05)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    if sys.argv[3] == "close":
        pairs.close()
        time.sleep(0.1)
        names = {t.name for t in threading.enumerate()} - {"tqdm_monitor"}
        print("threads", sorted(names), flush=True)
"""


@pytest.mark.parametrize("ready_batches", [0, 2])
@pytest.mark.parametrize("ending", ["close", "leave"])
def test_control_c_leaves_nothing_behind(shards, tmp_path, ready_batches, ending):
    memory = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(shards), str(ready_batches), ending],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        said, errors = process.communicate(timeout=30)
        assert time.monotonic() - begun < 5
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (0, "")
    assert "interrupted" in said
    if ending == "close":
        assert "threads ['MainThread']" in said
    # Nobody is left of its session, nor any shared memory.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    if memory:
        assert set(Path("/dev/shm").iterdir()) <= memory


@pytest.mark.parametrize("ready_batches", [0, 2])
def test_closing_from_another_thread_says_so(open_pairs, monkeypatch, ready_batches):
    read, reading = ShardIndex.read_bytes, threading.Event()

    def slowly(index, sample, *more):
        reading.set()
        time.sleep(0.2)
        return read(index, sample, *more)

    monkeypatch.setattr(ShardIndex, "read_bytes", slowly)
    source = open_pairs(ready_batches=ready_batches, num_threads=1)
    closing = threading.Thread(target=lambda: (reading.wait(5), source.close()))
    closing.start()
    with pytest.raises(ValueError, match="these pairs were closed while they were being used"):
        list(source)
    closing.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(open_pairs):
    source = open_pairs()
    next(iter(source))
    child = os.fork()
    if not child:
        try:
            next(iter(source))
            os._exit(1)
        except ValueError as error:
            os._exit(0 if "opened in another process" in str(error) else 2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("ready_batches", [0, 2])
def test_inference_mode_makes_no_difference(open_pairs, ready_batches):
    expected = list(open_pairs())
    with torch.inference_mode():
        source = open_pairs(ready_batches=ready_batches)
        inside = list(source)
    assert same(inside, expected)
    assert same(take(source, 7), take(open_pairs(), 14)[7:])
    assert not inside[0].aged.is_inference()


def test_a_place_that_is_set_during_a_pass_stays(open_pairs):
    source = open_pairs()
    batches = iter(source)
    next(batches)
    source.set_epoch(7)
    next(batches)
    assert source.state_dict()["epoch"] == 7
    fresh = open_pairs()
    fresh.set_epoch(7)
    assert same(list(source), list(fresh))


def test_a_default_device_has_no_say_in_the_order(open_pairs):
    expected = take(open_pairs(), 3)
    with torch.device("meta"):
        source = open_pairs()
        got = [batch.photos for batch in take(source, 3)]
    assert got == [batch.photos for batch in expected]


def test_a_large_photo_among_small_ones_fits_where_it_is_said_to(make_shards, open_pairs):
    """With just the memory that the message asks for, training goes through."""
    odd = make_shards([(20, 20)] * 30 + [(60, 60)] + [(20, 20)] * 30, name="odd", format="png")
    options = {"batch_size": 2, "crops_per_photo": 2, "mix_photos": 1}
    with pytest.raises(ValueError, match="need up to") as caught:
        open_pairs(odd, pool_bytes=1, **options)
    least = int(str(caught.value).partition("up to ")[2].partition(";")[0].replace(",", ""))
    source = open_pairs(odd, pool_bytes=least, **options)
    assert len(take(source, 3 * len(source))) == 3 * len(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix_photos": 1.5}, "mix_photos must be a whole number of at least 1, got 1.5"),
        ({"crops_per_photo": "4"}, "crops_per_photo must be a whole number of at least 1, got '4'"),
        ({"batch_size": 8.0}, "batch_size must be a whole number of at least 1, got 8.0"),
        ({"pool_bytes": "big"}, "pool_bytes must be a whole number"),
        ({"cache_bytes": -1}, "cache_bytes must be a whole number of at least 0, got -1"),
        ({"dtype": "float32"}, "dtype must be a floating-point type of torch, got 'float32'"),
        ({"dtype": torch.uint8}, "dtype must be a floating-point type"),
        ({"mix_photos": 10**9}, "mix_photos x crops_per_photo must be at most 65,536"),
    ],
)
def test_numbers_that_are_none_are_refused(open_pairs, options, message):
    with pytest.raises(ValueError, match=message):
        open_pairs(**options)
