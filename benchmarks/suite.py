"""All benchmarks by name, and how they are run one after another."""

import importlib
from collections.abc import Callable, Iterator, Sequence

from .record import Record, Recorder
from .settings import Settings

BENCHMARKS = {
    "synth": "synth",
    "decode": "decode",
    "loader": "loader",
    "train": "train",
    "restore": "restore",
    "quality": "clock",
}
"""Name and module, which is also what records are named for."""


def run_suite(
    names: Sequence[str], settings: Settings, *, tell: Callable[[str], None] | None = None
) -> Iterator[Record]:
    """Run benchmarks by name and yield the record of each; `tell` hears of every row.

    A benchmark that fails as a whole still has a record: of what it found until then, and why.
    """
    for name in names:
        module = importlib.import_module(f".{BENCHMARKS[name]}", __package__)
        recorder = Recorder(BENCHMARKS[name], settings.device, quick=settings.quick, tell=tell)
        try:
            yield module.run(settings, recorder)
        except (RuntimeError, OSError) as error:
            recorder.fail(name, "the rest of it", error)
            yield recorder.finish()
