"""Devices: found if there, refused with a remedy if not."""

import pytest
import torch

from agedphoto.synth import find_device


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that makes torch believe in so many CUDA devices; the last is current."""

    def pretend(count: int, *, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: count - 1)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


def test_auto_takes_cuda_then_mps_then_the_cpu(gpus):
    gpus(2, mps=True)
    assert find_device() == find_device("auto") == torch.device("cuda:1")
    gpus(0, mps=True)
    assert find_device() == torch.device("mps")
    gpus(0)
    assert find_device() == torch.device("cpu")


def test_a_device_of_this_machine_is_itself(gpus):
    gpus(3, mps=True)
    for name in ("cpu", "cuda:0", "cuda:2", "mps"):
        assert find_device(name) == torch.device(name)
        assert find_device(torch.device(name)) == torch.device(name)


def test_cuda_without_a_number_is_the_current_one(gpus):
    gpus(3)
    assert find_device("cuda") == torch.device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:-1", "cuda:x", "meta", "xpu", "cuda0"])
def test_an_unknown_device_is_refused_with_those_there_are(gpus, name):
    gpus(1)
    with pytest.raises(ValueError, match=f"unknown device '{name}'; use auto, cpu, cuda, cuda:N"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_an_absent_device_is_refused_with_a_remedy(gpus, name):
    gpus(0)
    with pytest.raises(ValueError, match=f"device '{name}' is not there.* use --device cpu"):
        find_device(name)
    with pytest.raises(ValueError, match=f"device '{name}' is not there"):
        find_device(torch.device(name))


def test_a_cuda_device_beyond_the_last_is_refused_with_their_number(gpus):
    gpus(2)
    with pytest.raises(ValueError, match=r"'cuda:2' is not there: this machine has 2 CUDA devices"):
        find_device("cuda:2")
