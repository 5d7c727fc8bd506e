"""Work ahead on threads without filling the memory: in order, bounded in number and bytes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_ahead(
    threads: ThreadPoolExecutor,
    function: Callable[[A], B],
    items: Iterable[A],
    *,
    ahead: int,
    weigh: Callable[[B], int] = lambda _: 0,
    ahead_bytes: int = 0,
) -> Generator[B, None, None]:
    """Map in order on threads, with a bounded amount of results waiting.

    Args:
        threads: Where the function runs.
        function: What to do with each item.
        items: Taken as they are needed.
        ahead: At most so many results wait or are on their way.
        weigh: Bytes that a result takes.
        ahead_bytes: Nothing new is begun while results that wait take more than this.
    """
    waiting: deque[Future[B]] = deque()

    def is_full() -> bool:
        if len(waiting) >= ahead:
            return True
        # Those that failed weigh nothing; they raise when it is their turn.
        done = (each for each in waiting if each.done() and not each.exception())
        return bool(waiting) and sum(weigh(each.result()) for each in done) > ahead_bytes

    try:
        for item in items:
            waiting.append(threads.submit(function, item))
            while is_full():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class MemoryBudget:
    """Bytes that threads may take at a time; who asks for more waits, until nobody else has any.

    A thread that holds some must not ask again: two of them would wait for each other.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = self._free = max(1, total_bytes)
        self._changed = Condition()

    def take(self, size: int) -> int:
        """Wait for `size` bytes, or for all there are if that is less; return what was taken."""
        size = min(size, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        return size

    def give_back(self, size: int) -> None:
        """Return what `take` has taken."""
        with self._changed:
            self._free += size
            self._changed.notify_all()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take bytes for the time of a block."""
        taken = self.take(size)
        try:
            yield
        finally:
            self.give_back(taken)
