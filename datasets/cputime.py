"""Processor time of a library that works on threads of its own, some of which end unseen.

What the process has used in the meantime, less what all threads used that are not the library's.
A library's threads are told by their name, which threads that they start inherit; the pools that
codecs start for a single picture are in it that way. So is, by mistake, a thread of somebody else
that ended within the time measured. Linux only.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")
_NAMED_AFTER_S = 0.001


class LibraryClock:
    """Adds up what the library's threads use within `running`; for one thread at a time."""

    def __init__(self, name: str) -> None:
        """Know the library's threads by the first letters of their name."""
        self._name = name
        self._known: dict[int, bool] = {}
        self.seconds = 0.0
        """Processor time so far."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is used meanwhile, on as many threads as it may be."""
        before, begun = self._others(), time.process_time()
        try:
            yield
        finally:
            used = time.process_time() - begun
            others = sum(
                seconds - before.get(thread, 0.0) for thread, seconds in self._others().items()
            )
            self.seconds += max(0.0, used - others)

    def _others(self) -> dict[int, float]:
        """Processor time of each thread alive that is not the library's, by its number."""
        with os.scandir(_TASKS) as tasks:
            alive = {int(task.name) for task in tasks}
        self._known = {
            thread: is_ours for thread, is_ours in self._known.items() if thread in alive
        }
        seconds: dict[int, float] = {}
        # One may have ended by now: then it has neither a name nor a clock.
        for thread in alive:
            with suppress(OSError):
                # The kernel's clock of a thread, numbered as `pthread_getcpuclockid` does it.
                used = time.clock_gettime(~thread << 3 | 6)
                is_ours = self._known.get(thread)
                if is_ours is None:
                    is_ours = (_TASKS / str(thread) / "comm").read_text().startswith(self._name)
                    # A thread takes its name when it starts to run, not when it is made.
                    if is_ours or used > _NAMED_AFTER_S:
                        self._known[thread] = is_ours
                if not is_ours:
                    seconds[thread] = used
        return seconds
