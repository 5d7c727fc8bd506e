"""How tests start a training as processes of its own, and end all of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

SCRIPT = Path(__file__).with_name("launched_train.py")
TIMES = ("seconds", "pairs_per_s", "wait_share")
"""Of the records of the log: these differ from run to run."""


class Launched:
    """A command that runs; whatever it starts is ended with it."""

    def __init__(self, *words: object, **environment: str) -> None:
        """Start Python with these words on its command line."""
        self._process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"} | environment,
        )  # fmt: skip

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *_: object) -> None:
        # Workers of torchrun have sessions of their own: no process group holds all of them.
        try:
            family = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        if self._process.poll() is None:
            self._process.kill()
        for process in family:
            process.kill()
        self._process.communicate()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self._process.send_signal(number)

    def until(self, ready: Callable[[], bool], *, timeout_s: float = 300) -> None:
        """Wait until something is so."""
        end = time.monotonic() + timeout_s
        while not ready():
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)

    def end(self, *, timeout_s: float = 400) -> tuple[int, str]:
        """Wait for the end; return status and what was said."""
        said, _ = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, said


def run(*words: object, timeout_s: float = 400, **environment: str) -> tuple[int, str]:
    """Start and wait; return status and what was said."""
    with Launched(*words, **environment) as launched:
        return launched.end(timeout_s=timeout_s)


def torchrun(num_ranks: int, *options: object) -> list[object]:
    """Return the words that start several ranks of what follows."""
    return [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", num_ranks, *options,
    ]  # fmt: skip


def log_of(run: Path) -> list[dict[str, Any]]:
    """Return the records of a training, apart from times."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in lines
    ]


def about(records: list[dict[str, Any]], *, rel: float = 1e-4) -> list[dict[str, Any]]:
    """Return what equals records within rounding."""
    import pytest

    return [
        {
            name: pytest.approx(value, rel=rel) if isinstance(value, float) else value
            for name, value in record.items()
        }
        for record in records
    ]
