"""Trainings that are killed in many ways and begun again; started by test_resume.py.

One process that has imported everything forks them, so that a kill costs milliseconds. What is
asked for comes as JSON on the command line; what has happened is printed likewise.
"""

import io
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank
from agedphoto.train import (
    COLOR_PRESETS,
    PRESETS,
    ColorNetConfig,
    RunFolder,
    TrainConfig,
    UNetConfig,
    train,
)
from agedphoto.train.step import Stepper
from agedphoto.training import fixed_pairs


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut_save(count: int) -> None:
    """Die half-way through a checkpoint."""
    whole = torch.save

    def save(state: object, file: Any) -> None:
        nonlocal count
        count -= 1
        there = io.BytesIO()
        whole(state, there)
        length = there.tell() if count else there.tell() // 2
        file.write(there.getvalue()[:length])
        if not count:
            file.flush()
            die()

    torch.save = save


def cut_rename(count: int, *, after: bool) -> None:
    """Die when a file that was written gets its name."""
    whole = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal count
        count -= 1
        if not count and not after:
            die()
        there = whole(self, target)
        if not count:
            die()
        return there

    Path.replace = replace  # type: ignore[method-assign,assignment]


def cut_removal(count: int) -> None:
    """Die before a file is removed."""
    whole = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        nonlocal count
        count -= 1
        if not count:
            die()
        whole(self, missing_ok)

    Path.unlink = unlink


def cut_line(count: int) -> None:
    """Die half-way through a line of the log."""
    whole = RunFolder.append

    def append(self: RunFolder, record: dict[str, Any]) -> None:
        nonlocal count
        count -= 1
        if not count:
            with (self.path / "log.jsonl").open("a") as file:
                file.write(json.dumps(record)[:25])
            die()
        whole(self, record)

    RunFolder.append = append


def slow_down(seconds: float) -> None:
    """Leave time to be killed in."""
    whole = Stepper.__call__

    def step(self: Stepper, *batches: Any, **options: Any) -> None:
        whole(self, *batches, **options)
        time.sleep(seconds)

    Stepper.__call__ = step


WAYS = {
    "save": cut_save,
    "before a rename": lambda count: cut_rename(count, after=False),
    "after a rename": lambda count: cut_rename(count, after=True),
    "removal": cut_removal,
    "line": cut_line,
}


def begin(told: dict[str, Any], run: Path, way: str = "", count: int = 0) -> int:
    """Start a training in a process of its own; return its number."""
    if pid := os.fork():
        return pid
    # torch makes its pool of threads anew after a fork, but not if two threads ask at once.
    torch.set_num_threads(1)
    try:
        if way == "any time":
            slow_down(0.03)
        elif way:
            WAYS[way](count)
        common = {"recipe": "seed", "device": "cpu", "mode": told["mode"], **told["pairs"]}
        validation = None
        if told["validated"]:
            validation = fixed_pairs(
                told["shards"], textures=BANK, num_pairs=6, batch_size=4, **common
            )
        with AgedPairs(
            told["shards"], textures=BANK, crops_per_photo=12, rank=0, world_size=1, batch_size=2,
            **common,
        ) as pairs:  # fmt: skip
            train(pairs, run, TrainConfig(**told["config"]), validation=validation)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(pid: int, *, after_s: float | None = None) -> bool:
    """Wait, killing after a while; return whether the training had come to its end."""
    if after_s is not None:
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


def kill_often(told: dict[str, Any], run: Path) -> dict[str, Any]:
    """Kill and begin again until the training ends; the last ones are left in peace."""
    rng = random.Random(told["seed"])
    killed, hidden = dict.fromkeys(told["ways"], 0), 0
    for attempt in range(told["kills"] + 1):
        way = told["ways"][attempt % len(told["ways"])]
        if attempt == told["kills"]:
            assert ended(begin(told, run))
            break
        if way == "any time":
            done = ended(begin(told, run, way), after_s=rng.uniform(0.1, 0.5))
        else:
            done = ended(begin(told, run, way, rng.randint(1, 5)))
        killed[way] += not done
        hidden += len(list(run.rglob(".*.part")))
        if done:
            break
    return {"killed": killed, "hidden": hidden}


if __name__ == "__main__":
    torch.set_num_threads(1)
    PRESETS["nano"] = UNetConfig(widths=(8, 12), blocks=1, middle_blocks=1)
    COLOR_PRESETS["nano"] = ColorNetConfig(
        widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1), attention_blocks=1, heads=2, dropout=0.3
    )
    BANK = TextureBank.synthesize(3, size_px=64)
    told = json.loads(sys.argv[1])
    out = Path(told["out"])
    assert ended(begin(told, out / "straight"))
    print(json.dumps(kill_often(told, out / "broken")))
