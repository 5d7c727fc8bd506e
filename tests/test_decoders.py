"""Laws of choosing a decoder."""

import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from agedphoto.datasets import decoders
from agedphoto.datasets.cpu import CpuDecoder
from agedphoto.datasets.decoders import AutoDecoder, PhotoDecoder, find_decoder
from agedphoto.datasets.index import Sample, Shard, ShardIndex
from agedphoto.datasets.ranges import RangeReader

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class FakeDecoder:
    """Says which photographs it was given."""

    def __init__(self, name: str = "cpu", reason: str = "so") -> None:
        self.name, self.reason = name, reason
        self.asked: list[int] = []
        self.cpu_seconds = 1.5
        self.num_closed = 0

    def submit(self, sample: int) -> "Future[torch.Tensor]":
        self.asked.append(sample)
        future: Future[torch.Tensor] = Future()
        future.set_result(torch.zeros(1, 1, 3, dtype=torch.uint8))
        return future

    def report_wait(self, share: float) -> None:
        del share

    def close(self) -> None:
        self.num_closed += 1


def index_of(**counts: int) -> ShardIndex:
    """An index of photographs that are nowhere, so many of each extension."""
    extensions = [extension for extension, count in counts.items() for _ in range(count)]
    samples = [Sample(f"{n}", e, 0, 0, 1, 0, 8, 8) for n, e in enumerate(extensions)]
    return ShardIndex.from_samples(
        "nowhere", [Shard(name="a.tar", split="train", bytes=1, sha256="")], samples
    )


def auto(index: ShardIndex, device: torch.device = CUDA, **options) -> PhotoDecoder:
    return find_decoder("auto", index=index, reader=RangeReader(), device=device, **options)


@pytest.fixture
def gpu(monkeypatch) -> list[FakeDecoder]:
    """A GPU with DALI, as far as the choice goes; returns the DALI decoders made."""
    made: list[FakeDecoder] = []

    def make(index: ShardIndex, reader: RangeReader, *, reason: str, **_: object) -> FakeDecoder:
        del index, reader
        made.append(FakeDecoder("dali", reason))
        return made[-1]

    monkeypatch.setattr(decoders, "dali_problem", lambda _: None)
    monkeypatch.setattr(decoders, "DaliDecoder", make)
    return made


def wait_for(decoder: PhotoDecoder, name: str) -> None:
    deadline = time.monotonic() + 5
    while decoder.name != name:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_it_goes_over_once_training_waits_twice_in_a_row_and_never_back():
    first, second = FakeDecoder(), FakeDecoder("dali", "waited")
    decoder = AutoDecoder(first, lambda _: second)
    for share in (0.5, 0.01, 0.9, 0.02, 0.0):
        decoder.report_wait(share)
        decoder.submit(1)
    assert (decoder.name, decoder.reason) == ("cpu", "so")
    decoder.report_wait(0.03)
    decoder.report_wait(0.03)
    wait_for(decoder, "dali")
    assert decoder.reason == "waited"
    for share in (0.0, 0.0, 1.0, 1.0, 1.0):
        decoder.report_wait(share)
        decoder.submit(2)
    assert decoder.name == "dali"
    assert first.asked == [1] * 5
    assert second.asked == [2] * 5
    assert decoder.cpu_seconds == 3.0
    decoder.close()
    assert (first.num_closed, second.num_closed) == (1, 1)


def test_the_second_decoder_is_made_once_and_told_why():
    reasons: list[str] = []

    def make(reason: str) -> FakeDecoder:
        reasons.append(reason)
        return FakeDecoder("dali", reason)

    decoder = AutoDecoder(FakeDecoder(), make)
    for _ in range(10):
        decoder.report_wait(0.25)
    wait_for(decoder, "dali")
    assert reasons == ["training waited 25.0% of the time for the cpu decoder"]
    decoder.close()


def test_the_first_decoder_goes_on_if_the_second_cannot_be_made():
    num_tried = 0

    def make(reason: str) -> FakeDecoder:
        nonlocal num_tried
        num_tried += 1
        raise RuntimeError(f"the driver is too old ({reason})")

    decoder = AutoDecoder(FakeDecoder(), make)
    for _ in range(6):
        decoder.report_wait(1.0)
    decoder._making.result(5)  # type: ignore[union-attr]
    decoder.report_wait(1.0)
    assert decoder.name == "cpu"
    assert "the driver is too old" in decoder.reason
    assert num_tried == 1
    assert decoder.submit(3).result(1).shape == (1, 1, 3)
    decoder.close()


def test_nothing_is_made_after_close():
    made: list[str] = []
    decoder = AutoDecoder(FakeDecoder(), lambda reason: made.append(reason) or FakeDecoder())
    decoder.close()
    for _ in range(4):
        decoder.report_wait(1.0)
    decoder.close()
    assert not made


def test_without_a_gpu_the_cpu_decodes():
    for device in (CPU, torch.device("mps")):
        decoder = auto(index_of(jpg=3), device)
        assert decoder.name == "cpu"
        assert device.type in decoder.reason
        decoder.close()


def test_mostly_jpeg_goes_to_dali_from_the_start(gpu):
    decoder = auto(index_of(jpg=2, jpeg=1, png=1))
    assert decoder.name == "dali"
    assert decoder.reason == "75% of the photographs are JPEG, which the GPU decodes"
    assert len(gpu) == 1


def test_lossless_photos_begin_on_the_cpu_and_go_to_dali_when_training_waits(gpu):
    decoder = auto(index_of(j2c=3, png=1))
    assert isinstance(decoder, AutoDecoder)
    assert decoder.name == "cpu"
    assert not gpu
    decoder.report_wait(0.5)
    decoder.report_wait(0.5)
    wait_for(decoder, "dali")
    assert len(gpu) == 1
    decoder.close()


@pytest.mark.parametrize(
    ("counts", "options", "words"),
    [
        ({"j2c": 9, "jpg": 1}, {}, "10% of the photographs are JPEG"),
        ({"png": 4}, {}, "0% of the photographs are HTJ2K"),
        ({"webp": 3, "j2c": 2}, {}, "40% of the photographs are HTJ2K"),
        ({"j2c": 4}, {"finish": lambda photo: photo}, "round"),
    ],
)
def test_pixels_never_change_in_mid_run(gpu, counts, options, words):
    decoder = auto(index_of(**counts), **options)
    for _ in range(5):
        decoder.report_wait(1.0)
    assert isinstance(decoder, CpuDecoder)
    assert words in decoder.reason
    assert not gpu
    decoder.close()


@pytest.mark.parametrize("counts", [{"j2c": 4}, {"jpg": 4}])
def test_auto_says_why_there_is_no_dali(monkeypatch, counts):
    monkeypatch.setattr(decoders, "dali_problem", lambda _: "DALI is not installed; pip install it")
    decoder = auto(index_of(**counts))
    assert isinstance(decoder, CpuDecoder)
    assert "DALI is not installed; pip install it" in decoder.reason
    decoder.close()


def test_a_dali_that_does_not_start_is_an_error_if_asked_for_and_a_reason_under_auto(
    monkeypatch, gpu
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(decoders, "DaliDecoder", fail)
    decoder = auto(index_of(jpg=4))
    assert decoder.name == "cpu"
    assert "CUDA driver version is insufficient" in decoder.reason
    decoder.close()
    with pytest.raises(ValueError, match="does not start: CUDA driver version is insufficient"):
        find_decoder("dali", index=index_of(jpg=4), reader=RangeReader(), device=CUDA)
    assert not gpu


def test_dali_that_is_asked_for_and_impossible_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(
        decoders, "dali_problem", lambda _: "DALI is not installed; pip install 'agedphoto[cuda13]'"
    )
    with pytest.raises(ValueError, match=r"decoder 'dali'.*pip install 'agedphoto\[cuda13\]'"):
        find_decoder("dali", index=index_of(j2c=1), reader=RangeReader(), device=CUDA)


def test_an_unknown_decoder_is_refused_with_the_list():
    with pytest.raises(ValueError, match="unknown decoder 'gpu'; there are: auto, cpu, dali"):
        find_decoder("gpu", index=index_of(j2c=1), reader=RangeReader(), device=CPU)  # type: ignore[arg-type]


def test_the_cpu_is_taken_when_asked_for_whatever_the_device(make_shards):
    from agedphoto.datasets.sources import open_index

    index = open_index(make_shards([(20, 30)]))
    decoder = find_decoder("cpu", index=index, reader=RangeReader(), device=CPU, num_threads=1)
    decoder.report_wait(1.0)
    decoder.report_wait(1.0)
    assert (decoder.name, decoder.reason) == ("cpu", "it was asked for")
    assert np.array_equal(decoder.submit(0).result(10), index.read(0))
    decoder.close()
