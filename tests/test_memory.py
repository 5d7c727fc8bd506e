"""How much memory is free."""

import os
from pathlib import Path

import pytest
import torch

from agedphoto.datasets import memory

GIB = 2**30


@pytest.fixture
def host(tmp_path: Path, monkeypatch):
    """Return a function that makes up what the system files say."""
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / str(name).lstrip("/"))

    def says(**files: str) -> int:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("memory_", "memory.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return memory.available_bytes(torch.device("cpu"))

    return says


MEMINFO = "MemTotal: 9999 kB\nMemAvailable: 8388608 kB\nSwapTotal: 0 kB\n"


def test_this_machine_has_some_memory(device):
    assert 2**20 < memory.available_bytes(device) < 2**50


def test_the_system_says_what_is_available(host):
    assert host(proc__meminfo=MEMINFO) == 8 * GIB


def test_a_container_may_have_less(host):
    """Cached files make room when asked, so they are as good as free."""
    group = {
        "proc__meminfo": MEMINFO,
        "sys__fs__cgroup__memory_max": f"{4 * GIB}\n",
        "sys__fs__cgroup__memory_current": f"{4 * GIB}\n",
    }
    stat = f"anon {GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}\n"
    assert host(**group, sys__fs__cgroup__memory_stat=stat) == 3 * GIB
    assert host(sys__fs__cgroup__memory_stat="anon 0\n") == 0
    assert host(sys__fs__cgroup__memory_max="max\n") == 8 * GIB


def test_a_job_may_have_less_than_the_machine(host):
    """As under a scheduler: the limit is that of a group further down."""
    deep = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": "0::/jobs/job7/task\n",
        "sys__fs__cgroup__jobs__job7__memory_max": f"{2 * GIB}\n",
        "sys__fs__cgroup__jobs__job7__memory_current": f"{GIB}\n",
        "sys__fs__cgroup__jobs__job7__memory_stat": "anon 1\n",
    }
    assert host(**deep) == GIB


def test_without_system_files_there_is_a_guess(host, monkeypatch):
    assert host() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    monkeypatch.delattr(os, "sysconf")
    assert host() == 4 * GIB
