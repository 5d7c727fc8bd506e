"""Which of how many processes this is."""

import pytest
import torch.distributed as dist

from agedphoto.datasets import find_rank


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_alone_it_is_the_only_one():
    assert find_rank() == (0, 1)


def test_the_environment_of_torchrun_is_read(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert find_rank() == (3, 4)


def test_arguments_come_before_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert find_rank(1, 2) == (1, 2)


def test_a_process_group_comes_before_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert find_rank() == (0, 1)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, None), "give both rank and world_size or neither"),
        ((None, 2), "give both rank and world_size or neither"),
        ((2, 2), r"rank must be 0 to 1 \(world_size - 1\), got 2"),
        ((-1, 2), r"rank must be 0 to 1 \(world_size - 1\), got -1"),
        ((0, 0), "world_size must be at least 1, got 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_rank(*arguments)


def test_an_environment_without_numbers_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="variable RANK must be a whole number, got 'first'"):
        find_rank()
