"""What users of other loaders complain about, and that it does not happen here: rows 9 to 18, about
compilers, copies, networks, damage, memory, hangs and GPUs. Rows 1 to 8 are in
test_complaints_order.py."""

import gc
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from batches import CROP, SIZES, same, take, tensors
from faulty_server import Fault, FaultyServer, wait_until
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from agedphoto.datasets import AgedPairs, Order, PhotoPool, ShardIndex, open_index
from agedphoto.datasets.cpu import CpuDecoder
from agedphoto.datasets.dali import dali_problem
from agedphoto.datasets.index import UNKNOWN_CRC32
from agedphoto.datasets.maker import BatchMaker, PhotoSizes
from agedphoto.datasets.ranges import RangeReader
from agedphoto.synth import Ageing, Augment, sample_keys
from agedphoto.textures import TextureBank

SHARED_MEMORY = Path("/dev/shm")

QUIET = {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}


def needs_dali(device: str) -> pytest.MarkDecorator:
    problem = dali_problem(torch.device(device))
    return pytest.mark.skipif(problem is not None, reason=f"needs DALI: {problem}")


def serve(server: FaultyServer, shards: Path) -> str:
    """Put shards on the server; return their URL."""
    server.files |= {f"/set/{path.name}": path for path in shards.iterdir()}
    return f"{server.url}/set"


def damage(shards: Path, *samples: int) -> None:
    """Flip a byte in the midst of some photographs."""
    index = open_index(shards)
    for sample in samples:
        with Path(index.url(int(index.shard[sample]))).open("r+b") as file:
            file.seek(int(index.offset[sample] + index.size[sample] // 2))
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0xFF]))


def shared_memory() -> set[Path]:
    return set(SHARED_MEMORY.iterdir()) if SHARED_MEMORY.exists() else set()


# Row 9: torch.compile breaks the graph, or compiles anew at every step.

# In another process: here the types are checked as well, which no compiler can follow.
COMPILED = """
import sys
import torch
from torch._dynamo.utils import counters
from agedphoto.datasets import AgedPairs
from agedphoto.synth import Ageing, Augment, sample_keys
from agedphoto.textures import TextureBank

source, backend, device = sys.argv[1:]
device = torch.device(device)
textures = TextureBank.synthesize(3, size_px=64)
graphs = []

def counting(graph, inputs):
    graphs.append(graph)
    if backend == "eager":
        return graph
    from torch._inductor.compile_fx import compile_fx
    return compile_fx(graph, inputs)

ageing = Ageing("seed", mode="lab", textures=textures)
compiled = torch.compile(
    lambda photos, keys: ageing(photos, keys), fullgraph=True, dynamic=False, backend=counting
)
# It settles where the textures lie, before there is anything to compile.
ageing.textures_on(torch.empty(0, device=device).device)
for step in range(50):
    photos = torch.full((4, 3, 64, 64), step, dtype=torch.uint8, device=device)
    samples = torch.arange(4, device=device)
    keys = sample_keys(0, step, samples, torch.zeros_like(samples))
    aged, clean, mask = compiled(photos, keys)
    for made, expected in zip((aged, clean), ageing(photos, keys)[:2], strict=True):
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
print(len(graphs), len(counters["graph_break"]))

# A step that is compiled sees one shape only, over the end of an epoch with its last batch too.
graphs.clear()
net = torch.nn.Conv2d(1, 1, 3, padding=1, device=device)
step = torch.compile(
    lambda batch: (net(batch.aged) - batch.clean).square().mean(), fullgraph=True, backend=counting
)
with AgedPairs(
    source, crop_px=16, batch_size=10, crops_per_photo=4, device=device, last_batch="pad",
    textures=textures, num_threads=1, rank=0, world_size=1,
) as pairs:
    steps = 0
    while steps < 50:
        for batch in pairs:
            assert torch.isfinite(step(batch))
            steps += 1
print(len(graphs), len(counters["graph_break"]), len(counters["recompiles"]))
"""


def run_compiled(shards: Path, backend: str, device: str) -> tuple[list[str], str]:
    process = subprocess.run(
        [sys.executable, "-c", COMPILED, str(shards), backend, device],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | QUIET,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout.split("\n"), process.stderr


def test_fifty_compiled_steps_are_one_graph(shards):
    """Augmentations cannot be compiled whole, and compile again at every other call."""
    assert run_compiled(shards, "eager", "cpu") == (["1 0", "1 0 0", ""], "")


@pytest.mark.gpu
@pytest.mark.slow
def test_fifty_steps_compiled_for_a_gpu_are_one_graph_that_runs(shards):
    """What is compiled reads memory that is not its own."""
    assert run_compiled(shards, "inductor", "cuda")[0] == ["1 0", "1 0 0", ""]


# Row 10: augmentations draw on the CPU although the pictures are on the GPU.


class Crossings(TorchDispatchMode):
    """Notes on which devices tensors are made, and what is copied from one to another."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: set[str] = set()
        self.copied: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        for tensor in (t for t in tree_leaves(made) if isinstance(t, torch.Tensor)):
            self.devices.add(tensor.device.type)
            if any(other.device.type != tensor.device.type for other in given):
                self.copied.append(tensor)
        return made


@pytest.mark.parametrize("mode", ["grayscale", "rgb", "lab", "color"])
def test_ageing_on_a_gpu_draws_there_and_copies_nothing(mode, monkeypatch):
    """Parameters and noise are drawn on the CPU and copied at every step."""
    # Kernels of Triton's cannot run without memory; their draws take a key and nothing else.
    monkeypatch.setattr("agedphoto.synth.philox_triton.HAS_TRITON", False)
    textures, gpu = TextureBank.synthesize(2, size_px=64), torch.device("cuda", 0)
    # Fake tensors know their device and have no memory: no GPU is needed, and to ask one for a
    # number, as a copy to the host would, is an error.
    with FakeTensorMode(allow_non_fake_inputs=True):
        ageing = Ageing("seed", mode=mode, textures=textures, backend="eager")
        photos = torch.empty(4, 3, 32, 32, dtype=torch.uint8, device=gpu)
        keys = torch.empty(4, dtype=torch.int64, device=gpu)
        # The first call brings the textures there.
        ageing(photos, keys)
        with Crossings() as crossings:
            aged = ageing(photos, keys)
    assert {tensor.device for tensor in aged} == {gpu}
    assert crossings.devices == {"cuda"}
    assert crossings.copied == []


@pytest.mark.parametrize("side", [16, 64])
def test_a_batch_out_of_a_pool_on_a_device_takes_a_few_numbers_there_and_none_back(side):
    """Pictures go to and fro between host and device at every step."""
    meta, num = torch.device("meta"), 6
    sizes = PhotoSizes(numbers=np.arange(num), height=np.full(num, 70), width=np.arange(num) + 64)
    pool = PhotoPool(int(sizes.bytes.sum()), device=meta)
    for photo in range(num):
        pool.put(photo, torch.zeros(70, 64 + photo, 3, dtype=torch.uint8))

    class Unaged:
        seed, augment = 5, Augment()

        def turn_to(self, epoch: int) -> None:
            pass

        def backend_on(self, device: torch.device) -> str:
            return "eager"

        def __call__(
            self, photos: torch.Tensor, keys: torch.Tensor, *, margin_px: int, move: bool
        ) -> tuple[torch.Tensor, ...]:
            assert (margin_px, move) == (0, False)
            assert keys.device == photos.device == meta
            return photos, photos, photos[:, :1] > 0

    maker = BatchMaker(pool, Unaged(), sizes=sizes, view="crop", side_px=side, device=meta)  # type: ignore[arg-type]
    plan = Order(num_photos=num, crops_per_photo=4, global_batch=8).epoch(
        0, first_lane=0, num_lanes=8
    )
    for number in range(3):
        # A tensor of this device holds nothing, so reading any of it back would be an error.
        with Crossings() as crossings:
            batch = maker.make(0, plan.batch(number), {photo: photo for photo in range(num)})
        assert batch.aged.device == meta
        assert all(tensor.device == meta for tensor in crossings.copied)
        # Key, turn and validity of each pair; no pixel, and nothing that ageing draws.
        assert sum(tensor.nbytes for tensor in crossings.copied) <= 8 * (8 + 8 + 1)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_ageing_never_waits_for_the_gpu(textures):
    """Hidden copies make the host wait for the device at every step."""
    ageing = Ageing("seed", textures=textures)
    photos = torch.zeros(4, 3, 64, 64, dtype=torch.uint8, device="cuda")
    keys = sample_keys(0, 0, torch.arange(4), torch.zeros(4, dtype=torch.int64)).cuda()
    ageing(photos, keys)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with Crossings() as crossings:
            aged, _, _ = ageing(photos, keys)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert crossings.devices == {"cuda"}
    assert float(aged.std()) > 0


# Row 11: a connection breaks, and with it training, or data is lost without a word.


def test_pairs_over_a_network_that_breaks_and_stalls_are_those_of_the_disk(
    open_pairs, shards, server: FaultyServer
):
    """A broken pipe in the middle of an epoch ends the run or loses the rest of a shard."""
    expected = take(open_pairs(), 10)
    url = serve(server, shards)
    well = Fault("none")
    server.faults["/set/train-000000.tar"] = [
        well, well, Fault("drop", 100), well, Fault("stall", 50, seconds=30), Fault("status", 503),
        well, Fault("drop", 0), Fault("flip", 20),
    ]  # fmt: skip
    server.faults["/set/index.json"] = [Fault("drop", 200)]
    source = open_pairs(url, deadline_s=3)
    assert same(take(source, 10), expected)
    stats = source.stats()
    # The flipped byte is no failure of the network: it is read once more, past retries.
    assert stats["retries"] == 5
    assert stats["bad_photos"] == 0
    assert not any(server.faults.values())


def test_a_network_that_is_gone_for_good_ends_the_loop_in_time_and_is_named(
    open_pairs, shards, server: FaultyServer
):
    """Downloads have no deadline, and hang for ever."""
    source = open_pairs(serve(server, shards), deadline_s=1, prefetch_batches=1, num_threads=1)
    batches = iter(source)
    next(batches)
    tar = "/set/train-000000.tar"
    server.faults[tar] = [Fault("stall", 10, seconds=60)] * 50
    begun = time.monotonic()
    with pytest.raises(OSError, match=rf"photograph '\d+' of {server.url}{tar}: .* within 1 s"):
        list(batches)
    assert time.monotonic() - begun < 4


def test_a_shard_cut_where_a_tar_could_end_is_never_taken_for_a_smaller_one(open_pairs, shards):
    """A truncated tar reads as one with fewer samples, and nobody is told."""
    tar, index = shards / "train-000000.tar", open_index(shards)
    with tarfile.open(tar) as whole:
        end = next(member.offset for member in whole if member.name.startswith("0007."))
    tar.write_bytes(tar.read_bytes()[:end])
    with tarfile.open(tar) as cut:
        assert {member.name[:4] for member in cut} == {f"{n:04d}" for n in range(7)}
    assert len(index) == len(SIZES)
    with pytest.raises(ValueError, match=r"photograph '0\d+' of .*train-000000.tar: 0 of \d+ byt"):
        list(open_pairs())


# Row 12: one bad photograph ends the run, or vanishes unseen, or leaks.


@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute"])
@pytest.mark.parametrize("format", ["htj2k", "jpeg"])
def test_one_bad_photo_is_named_and_costs_nothing_but_itself(
    open_pairs, make_shards, on_error, format
):
    """One truncated picture fails the batch and all after it, or disappears."""
    bad = make_shards(SIZES, name="bad", format=format)
    expected = list(open_pairs(bad))
    whole = (bad / "train-000000.tar").read_bytes()
    damage(bad, 5)
    source, got = open_pairs(bad, on_error=on_error), []
    if on_error == "raise":
        with pytest.raises(ValueError, match=r"photograph '0005' of .*train-000000.tar: is damag"):
            got.extend(source)
        state = json.loads(json.dumps(source.state_dict()))
        got = take(open_pairs(bad, on_error="skip"), state["samples"] // 8)
        assert all(bool(batch.valid.all()) for batch in got)
        # Mended, the same object goes on with the batch that failed. In one go: what is looked
        # ahead for is being read.
        (bad / "mended").write_bytes(whole)
        (bad / "mended").replace(bad / "train-000000.tar")
        source.load_state_dict(state)
        assert same([*got, *source], expected)
        return
    got = list(source)
    assert list(source.bad) == ["0005"]
    assert source.stats()["bad_photos"] == 1
    for batch, right in zip(got, expected, strict=True):
        assert torch.equal(batch.keys, right.keys)
        others = torch.tensor([photo != 5 for photo in right.photos])
        assert torch.equal(batch.aged[others], right.aged[others])
        stand_in = -1 if on_error == "skip" else 6
        assert batch.photos == tuple(stand_in if n == 5 else n for n in right.photos)
        assert torch.equal(batch.valid, others if on_error == "skip" else right.valid)
    with pytest.raises(ValueError, match="1 photos are bad, max_bad is 0; the last: photograph"):
        list(open_pairs(bad, on_error=on_error, max_bad=0))


@pytest.fixture
def truncated(make_shards):
    """Return a function that makes an index of truncated photos, as somebody packed them: there is
    no checksum, so it is for the decoder to see it."""

    def make(format: str) -> ShardIndex:
        whole = open_index(make_shards([(256, 256)] * 2, name="cut", format=format))
        unknown = np.full_like(whole.crc32, UNKNOWN_CRC32)
        return replace(whole, size=whole.size // 2, crc32=unknown)

    return make


@pytest.mark.parametrize("format", ["htj2k", "jpeg", "png", "webp"])
def test_half_a_photo_is_bad_and_never_a_photo_that_is_half_gray(truncated, format):
    """What was cut short before it was packed is trained on, and nobody is told."""
    decoder = CpuDecoder(truncated(format), RangeReader(), num_threads=1)
    with pytest.raises(ValueError, match=r"photograph '0000' of .*cut.*: "):
        decoder.submit(0).result(10)
    decoder.close()


@pytest.mark.parametrize("format", ["htj2k", "jpeg", "png", "webp"])
def test_bad_photos_leak_nothing(truncated, format):
    """Every picture that cannot be decoded leaves its memory behind."""
    decoder = CpuDecoder(truncated(format), RangeReader(), num_threads=2)

    def resident_after(count: int) -> int:
        for sample in range(count):
            decoder.submit(sample % 2).exception(10)
        gc.collect()
        return psutil.Process().memory_info().rss

    before = resident_after(50)
    # Each is 98 kB when half decoded; all of them would be 20 MB.
    assert resident_after(200) - before < 6e6
    decoder.close()


# Row 13: memory grows with every sample of the index, and in every worker.


def test_the_index_is_no_python_object_per_photo(make_shards, textures):
    """Lists of names are copied into every worker, as soon as one counts a reference."""
    shards, num = make_shards([(20, 24)], name="large"), 100_000
    one = open_index(shards)
    many = one.select(np.zeros(num, dtype=np.int64))
    keys = np.array([f"a-rather-long-name-of-a-photo-{n:06d}" for n in range(num)], one.keys.dtype)
    (shards / "index.json").write_bytes(replace(many, keys=keys).to_json())
    del one, many, keys

    def opened() -> AgedPairs:
        return AgedPairs(
            shards, crop_px=CROP, batch_size=4, device="cpu", pool_bytes=1_000_000, rank=0,
            world_size=1, textures=textures, num_threads=1, prefetch_batches=1,
        )  # fmt: skip

    opened().close()
    gc.collect()
    # Blocks of Python's allocator: every str, int and tuple is one at least.
    before = sys.getallocatedblocks()
    index = open_index(shards).of_split("train")
    gc.collect()
    assert len(index) == num
    assert sys.getallocatedblocks() - before < 1000
    with opened() as source:
        take(source, 3)
        gc.collect()
        assert source.num_photos == num
        assert sys.getallocatedblocks() - before < 5000


@pytest.mark.parametrize("ready_batches", [0, 2])
def test_epochs_leave_no_objects_behind(make_shards, open_pairs, ready_batches):
    """What the loader remembers of every sample adds up over the epochs."""
    many = make_shards([(16 + n % 3, 18) for n in range(40)], name="many", format="png")
    source = open_pairs(
        many, batch_size=4, crops_per_photo=2, mix_photos=1, prefetch_batches=2,
        ready_batches=ready_batches, pool_bytes=20 * 18 * 18 * 3,
    )  # fmt: skip

    def blocks(epochs: int) -> int:
        for _ in range(epochs):
            for _ in source:
                pass
        gc.collect()
        return sys.getallocatedblocks()

    before = blocks(3)
    # Eight epochs are 640 pairs, and about 320 photos decoded.
    assert blocks(8) - before < 300
    assert source.stats()["photos_decoded"] > 11 * 40 * 0.6


# Row 14: deadlocks at the end of an epoch, and shared memory or locks that outlive their process.

RANK = """
import json, sys
from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank
source, cache, waits = sys.argv[1:]
keys = []
with AgedPairs(
    source, crop_px=16, batch_size=4, crops_per_photo=3, seed=5, device="cpu", num_threads=1,
    textures=TextureBank.synthesize(2, size_px=64), ready_batches=2, cache_dir=cache,
) as pairs:
    for epoch in range(2):
        for batch in pairs:
            if not keys:
                print("first", flush=True)
            keys += batch.keys.tolist()
            if waits == "waits":
                sys.stdin.readline()
                waits = ""
print(json.dumps(keys), flush=True)
"""


@pytest.fixture
def start_rank(tmp_path):
    """Return a function that starts a rank in a process of its own; all are ended in the end."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(source: object, rank: int, waits: bool) -> "subprocess.Popen[str]":
        environment = {"RANK": str(rank), "WORLD_SIZE": "2", "TMPDIR": str(tmp_path / "tmp")}
        process = subprocess.Popen(
            [
                sys.executable, "-c", RANK, str(source), str(tmp_path / "cache"),
                "waits" if waits else "",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | QUIET | environment,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_slow_rank_is_not_waited_for_and_a_killed_one_leaves_nothing(
    open_pairs, shards, server: FaultyServer, tmp_path, start_rank
):
    """At the end of an epoch ranks wait for each other for ever; after a kill, the next run finds
    the shared memory and the locks of the last."""
    url = serve(server, shards)
    shared, files = shared_memory(), sorted(shards.iterdir())
    fast, slow = start_rank(url, 0, waits=False), start_rank(url, 1, waits=True)
    assert slow.stdout.readline() == "first\n"
    # The slow one stands in its first epoch, the fast one goes through two.
    said, errors = fast.communicate(timeout=30)
    assert (fast.returncode, errors) == (0, "")
    assert slow.poll() is None
    slow.send_signal(signal.SIGKILL)
    slow.wait(10)
    assert shared_memory() <= shared
    assert sorted(shards.iterdir()) == files
    assert list((tmp_path / "tmp").iterdir()) == []
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert left
    assert all(re.fullmatch(r"\.?[0-9a-f]{64}\.range(\.[0-9a-f]{8}\.part)?", n) for n in left)

    # Once more, over what the killed one has left.
    first = json.loads(said.partition("\n")[2])
    again = open_pairs(
        url, rank=1, world_size=2, batch_size=4, crops_per_photo=3, cache_dir=tmp_path / "cache"
    )
    second = [key for batch in take(again, 10) for key in batch.keys.tolist()]
    assert again.stats()["cache_hits"] > 0
    assert len(first) == len(second) == 10 * 4
    alone = take(open_pairs(batch_size=8, crops_per_photo=3), 10)
    assert sorted(first + second) == sorted(k for batch in alone for k in batch.keys.tolist())


# Row 15: the GPU's decoder writes into memory that somebody else is using.


@pytest.mark.parametrize("decoder", ["cpu", pytest.param("dali", marks=needs_dali("cpu"))])
def test_batches_do_not_change_after_they_were_handed_out(make_shards, open_pairs, decoder):
    """Buffers are used again for the next pictures while the last ones are still in use."""
    many = make_shards([(16 + n % 3, 18 + n % 5) for n in range(40)], name="many")
    options = {"batch_size": 4, "crops_per_photo": 2, "mix_photos": 1, "mode": "color"}
    expected = take(open_pairs(many, **options), 30)
    source = open_pairs(
        many, decoder=decoder, pool_bytes=20 * 18 * 22 * 3, prefetch_batches=2, ready_batches=2,
        **options,
    )  # fmt: skip
    handed_out, copies = [], []
    for batch in take(source, 30):
        handed_out.append(batch)
        copies.append([tensor.clone() for tensor in tensors(batch)])
    assert same(handed_out, expected)
    for batch, copy in zip(handed_out, copies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(batch), copy, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", ["cpu", pytest.param("dali", marks=needs_dali("cuda"))])
@pytest.mark.parametrize("format", ["htj2k", "jpeg"])
def test_pictures_on_a_gpu_are_right_while_freed_memory_is_poisoned(
    make_shards, open_pairs, decoder, format
):
    """The decoding engine heeds no stream order, and overwrites blocks that were freed and taken
    again, or is overwritten."""
    many = make_shards([(256 + 16 * (n % 3), 320) for n in range(32)], name="many", format=format)
    options = {
        "batch_size": 4, "crops_per_photo": 2, "mix_photos": 1, "mode": "color", "crop_px": 128,
    }  # fmt: skip
    expected = take(open_pairs(many, **options), 32)
    source = open_pairs(
        many, decoder=decoder, device="cuda", pool_bytes=20 * 288 * 320 * 3, ready_batches=2,
        prefetch_batches=2, **options,
    )  # fmt: skip
    poison, using = torch.cuda.Stream(), torch.cuda.Stream()
    got: list[torch.Tensor] = []
    sizes = [128 * 128 * 12, 256 * 320 * 3, 272 * 320 * 3, 288 * 320 * 3]
    with torch.cuda.stream(using):
        for batch in (batch for _ in range(2) for batch in source):
            got.append(batch.clean.clone())
            # What is let go of here is soon somebody else's.
            del batch
            with torch.cuda.stream(poison):
                for size in sizes:
                    torch.empty(size, dtype=torch.uint8, device="cuda").fill_(0xA5)
    torch.cuda.synchronize()
    # JPEG may differ by the rounding of its transform.
    most = 0.0 if format == "htj2k" or decoder == "cpu" else 6 / 255
    for clean, batch in zip(got, expected, strict=True):
        assert float((clean.cpu() - batch.clean).abs().max()) <= most + 1e-6


# Row 16: forked workers deadlock, or cannot use the GPU's decoder.


class Photos(Dataset):
    """What users write who have a loader of their own."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(self.index.read(number))


def keys_in_a_child(source: AgedPairs, answers: Any) -> None:
    try:
        answers.put([batch.keys.tolist() for batch in source])
    except ValueError as error:
        answers.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_of_somebody_else_and_open_pairs_do_not_disturb_each_other(
    open_pairs, shards
):
    """A process with threads is forked, and parent or child stand still."""
    expected = list(open_pairs())
    source = open_pairs(ready_batches=2)
    batches = iter(source)
    got = [next(batches)]
    index = open_index(shards)
    loader = DataLoader(
        Photos(index), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for number, photo in enumerate(loader):
        np.testing.assert_array_equal(photo.numpy(), index.read(number))
    assert same([*got, *batches], expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("ready_batches", [0, 2])
def test_pairs_that_were_forked_while_decoding_answer_or_refuse_but_never_hang(
    open_pairs, monkeypatch, ready_batches
):
    """The child waits for threads, and for locks, that were left behind in the parent."""
    expected = [batch.keys.tolist() for batch in open_pairs()]
    source = open_pairs(ready_batches=ready_batches)
    reading, go_on = threading.Event(), threading.Event()
    read = ShardIndex.read_bytes
    parent = os.getpid()

    def slowly(*arguments: Any) -> bytes:
        if os.getpid() == parent:
            reading.set()
            go_on.wait(30)
        return read(*arguments)

    monkeypatch.setattr(ShardIndex, "read_bytes", slowly)
    got: list[Any] = []
    using = threading.Thread(target=lambda: got.extend(source))
    using.start()
    assert reading.wait(10)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=keys_in_a_child, args=(source, answers))
    child.start()
    go_on.set()
    using.join(20)
    hangs = not wait_until(lambda: not answers.empty(), 5)
    answer = None if hangs else answers.get()
    child.kill()
    child.join()
    assert [batch.keys.tolist() for batch in got] == expected
    assert not hangs
    assert answer == expected or "another process" in str(answer)


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_a_worker_process_is_refused_at_once_with_what_to_do(open_pairs, context):
    """Decoders start in a worker, where they have no GPU, and are waited for until the timeout."""
    source = open_pairs(ready_batches=2)
    next(iter(source))
    loader = DataLoader(
        source, batch_size=None, num_workers=2, multiprocessing_context=context, timeout=30
    )
    begun = time.monotonic()
    with pytest.raises(ValueError, match="num_workers=0"):
        list(loader)
    assert time.monotonic() - begun < 10


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_pairs_on_a_gpu_go_on_beside_forked_workers_and_refuse_to_be_one(open_pairs, shards):
    """A worker process cannot initialise the GPU, or decodes on it and hangs."""
    expected = [batch.keys.tolist() for batch in open_pairs()]
    source = open_pairs(device="cuda")
    batches = iter(source)
    got = [next(batches)]
    index = open_index(shards)
    loader = DataLoader(Photos(index), batch_size=None, num_workers=2)
    assert [photo.shape[:2] for photo in loader] == [torch.Size(size) for size in SIZES]
    got.extend(batches)
    assert [batch.keys.tolist() for batch in got] == expected
    for context in ("fork", "spawn"):
        inside = DataLoader(source, batch_size=None, num_workers=1, multiprocessing_context=context)
        with pytest.raises(ValueError, match="num_workers=0"):
            next(iter(inside))


# Row 17: before the first batch whole shards are downloaded.


def test_the_first_batch_takes_one_request_for_the_index_and_one_for_each_of_its_photos(
    open_pairs, make_shards, server: FaultyServer
):
    """The first batch comes after all shards were copied, or all tars looked through."""
    photos = make_shards([(24, 24 + n % 5) for n in range(300)], name="many", format="png")
    index, tar = open_index(photos), "/set/train-000000.tar"
    source = open_pairs(serve(server, photos), batch_size=4, num_threads=1)
    batch = next(iter(source))
    asked = list(server.requests)
    assert asked[0] == ("GET", "/set/index.json", None)
    assert {(method, path) for method, path, _ in asked[1:]} == {("GET", tar)}
    ranges = {
        f"bytes={index.offset[n]}-{index.offset[n] + index.size[n] - 1}": n for n in range(300)
    }
    # The photos of the first batch come first of all.
    first = [ranges[str(wanted)] for _, _, wanted in asked[1 : 1 + len(set(batch.photos))]]
    assert set(first) == set(batch.photos)
    # Whatever is looked ahead is on its way by then, and little of it has come.
    size = (photos / "train-000000.tar").stat().st_size
    index_bytes = (photos / "index.json").stat().st_size
    assert source.stats()["bytes_read"] - index_bytes < 0.15 * size
    assert source.stats()["first_batch_s"] < 2


# Row 18: the GPU decodes, and still all cores are busy.


def test_processor_time_of_decoding_is_told_and_adds_up(make_shards, open_pairs):
    """Nobody says what decoding costs the CPU."""
    shards = make_shards([(512, 512 + 8 * n) for n in range(8)], name="large")
    index = open_index(shards)
    index.read(0)
    begun = time.thread_time()
    for number in range(8):
        index.read(number)
    alone = time.thread_time() - begun
    source = open_pairs(shards)
    assert source.stats()["decode_cpu_s"] == 0
    begun = time.process_time()
    list(source)
    elapsed = time.process_time() - begun
    stats = source.stats()
    assert stats["photos_decoded"] == 8
    assert 0.4 * alone < stats["decode_cpu_s"] < 2.5 * alone
    assert stats["decode_cpu_s"] < elapsed
    # What is in the pool is not decoded again, and takes no more of it.
    take(source, 8)
    assert source.stats()["photos_decoded"] == 8
    assert source.stats()["decode_cpu_s"] == stats["decode_cpu_s"]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_no_more_threads_decode_than_were_asked_for(make_shards, open_pairs, num_threads):
    """The number of threads is a hint, and pools within pools take every core."""
    many = make_shards([(48, 48)] * 40, name="many")

    def decoding() -> int:
        return sum(thread.name.startswith("decode") for thread in threading.enumerate())

    before, native = decoding(), psutil.Process().num_threads()
    source = open_pairs(many, num_threads=num_threads, ready_batches=2)
    batches = iter(source)
    next(batches)
    assert decoding() - before == num_threads
    # Those that batches are made on, and none that a codec has started by itself.
    assert psutil.Process().num_threads() - native <= num_threads + 1
    list(batches)


@pytest.mark.gpu
@pytest.mark.slow
@needs_dali("cuda")
@pytest.mark.parametrize("format", ["htj2k", "jpeg"])
def test_decoding_on_the_gpu_leaves_the_processor_free(make_shards, open_pairs, format):
    """A pipeline on the GPU keeps two dozen cores busy. Of the whole process, as the system counts
    it, not by our own account."""
    many = make_shards([(1356, 2040)] * 24, name="many", format=format)
    seconds: dict[str, float] = {}
    told: dict[str, float] = {}
    for decoder in ("cpu", "dali"):
        source = open_pairs(
            many, decoder=decoder, device="cuda", num_threads=4, batch_size=2, crops_per_photo=1,
            mix_photos=1, prefetch_batches=4, pool_bytes=12 * 1356 * 2040 * 3,
        )  # fmt: skip
        take(source, 12)
        before, begun = source.stats(), time.process_time()
        take(source, 60)
        elapsed, stats = time.process_time() - begun, source.stats()
        decoded = stats["photos_decoded"] - before["photos_decoded"]
        assert decoded > 60
        seconds[decoder] = elapsed / decoded
        told[decoder] = (stats["decode_cpu_s"] - before["decode_cpu_s"]) / decoded
        source.close()
    assert told["dali"] < 0.5 * told["cpu"]
    assert seconds["dali"] < 0.7 * seconds["cpu"]
    assert told["dali"] <= seconds["dali"]
