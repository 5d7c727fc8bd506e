"""Being asked to stop: the first SIGTERM or SIGINT is noted, a later one acts as ever."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_S = 2.0
"""What comes so soon after the first is the same request, passed on by a launcher."""


class Asked:
    """Whether this process was asked to stop."""

    name: str | None = None
    """Of the signal; None if there was none."""


@contextmanager
def noting_signals() -> Iterator[Asked]:
    """Note signals while the block runs; in another thread than the main one, do nothing."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    # What is ignored stays so: nohup, and shells for what they run in the background, ask for it.
    before = {
        number: handler
        for number in SIGNALS
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }

    first = 0.0

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first
        if asked.name is None:
            asked.name, first = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - first > SAME_S:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
