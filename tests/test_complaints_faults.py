"""What people complain of in other loaders, rows 9 to 18: devices, networks, damage, memory."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import CROP, SIZES, same, take
from faulty_server import Fault
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from agedphoto.datasets import ShardIndex, open_index
from agedphoto.datasets.index import Shard
from agedphoto.synth import Ageing

# Row 9: compiling breaks the graph, or compiles again and again.


COMPILED = """
import torch
from agedphoto.synth import Ageing, sample_keys
from agedphoto.textures import TextureBank

graphs = []

def count(graph, _):
    graphs.append(graph)
    return graph.forward

ageing = Ageing("seed", textures=TextureBank.synthesize(3, size_px=64))
compiled = torch.compile(
    lambda p, k: tuple(ageing(p, k)), fullgraph=True, dynamic=False, backend=count
)
photos = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
for step in range(50):
    keys = sample_keys(0, step, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    for ours, plain in zip(compiled(photos, keys), ageing(photos, keys), strict=True):
        assert torch.allclose(ours.float(), plain.float(), atol=1e-5)
print(len(graphs))
"""


def test_ageing_compiles_once_as_one_graph_and_stays_so():
    """Each of fifty batches with other keys runs the graph that the first one made.

    In a process of its own: here every function checks its types, which is no part of a graph.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


# Row 10: parameters are drawn on the host though everything is on the device.


class Copies(TorchDispatchMode):
    """Notes every tensor that is copied from one device to another, and reads by the host."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if "_local_scalar_dense" in name:
            self.noted.append(name)
        if "_to_copy" in name or "copy_" in name:
            devices = {t.device.type for t in (*args, out) if isinstance(t, torch.Tensor)}
            if len(devices) > 1:
                self.noted.append(f"{name}: {devices}")
        return out


def test_the_host_has_no_part_in_ageing_a_batch(textures, device):
    """No number goes from device to host, which would stall, and no picture from host to device."""
    ageing = Ageing("seed", textures=textures.to(device))
    photos = torch.randint(0, 256, (4, 3, CROP, CROP), dtype=torch.uint8, device=device)
    keys = torch.arange(4, device=device)
    ageing(photos, keys)
    with Copies() as copies:
        aged = ageing(photos, keys).aged
    assert copies.noted == []
    assert aged.device.type == device.type


# Row 11: a connection that breaks ends training, or loses data without a word.


def serve(server, shards: Path) -> str:
    server.files |= {f"/set/{path.name}": path for path in shards.iterdir()}
    return f"{server.url}/set"


def test_broken_connections_in_the_midst_of_an_epoch_change_nothing(open_pairs, shards, server):
    url = serve(server, shards)
    expected = list(open_pairs())
    source = open_pairs(url, deadline_s=20.0)
    for number in (1, 3, 4, 7):
        server.faults["/set/train-000000.tar"] += [Fault("none")] * number
        kinds = [Fault("drop", 100), Fault("status", 503), Fault("stall", 10, seconds=0.5)]
        server.faults["/set/train-000000.tar"].append(kinds[number % 3])
    assert same(list(source), expected)
    stats = source.stats()
    assert stats["retries"] >= 3
    assert stats["bad_photos"] == 0


# Row 12: one damaged sample kills the run, or vanishes.


def test_a_damaged_sample_is_counted_named_and_never_silent(open_pairs, shards):
    index = open_index(shards)
    tar = Path(index.url(0))
    data = bytearray(tar.read_bytes())
    data[int(index.offset[6]) + 30] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=r"photograph '0006' of .*: is damaged, its checksum"):
        list(open_pairs())
    for on_error, lost in (("skip", True), ("substitute", False)):
        source = open_pairs(on_error=on_error, last_batch="pad")
        valid = sum(int(batch.valid.sum()) for batch in source)
        assert valid == (len(SIZES) - lost) * 4
        assert list(source.bad) == ["0006"]
        assert source.stats()["bad_photos"] == 1


# Row 13: memory grows with the list of samples in every worker.


def test_a_large_index_has_no_python_object_for_each_sample():
    num = 100_000
    ones = np.ones(num, dtype=np.int64)
    strings = np.dtypes.StringDType()
    keys = np.char.mod("%07d", np.arange(num)).astype(strings)
    data = ShardIndex(
        root="here",
        shards=(Shard(name="train-000000.tar", split="train", bytes=1, sha256=""),),
        extensions=("j2c",),
        keys=keys,
        extension=0 * ones,
        shard=0 * ones,
        **dict.fromkeys(("offset", "size", "crc32", "height", "width"), ones),
    ).to_json()
    gc.collect()
    tracemalloc.start()
    before = len(gc.get_objects())
    index = ShardIndex.from_json("here", data).of_split("train")
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(gc.get_objects()) - before < 1000
    # Seven columns of eight bytes and sixteen of a key; a Python integer alone would be 28.
    assert taken < num * 110
    assert len(index) == num


# Row 14: what is killed leaves shared memory and locks behind; ranks wait for each other at ends.

RANK = """
import json, sys, time
from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank
shards, rank, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
pairs = AgedPairs(
    shards, crop_px=16, batch_size=4, crops_per_photo=4, seed=5, device="cpu", rank=rank,
    world_size=2, textures=TextureBank.synthesize(2, size_px=64), num_threads=1, ready_batches=1,
)
for epoch in range(3):
    for batch in pairs:
        time.sleep(pause)
    print(json.dumps(epoch), flush=True)
"""


def start_rank(shards: Path, rank: int, pause: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RANK, str(shards), str(rank), str(pause)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip


def shared_memory() -> set[Path]:
    place = Path("/dev/shm")
    return set(place.iterdir()) if place.exists() else set()


def test_a_killed_rank_leaves_nothing_and_a_fast_one_waits_for_nobody(shards):
    memory, files = shared_memory(), {path: path.read_bytes() for path in shards.iterdir()}
    slow, fast = start_rank(shards, 0, 5.0), start_rank(shards, 1, 0.0)
    try:
        said, errors = fast.communicate(timeout=60)
        assert (fast.returncode, errors) == (0, "")
        assert said.split() == ["0", "1", "2"]
        assert slow.poll() is None
    finally:
        os.killpg(slow.pid, signal.SIGKILL)
        slow.communicate()
    assert shared_memory() <= memory
    assert {path: path.read_bytes() for path in shards.iterdir()} == files
    again = start_rank(shards, 0, 0.0)
    said, errors = again.communicate(timeout=60)
    assert (again.returncode, errors, said.split()) == (0, "", ["0", "1", "2"])


# Rows 15 and 18, on a GPU: decoding races with other streams, and takes the CPU all the same.


@pytest.mark.gpu
def test_decoding_on_the_gpu_gives_the_pixels_of_the_cpu_while_memory_is_in_use(open_pairs, shards):
    """The user's stream fills and frees memory while photos are decoded on another."""
    small = {"pool_bytes": 3 * 8 * 22 * 24 * 3, "batch_size": 4, "mix_photos": 1}
    expected = [batch.to("cpu") for batch in take(open_pairs(device="cuda", decoder="cpu"), 100)]
    assert len(expected) == 100
    source = open_pairs(device="cuda", decoder="dali", **(small | {"batch_size": 8}))
    got = []
    while len(got) < 100:
        for batch in source:
            junk = [torch.full((1 << 20,), 255, dtype=torch.uint8, device="cuda") for _ in range(9)]
            got.append(batch.to("cpu"))
            del junk
            if len(got) == 100:
                break
    assert same(got, expected)


@pytest.mark.gpu
def test_decoding_on_the_gpu_takes_less_of_the_cpu(open_pairs, make_shards):
    large = make_shards([(1024, 1536)] * 24, name="large")
    spent = {}
    for decoder in ("cpu", "dali"):
        source = open_pairs(large, device="cuda", decoder=decoder, crop_px=256, batch_size=4)
        take(source, 20)
        stats = source.stats()
        spent[decoder] = stats["decode_cpu_s"] / stats["photos_decoded"]
    assert spent["dali"] < spent["cpu"]


def test_what_decoding_costs_the_cpu_is_told(open_pairs, make_shards):
    """Row 18 where there is no GPU: the seconds are those of the threads, and grow with photos."""
    large = make_shards([(256, 384)] * 12, name="large")
    begun = time.process_time()
    source = open_pairs(large, batch_size=4, crops_per_photo=1)
    seen = [0.0]
    for _ in source:
        seen.append(source.stats()["decode_cpu_s"])
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= time.process_time() - begun


# Row 16: a decoder in a worker process has no GPU, and forking with threads locks up.


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_a_worker_process_is_refused_at_once_and_nothing_hangs(open_pairs, context):
    source = open_pairs()
    begun = time.monotonic()
    next(iter(source))
    loader = DataLoader(
        source, batch_size=None, num_workers=2, multiprocessing_context=context, timeout=60
    )
    with pytest.raises(ValueError, match="num_workers=0"):
        list(loader)
    assert time.monotonic() - begun < 30


# Row 17: the first batch waits for whole shards, or for an index of all of them.


def test_the_first_batch_reads_the_index_and_a_few_photos(make_shards, open_pairs, server):
    many = make_shards(
        [(60 + n % 5, 70) for n in range(120)], name="many", shard_bytes=100_000, format="png"
    )
    url = serve(server, many)
    size = sum(path.stat().st_size for path in many.glob("*.tar"))
    source = open_pairs(url, batch_size=4, prefetch_batches=2, num_threads=2)
    next(iter(source))
    source.close()
    indexes = [path for _, path, _ in server.requests if path.endswith("index.json")]
    assert len(indexes) == 1
    assert all(wanted for _, path, wanted in server.requests if path.endswith(".tar"))
    assert source.stats()["bytes_read"] < 0.25 * size + (many / "index.json").stat().st_size


def test_a_state_says_nothing_of_ranks_or_machines(open_pairs):
    """Whatever may be different after a restart is not in it."""
    said = json.dumps(open_pairs(ready_batches=1, num_threads=1).state_dict())
    other = open_pairs(batch_size=4, rank=1, world_size=2, num_threads=2, prefetch_batches=3)
    assert json.dumps(other.state_dict()) == said
