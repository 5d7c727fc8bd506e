"""Laws of decoding on the CPU."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agedphoto.datasets.cpu import CpuDecoder
from agedphoto.datasets.index import ShardIndex
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.sources import open_index

SIZES = [(40, 50), (64, 33), (48, 48), (90, 20)]


@pytest.fixture(params=["htj2k", "png", "webp", "jpeg"])
def format(request) -> str:
    return request.param


@pytest.fixture
def index(make_shards, format) -> ShardIndex:
    return open_index(make_shards(SIZES, format=format))


@pytest.fixture
def decoder(index) -> Iterator[CpuDecoder]:
    made = CpuDecoder(index, RangeReader(), num_threads=2)
    yield made
    made.close()


def test_pixels_are_those_of_the_index(index, decoder, format, tmp_path):
    photos = [decoder.submit(sample).result(10) for sample in range(len(index))]
    assert all(photo.dtype == torch.uint8 and photo.is_contiguous() for photo in photos)
    assert all(np.array_equal(photo, index.read(n)) for n, photo in enumerate(photos))
    if format != "jpeg":
        sources = sorted((tmp_path / "shards-photos").iterdir())
        for photo, source in zip(photos, sources, strict=True):
            assert np.array_equal(photo, np.asarray(Image.open(source)))


@pytest.mark.gpu
def test_pinned_pixels_are_the_same(index, decoder):
    pinned = CpuDecoder(index, RangeReader(), num_threads=2, pinned=True)
    for sample in range(len(index)):
        photo = pinned.submit(sample).result(10)
        assert photo.is_pinned()
        assert torch.equal(photo, decoder.submit(sample).result(10))
    pinned.close()


def test_a_damaged_photo_raises_with_its_place_and_the_others_do_not(index, format):
    place = index.shards[0]
    with Path(index.url(0)).open("r+b") as file:
        file.seek(int(index.offset[1]) + int(index.size[1]) // 2)
        file.write(b"\0\1\2\3\4\5")
    decoder = CpuDecoder(index, RangeReader(), num_threads=2)
    futures = [decoder.submit(sample) for sample in range(len(index))]
    with pytest.raises(ValueError, match=rf"0001.*{place.name}"):
        futures[1].result(10)
    assert [future.exception(10) is None for future in futures] == [True, False, True, True]
    decoder.close()


@pytest.mark.parametrize("format", ["htj2k", "png", "jpeg"], indirect=True)
def test_a_photo_of_another_size_than_announced_raises_with_its_place(index):
    index.height[2] += 1
    decoder = CpuDecoder(index, RangeReader())
    with pytest.raises(ValueError, match=r"'0002'.*\(48, 48\), the index says \(49, 48\)"):
        decoder.submit(2).result(10)
    decoder.close()


@pytest.mark.parametrize("format", ["png"], indirect=True)
@pytest.mark.parametrize(
    ("raised", "expected"),
    [(ValueError("no"), ValueError), (OSError("no"), OSError), (KeyError("no"), RuntimeError)],
)
def test_whatever_finish_raises_names_the_place(index, raised, expected):
    def finish(_: torch.Tensor) -> torch.Tensor:
        raise raised

    decoder = CpuDecoder(index, RangeReader(), finish=finish)
    error = decoder.submit(3).exception(10)
    assert type(error) is expected
    assert index.place(3) in str(error)
    assert isinstance(error, Exception)
    assert error.__cause__ is raised
    decoder.close()


@pytest.mark.parametrize("format", ["htj2k"], indirect=True)
def test_finish_is_applied_to_each_photo(index):
    decoder = CpuDecoder(index, RangeReader(), finish=lambda photo: photo[:2].contiguous())
    assert decoder.submit(0).result(10).shape == (2, 50, 3)
    decoder.close()


@pytest.mark.parametrize("format", ["htj2k"], indirect=True)
def test_cpu_time_is_counted(index, decoder):
    assert decoder.cpu_seconds == 0
    begun = time.process_time()
    for future in [decoder.submit(n % 4) for n in range(40)]:
        future.result(10)
    assert 0 < decoder.cpu_seconds <= time.process_time() - begun


@pytest.mark.parametrize("format", ["png"], indirect=True)
def test_after_close_nothing_is_taken_and_no_thread_is_left(index, decoder):
    decoder.submit(0).result(10)
    decoder.close()
    decoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        decoder.submit(0)
    assert not [t for t in threading.enumerate() if t.name.startswith("decode-")]


@pytest.mark.parametrize("format", ["png"], indirect=True)
def test_a_decoder_that_is_dropped_leaves_no_thread(index):
    decoder = CpuDecoder(index, RangeReader(), num_threads=2)
    futures = [decoder.submit(n % 4) for n in range(20)]
    del decoder
    assert all(future.result(10).shape[2] == 3 for future in futures)
    deadline = time.monotonic() + 5
    while [t for t in threading.enumerate() if t.name.startswith("decode-")]:
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.01)
