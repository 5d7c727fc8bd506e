"""Where the time goes between those who make batches and those who use them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident


class Clock:
    """Adds up seconds; one thread makes batches, one uses them."""

    def __init__(self) -> None:
        self.pairs = 0
        """Handed out."""
        self.first_batch_s = 0.0
        """From the first request to the first batch."""
        self._wait_s = self._stall_s = self._total_s = 0.0
        # What the user's own thread made while it waited, where nothing is made ahead.
        self._user = 0
        self._made_meanwhile_s = 0.0
        self._fetch_s = self._make_s = 0.0
        self._made_pairs = 0
        self._first_pairs = 0
        self._marked = (0.0, 0.0)

    @contextmanager
    def waiting(self, pairs: int) -> Iterator[None]:
        """Of the user: while a batch of so many pairs is waited for."""
        begun = time.perf_counter()
        self._user, self._made_meanwhile_s = get_ident(), 0.0
        yield
        elapsed = time.perf_counter() - begun
        self._user = 0
        if self.pairs:
            self._wait_s += elapsed - self._made_meanwhile_s
            self._stall_s += elapsed
            self._total_s += elapsed
        else:
            # As MLPerf Storage does: how a run starts says nothing of how it goes on.
            self.first_batch_s = elapsed
            self._first_pairs = pairs
        self.pairs += pairs

    @contextmanager
    def using(self) -> Iterator[None]:
        """Of the user: while a batch is being used."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._total_s += time.perf_counter() - begun

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Of the maker: while photos are waited for."""
        begun = time.perf_counter()
        yield
        self._fetch_s += time.perf_counter() - begun

    @contextmanager
    def making(self, pairs: int) -> Iterator[None]:
        """Of the maker: while so many pairs are cut and aged (on a GPU: while that is launched)."""
        begun = time.perf_counter()
        yield
        elapsed = time.perf_counter() - begun
        self._make_s += elapsed
        self._made_pairs += pairs
        if get_ident() == self._user:
            self._made_meanwhile_s += elapsed

    def recent_wait_share(self) -> float:
        """Return the share of time spent waiting since this was last asked."""
        wait, total = self._wait_s - self._marked[0], self._total_s - self._marked[1]
        self._marked = (self._wait_s, self._total_s)
        return wait / total if total > 0 else 0.0

    def rates(self) -> dict[str, float]:
        """Return shares of time and pairs a second, see `AgedPairs.stats`."""
        total = max(self._total_s, 1e-9)
        making = max(self._make_s + self._fetch_s, 1e-9)
        return {
            "pairs_per_s": (self.pairs - self._first_pairs) / total,
            "pairs_per_s_unhindered": self._made_pairs / making,
            "first_batch_s": self.first_batch_s,
            "wait_share": self._wait_s / total,
            "make_share": self._make_s / total,
            "accelerator_utilization": 1.0 - self._stall_s / total,
            "seconds": self._total_s,
        }
