"""A producer: a generator on a thread of its own, some items before they are asked for.

Whatever it raises, the one who asks gets, in its place in the sequence. Closing it ends the thread.
"""

from collections import deque
from collections.abc import Generator, Iterator
from threading import Condition, Thread, current_thread
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE_S = 1.0
"""How long `close` waits for an item that is being made; after that its thread ends by itself."""


class Producer(Generic[T], Iterator[T]):
    """The items of a generator, up to `depth` of them made in advance."""

    def __init__(self, items: Generator[T, None, None], *, depth: int, name: str) -> None:
        """Start to make them.

        Args:
            items: What makes them; it runs on the thread alone.
            depth: Items that may wait to be asked for, at least 1.
            name: Of the thread.
        """
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self._items, self._depth = items, depth
        self._ready: deque[T] = deque()
        self._changed = Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        # A daemon: no item that is being made keeps the interpreter from ending.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        """Wait for the next item.

        Raises:
            StopIteration: After the last one, or when it has been closed.
            BaseException: What the generator raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._stopped)
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop making items and forget those that are ready."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        # Garbage collection may close it from within.
        if self._thread is not current_thread():
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._offer(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _offer(self, item: T) -> bool:
        """Add an item when there is room; say whether more are wanted."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._depth or self._stopped)
            if self._stopped:
                return False
            self._ready.append(item)
            self._changed.notify_all()
            return True
