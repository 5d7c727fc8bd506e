"""Workers: threads that take tasks in order, and never outlive whom they work for.

`ThreadPoolExecutor` does all that is queued before it lets the interpreter end; after Ctrl-C that
is every photograph asked for ahead, and each try of a network that is down. Here what has not begun
is cancelled, and what is under way is waited for a few seconds at most. Threads of workers that
are dropped without `close` end as well.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_PATIENCE_S = 5.0
"""How long the end of the interpreter waits for tasks under way."""


def num_cores() -> int:
    """Cores for this process: those it may run on, shared with the other ranks of the machine."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, allowed // max(1, int(ranks) if ranks.isdigit() else 1))


class Workers:
    """A pool of daemon threads, started as tasks come in."""

    def __init__(self, num_threads: int, name: str) -> None:
        """Start nothing yet.

        Args:
            num_threads: Threads at most, at least 1.
            name: The threads are called `name-0`, `name-1`, ...

        Raises:
            ValueError: If `num_threads` is below 1.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self._num_threads, self._name = num_threads, name
        self._lock = threading.Lock()
        self._closed = False
        self._begin()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def submit(self, task: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Queue a task; whatever it raises comes out of the future.

        Raises:
            RuntimeError: After `close`.
        """
        if self._pid != os.getpid():
            # Forked: threads stay behind, and a lock may have been held by one of them.
            self._lock = threading.Lock()
            self._begin()
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the {self._name} threads are closed; nothing more can be done")
            self._queue.put((future, task, arguments))
            if len(self._threads) < self._num_threads:
                thread = threading.Thread(
                    target=_work,
                    args=(self._queue,),
                    name=f"{self._name}-{len(self._threads)}",
                    daemon=True,
                )
                thread.start()
                self._threads.append(thread)
        return future

    def close(self, patience_s: float | None = None) -> None:
        """Cancel what has not begun, wait for what has, end the threads. Again: nothing.

        Args:
            patience_s: Wait no longer than this, in seconds; None waits until all is done.
        """
        with self._lock:
            self._closed = True
        if self._pid == os.getpid():
            _stop(self._pid, self._queue, self._threads, patience_s)
            self._finalizer.detach()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # Runs when the last reference is gone and, before that, when the interpreter ends.
        self._finalizer = weakref.finalize(
            self, _stop, self._pid, self._queue, self._threads, EXIT_PATIENCE_S
        )


def _work(queue: "SimpleQueue[Any]") -> None:
    """Do one task after the other; holds nothing of its owner in between."""
    while (item := queue.get()) is not None:
        future, task, arguments = item
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task(*arguments))
            except BaseException as error:
                future.set_exception(error)
        # The error knows this frame, and the frame would know the error.
        del item, future, task, arguments
    queue.put(None)


def _stop(
    pid: int,
    queue: "SimpleQueue[Any]",
    threads: list[threading.Thread],
    patience_s: float | None,
) -> None:
    if pid != os.getpid():
        return
    with suppress(Empty):
        while True:
            item = queue.get_nowait()
            if item is not None:
                item[0].cancel()
                # Tells those who wait for it in `concurrent.futures.wait`.
                item[0].set_running_or_notify_cancel()
    queue.put(None)
    deadline = None if patience_s is None else time.monotonic() + patience_s
    for thread in threads:
        # One of them may have held the last reference, and has got here by dropping it.
        if thread is not threading.current_thread():
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
