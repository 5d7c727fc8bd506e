"""Laws of decoding with DALI: the pixels of the CPU, the faults of the CPU, nothing on stderr."""

import gc
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from conftest import photo_like
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from agedphoto.datasets import dali
from agedphoto.datasets.cpu import CpuDecoder
from agedphoto.datasets.dali import DaliDecoder, dali_problem
from agedphoto.datasets.index import UNKNOWN_CRC32, Sample, Shard, ShardIndex
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.sources import open_index

CPU = torch.device("cpu")
SIZES = [(40 + 3 * n, 90 - 4 * n) for n in range(12)]

needs_dali = pytest.mark.skipif(
    dali_problem(CPU) is not None, reason=f"needs DALI: {dali_problem(CPU)}"
)


@pytest.fixture
def decoders(device) -> Iterator[list[DaliDecoder | CpuDecoder]]:
    """Decoders to be closed when the test is over."""
    made: list[DaliDecoder | CpuDecoder] = []
    yield made
    for decoder in made:
        decoder.close()


@pytest.fixture
def decode(decoders, device):
    """Return a function that decodes all photographs of an index: pixels, or the error."""

    def all_of(index: ShardIndex, **options) -> list[Any]:
        decoder = DaliDecoder(index, RangeReader(), device=device, **options)
        decoders.append(decoder)
        return outcomes(decoder, range(len(index)))

    return all_of


def outcomes(decoder, samples) -> list[Any]:
    futures = [decoder.submit(sample) for sample in samples]
    return [f.exception(30) or f.result(0).cpu().numpy() for f in futures]


def foreign(folder: Path, photos: list[tuple[str, bytes]]) -> ShardIndex:
    """An index of photographs of anybody, in a tar, of unknown checksum."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for n, (extension, data) in enumerate(photos):
            member = tarfile.TarInfo(f"{n:04d}.{extension}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(folder / "a.tar") as tar:
        members = [(member.name, member.offset_data, member.size) for member in tar]
    samples = []
    for name, offset, size in members:
        key, extension = name.split(".")
        samples.append(Sample(key, extension, 0, offset, size, UNKNOWN_CRC32, 33, 47))
    return ShardIndex.from_samples(
        str(folder), [Shard(name="a.tar", split="train", bytes=1, sha256="")], samples
    )


PHOTO = photo_like(33, 47, seed=5)


def saved(format: str, *, image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PHOTO)).save(file, format, **options)
    return file.getvalue()


@needs_dali
@pytest.mark.parametrize("format", ["htj2k", "png", "webp"])
def test_lossless_pixels_are_those_of_the_source(make_shards, decode, tmp_path, format):
    index = open_index(make_shards(SIZES, format=format))
    sources = sorted((tmp_path / "shards-photos").iterdir())
    photos = decode(index, batch_photos=5)
    for photo, source in zip(photos, sources, strict=True):
        assert np.array_equal(photo, np.asarray(Image.open(source)))


@needs_dali
@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 60}])
def test_jpeg_differs_by_the_rounding_of_its_transform_at_most(make_shards, decode, options):
    index = open_index(make_shards(SIZES, format="jpeg", **options))
    for sample, photo in enumerate(decode(index)):
        difference = np.abs(photo.astype(int) - index.read(sample).astype(int))
        assert difference.max() <= 4
        assert difference.mean() <= 0.5


@needs_dali
def test_jpeg_with_fewer_samples_of_colour_is_enlarged_as_on_the_cpu(decode, tmp_path):
    kinds = [{"subsampling": s, "progressive": p} for s in (0, 1, 2) for p in (False, True)]
    index = foreign(tmp_path / "kinds", [("jpg", saved("JPEG", **kind)) for kind in kinds])
    for sample, photo in enumerate(decode(index)):
        difference = np.abs(photo.astype(int) - index.read(sample).astype(int))
        assert difference.max() <= 6
        assert difference.mean() <= 0.6


@needs_dali
def test_what_is_not_plain_is_decoded_as_the_cpu_does_it(decode, decoders, tmp_path):
    image = Image.fromarray(PHOTO)
    turned = Image.Exif()
    turned[0x0112] = 6
    index = foreign(
        tmp_path / "any",
        [
            ("png", saved("PNG")),
            ("png", saved("PNG", image=image.convert("L"))),
            ("png", saved("PNG", image=image.convert("RGBA"))),
            ("png", bytes(imagecodecs.png_encode(PHOTO.astype(np.uint16) * 257))),
            ("jpg", saved("JPEG", image=image.convert("CMYK"))),
            ("jpg", saved("JPEG", image=image.rotate(90, expand=True), exif=turned)),
            ("webp", saved("WEBP", lossless=False)),
            ("gif", saved("GIF")),
            ("bmp", saved("BMP")),
            ("j2c", bytes(imagecodecs.htj2k_encode(PHOTO))),
        ],
    )
    photos = decode(index)
    cpu = CpuDecoder(index, RangeReader())
    decoders.append(cpu)
    for photo, expected in zip(photos, outcomes(cpu, range(len(index))), strict=True):
        assert isinstance(photo, np.ndarray)
        assert isinstance(expected, np.ndarray)
        assert np.array_equal(photo, expected)
    assert decoders[0].num_on_host == 8


@needs_dali
def test_order_is_that_of_the_numbers_asked_for(make_shards, device, decoders):
    index = open_index(make_shards(SIZES))
    decoder = DaliDecoder(index, RangeReader(), device=device, batch_photos=3)
    decoders.append(decoder)
    asked = np.random.default_rng(0).integers(0, len(index), 100).tolist()
    for sample, photo in zip(asked, outcomes(decoder, asked), strict=True):
        assert np.array_equal(photo, index.read(sample))


@needs_dali
def test_one_bad_photo_fails_alone(decode, tmp_path):
    good = saved("PNG")
    middle = bytearray(good)
    middle[len(good) // 2 : len(good) // 2 + 8] = b"nonsense"
    header = bytearray(good)
    header[29] ^= 0xFF
    photos = [
        good,
        good,
        bytes(middle),
        good,
        good[: len(good) // 2],
        good,
        bytes(header),
        b"",
        good,
    ]
    index = foreign(tmp_path / "bad", [("png", data) for data in photos])
    for sample, outcome in enumerate(decode(index, batch_photos=16)):
        if photos[sample] == good:
            assert np.array_equal(outcome, PHOTO)
        else:
            assert isinstance(outcome, ValueError)
            assert f"'{sample:04d}'" in str(outcome)
            assert "a.tar" in str(outcome)


@needs_dali
def test_which_photos_are_bad_does_not_depend_on_the_decoder(decode, decoders, tmp_path):
    rng = np.random.default_rng(7)
    photos: list[tuple[str, bytes]] = []
    for extension, data in (("png", saved("PNG")), ("webp", saved("WEBP", lossless=True))):
        for _ in range(30):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 2):
                changed[place] = rng.integers(256)
            photos.append((extension, bytes(changed)))
    index = foreign(tmp_path / "noise", photos)
    mine = decode(index)
    cpu = CpuDecoder(index, RangeReader())
    decoders.append(cpu)
    theirs = outcomes(cpu, range(len(index)))
    assert [type(a) for a in mine] == [type(b) for b in theirs]
    assert {type(a) for a in mine} == {np.ndarray, ValueError}


@needs_dali
def test_a_flipped_byte_and_a_vanished_shard_name_the_place(make_shards, decode):
    index = open_index(make_shards(SIZES[:4]))
    with Path(index.url(0)).open("r+b") as file:
        file.seek(int(index.offset[1]) + 200)
        file.write(b"\0\1\2")
    errors = decode(index)
    assert [isinstance(outcome, ValueError) for outcome in errors] == [False, True, False, False]
    assert "checksum" in str(errors[1])
    Path(index.url(0)).unlink()
    for sample, outcome in enumerate(decode(index)):
        assert isinstance(outcome, OSError)
        assert index.place(sample) in str(outcome)


@needs_dali
def test_a_photo_of_another_size_than_announced_is_never_given_to_dali(make_shards, decode):
    index = open_index(make_shards(SIZES[:3]))
    index.width[1] += 1
    outcome = decode(index)[1]
    assert isinstance(outcome, ValueError)
    assert "the index says" in str(outcome)


@needs_dali
def test_an_error_of_the_device_is_nobodys_damaged_photo(
    make_shards, device, decoders, monkeypatch
):
    index = open_index(make_shards(SIZES[:3]))
    decoder = DaliDecoder(index, RangeReader(), device=device)
    decoders.append(decoder)

    def fail(*_: object) -> None:
        raise RuntimeError("encountered:\n\nCUDA runtime API error cudaErrorECCUncorrectable (214)")

    monkeypatch.setattr(decoder._pipeline, "run", fail)
    for sample, outcome in enumerate(outcomes(decoder, range(3))):
        assert type(outcome) is RuntimeError
        assert index.place(sample) in str(outcome)
        assert "cudaErrorECCUncorrectable" in str(outcome)


@needs_dali
def test_a_dali_that_refuses_every_photo_is_not_passed_over(make_shards, decoders, monkeypatch):
    index = open_index(make_shards(SIZES[:3]))
    decoder = DaliDecoder(index, RangeReader(), device=CPU)
    decoders.append(decoder)

    def fail(*_: object) -> None:
        raise RuntimeError(
            "Error\nencountered:\n\nnvImageCodec failure: '#8'\nCurrent pipeline ..."
        )

    monkeypatch.setattr(decoder._pipeline, "run", fail)
    monkeypatch.setattr(dali, "MOST_REFUSED", 4)
    results = [outcomes(decoder, [0])[0] for _ in range(8)]
    assert [isinstance(outcome, RuntimeError) for outcome in results] == [False] * 4 + [True] * 4
    assert "DALI fails: nvImageCodec failure: '#8'" in str(results[-1])


@needs_dali
def test_finish_is_applied_and_its_error_names_the_place(make_shards, decode):
    index = open_index(make_shards(SIZES))

    def finish(photo: torch.Tensor) -> torch.Tensor:
        if photo.shape[0] == SIZES[3][0]:
            raise ValueError("not this one")
        return photo[:4].contiguous()

    results = decode(index, finish=finish)
    for sample, outcome in enumerate(results):
        if sample == 3:
            assert isinstance(outcome, ValueError)
            assert str(outcome) == f"{index.place(3)}: not this one"
        else:
            assert np.array_equal(outcome, index.read(sample)[:4])


@needs_dali
@pytest.mark.parametrize("format", ["htj2k", "png"])
def test_cpu_time_counts_the_threads_of_dali(make_shards, decode, decoders, format):
    index = open_index(make_shards([(400, 500)] * 8, format=format))
    begun = time.process_time()
    decode(index, num_threads=2)
    spent = time.process_time() - begun
    decoder = decoders[0]
    # To decode them once on a thread here takes this long; DALI cannot be much faster.
    begun = time.thread_time()
    for sample in range(len(index)):
        index.read(sample)
    assert 0.3 * (time.thread_time() - begun) < decoder._pipeline.cpu_seconds
    assert decoder._pipeline.cpu_seconds < decoder.cpu_seconds <= spent
    before = decoder.cpu_seconds
    decoder.close()
    assert decoder.cpu_seconds == before


@needs_dali
def test_cpu_time_outlives_a_pipeline_that_is_built_again(decode, decoders, tmp_path):
    bad = bytearray(saved("PNG"))
    bad[len(bad) // 2 : len(bad) // 2 + 8] = b"nonsense"
    index = foreign(tmp_path / "bad", [("png", saved("PNG")), ("png", bytes(bad))])
    decode(index)
    seconds = decoders[0].cpu_seconds
    outcomes(decoders[0], [1, 0, 1, 0])
    assert decoders[0].cpu_seconds > seconds > 0


def dali_threads() -> list[str]:
    """Names of our threads, and numbers of DALI's."""
    ours = [t.name for t in threading.enumerate() if t.name.startswith(("dali-", "read-"))]
    theirs = []
    for task in Path("/proc/self/task").iterdir():
        # A thread may end between being listed and being asked its name.
        with suppress(FileNotFoundError, ProcessLookupError):
            if (task / "comm").read_text().startswith("[DALI]"):
                theirs.append(task.name)
    return ours + theirs


@needs_dali
def test_after_close_nothing_is_taken_and_no_thread_is_left(make_shards, device):
    index = open_index(make_shards(SIZES))
    gc.collect()
    before = set(dali_threads())
    decoder = DaliDecoder(index, RangeReader(), device=device, batch_photos=2)
    futures = [decoder.submit(n % len(index)) for n in range(400)]
    futures[0].result(30)
    decoder.close()
    decoder.close()
    for future in futures:
        assert future.done()
        assert future.cancelled() or isinstance(future.exception(), CancelledError | None)
    with pytest.raises(RuntimeError, match="closed"):
        decoder.submit(0)
    assert set(dali_threads()) <= before


@needs_dali
def test_a_decoder_that_is_dropped_leaves_no_thread(make_shards):
    index = open_index(make_shards(SIZES))
    gc.collect()
    before = set(dali_threads())
    decoder = DaliDecoder(index, RangeReader(), device=CPU)
    futures = [decoder.submit(n % len(index)) for n in range(30)]
    del decoder
    assert all(future.result(30).shape[2] == 3 for future in futures)
    del futures
    deadline = time.monotonic() + 5
    while not set(dali_threads()) <= before:
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_dali
def test_bytes_that_wait_for_dali_are_bounded(make_shards, device, decoders, monkeypatch):
    index = open_index(make_shards(SIZES))
    decoder = DaliDecoder(index, RangeReader(), device=device, batch_photos=2)
    decoders.append(decoder)
    most, run, may_run = [], decoder._pipeline.run, threading.Event()

    def slow(*arguments):
        may_run.wait(5)
        most.append(len(decoder._ready))
        return run(*arguments)

    monkeypatch.setattr(decoder._pipeline, "run", slow)
    futures = [decoder.submit(n % len(index)) for n in range(100)]
    time.sleep(0.2)
    may_run.set()
    assert all(future.exception(30) is None for future in futures)
    assert max(most) <= 4


@needs_dali
def test_what_was_cancelled_is_not_decoded(make_shards, device, decoders):
    index = open_index(make_shards(SIZES))
    reader = RangeReader()
    may_read, read = threading.Event(), reader.read
    reader.read = lambda *a, **k: may_read.wait(5) and read(*a, **k)  # type: ignore[method-assign]
    decoder = DaliDecoder(index, reader, device=device)
    decoders.append(decoder)
    futures = [decoder.submit(n % len(index)) for n in range(60)]
    cancelled = [future.cancel() for future in futures]
    may_read.set()
    for future, gone in zip(futures, cancelled, strict=True):
        assert future.cancelled() if gone else future.result(30).shape[2] == 3
    assert cancelled.count(True) >= 60 - dali.NUM_READERS


def run_script(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a process of its own; its stdout and stderr are those of the system."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        timeout=120,
        env={name: text for name, text in os.environ.items() if name != "OPENCV_LOG_LEVEL"}
        | environment,
        check=False,
    )


DECODE_ALL = """
import os, sys, torch
from agedphoto.datasets.dali import DaliDecoder
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.sources import open_index
index = open_index(sys.argv[1])
decoder = DaliDecoder(index, RangeReader(), device=torch.device("cpu"))
assert all(decoder.submit(n).result(30).shape[2] == 3 for n in range(len(index)))
sys.stdout.write(f"{decoder.num_on_host} {os.environ.get('OPENCV_LOG_LEVEL')}")
"""


@needs_dali
@pytest.mark.parametrize("format", ["htj2k", "png", "webp", "jpeg"])
def test_nothing_is_written_to_stderr(make_shards, format):
    shards = make_shards(SIZES[:4], format=format)
    done = run_script(DECODE_ALL, shards)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"0 None")


@needs_dali
def test_who_asks_for_the_messages_of_opencv_gets_them(make_shards):
    done = run_script(DECODE_ALL, make_shards(SIZES[:2]), OPENCV_LOG_LEVEL="WARNING")
    assert (done.returncode, done.stdout) == (0, b"0 WARNING")
    assert b"WARN" in done.stderr


@needs_dali
def test_the_interpreter_ends_whatever_is_queued(make_shards):
    script = DECODE_ALL + "\nfor n in range(5000): decoder.submit(n % len(index))\n"
    for ending in ("", "raise SystemExit(3)", "import signal; signal.raise_signal(2)"):
        begun = time.monotonic()
        done = run_script(script + ending, make_shards(SIZES[:4], f"shards{len(ending)}"))
        assert time.monotonic() - begun < 30
        if not ending:
            assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"0 None"


@needs_dali
def test_dali_is_not_imported_before_it_is_wanted():
    done = run_script(
        "import sys, agedphoto.datasets.decoders\n"
        "assert not [name for name in sys.modules if name.startswith('nvidia.dali')]"
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@needs_dali
def test_a_forked_child_is_told_to_make_its_own(make_shards, decoders):
    index = open_index(make_shards(SIZES[:2]))
    decoder = DaliDecoder(index, RangeReader(), device=CPU)
    decoders.append(decoder)
    decoder.submit(0).result(30)
    child = os.fork()
    if not child:
        code = 1
        try:
            decoder.submit(0)
        except RuntimeError as error:
            code = 0 if "another process" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert decoder.submit(1).result(30).shape[2] == 3


class Problems(Dataset):
    """What a worker of a DataLoader is told."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> str:
        return dali_problem(torch.device("cuda")) or "none"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_of_a_data_loader_is_refused_the_gpu():
    (told,) = list(DataLoader(Problems(), batch_size=None, num_workers=1))
    assert "worker process of a DataLoader" in told
    assert "num_workers=0" in told


def test_a_dali_that_is_not_there_is_a_problem_with_the_remedy(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "dali" in name else real(name)
    )
    for version, extra in (("13.0", "cuda13"), ("12.8", "cuda12"), (None, "cuda13")):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert dali_problem(CPU) == f"DALI is not installed; pip install 'agedphoto[{extra}]'"
    index = ShardIndex.from_samples(str(tmp_path), [], [])
    with pytest.raises(ValueError, match="cannot decode with DALI: DALI is not installed; pip"):
        DaliDecoder(index, RangeReader(), device=CPU)


def test_other_problems_are_told_with_what_to_do(monkeypatch):
    assert "not for mps; use decoder='cpu'" in (dali_problem(torch.device("mps")) or "")

    def broken(name: str) -> None:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    with monkeypatch.context() as patched:
        patched.setattr(dali.importlib, "import_module", broken)
        assert "cannot be imported (OSError: libcudart" in (dali_problem(CPU) or "")
    with monkeypatch.context() as patched:
        patched.setattr(
            dali.importlib, "import_module", lambda _: type("Old", (), {"__version__": "1.53.0"})
        )
        assert "DALI 1.53.0 is too old, 2.2 is needed" in (dali_problem(CPU) or "")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        assert "Linux only" in (dali_problem(CPU) or "")


@needs_dali
def test_without_a_gpu_cuda_is_a_problem(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "torch sees no GPU" in (dali_problem(torch.device("cuda")) or "")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in (dali_problem(torch.device("cuda")) or "")


@needs_dali
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_photos": 0}, "batch_photos must be at least 1, got 0"),
        ({"num_threads": 0}, "num_threads must be at least 1, got 0"),
        ({"hw_decoder_load": 1.5}, "hw_decoder_load must be 0 to 1, got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(make_shards, options, words):
    index = open_index(make_shards(SIZES[:1]))
    with pytest.raises(ValueError, match=words):
        DaliDecoder(index, RangeReader(), device=CPU, **options)


@pytest.mark.gpu
@needs_dali
@pytest.mark.parametrize("format", ["htj2k", "jpeg"])
def test_poisoned_memory_never_shows_in_the_pixels(make_shards, decoders, format):
    # An engine that heeds no stream order would read or write memory that others have freed.
    index = open_index(make_shards([(480 + 16 * n, 640) for n in range(8)], format=format))
    device = torch.device("cuda")
    decoder = DaliDecoder(index, RangeReader(), device=device, batch_photos=8)
    decoders.append(decoder)
    expected = [torch.from_numpy(photo) for photo in outcomes(decoder, range(8))]
    if format == "htj2k":
        assert all(np.array_equal(photo, index.read(n)) for n, photo in enumerate(expected))
    sizes = [photo.numel() for photo in expected]
    poison = torch.cuda.Stream(device)
    for _ in range(200):
        futures = [decoder.submit(sample) for sample in range(8)]
        with torch.cuda.stream(poison):
            for size in sizes:
                torch.empty(size, dtype=torch.uint8, device=device).fill_(0xA5)
        photos = [future.result(60) for future in futures]
        # On yet another stream than the one they were made on.
        for photo, right in zip(photos, expected, strict=True):
            assert torch.equal(photo.cpu(), right)
        del photos, futures


@pytest.mark.gpu
@needs_dali
def test_pixels_decoded_for_cuda_lie_there(make_shards, decoders):
    index = open_index(make_shards(SIZES))
    decoder = DaliDecoder(index, RangeReader(), device=torch.device("cuda"))
    decoders.append(decoder)
    photo = decoder.submit(0).result(60)
    assert (photo.device.type, photo.dtype) == ("cuda", torch.uint8)
    assert decoder.num_on_host == 0


@pytest.mark.gpu
@needs_dali
@pytest.mark.slow
@pytest.mark.parametrize("format", ["htj2k", "jpeg"])
def test_the_gpu_spares_the_cpu(make_shards, decoders, format):
    index = open_index(make_shards([(1356, 2040)] * 16, format=format))
    seconds = []
    for decoder in (
        CpuDecoder(index, RangeReader(), num_threads=4),
        DaliDecoder(index, RangeReader(), device=torch.device("cuda")),
    ):
        decoders.append(decoder)
        outcomes(decoder, range(16))
        before = decoder.cpu_seconds
        for _ in range(4):
            futures = [decoder.submit(sample) for sample in range(16)]
            for future in futures:
                future.result(60)
        seconds.append(decoder.cpu_seconds - before)
    assert seconds[1] < 0.5 * seconds[0]
