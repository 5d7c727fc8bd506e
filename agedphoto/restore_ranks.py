"""Ranks that share the photographs of one batch: each takes its part, and they meet twice.

Nothing else is communicated. They leave together: torchrun ends all others as soon as one leaves
with an error, and one photograph that cannot be read is no reason to stop the rest.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch

from agedphoto.datasets import find_rank
from agedphoto.synth import find_device

T = TypeVar("T")

_POLL_S = 0.2


@dataclass(slots=True)
class Ranks:
    """Which of how many processes this is, and the way to the others."""

    rank: int
    world_size: int
    _store: Any = field(default=None)

    @classmethod
    def find(cls) -> "Ranks":
        """Return the place among the others that the environment tells of.

        Raises:
            ValueError: If RANK and WORLD_SIZE are set, and MASTER_ADDR is not.
        """
        rank, world_size = find_rank()
        if world_size > 1 and "MASTER_ADDR" not in os.environ:
            raise ValueError(
                "RANK and WORLD_SIZE are set, but MASTER_ADDR is not: ranks would not find each "
                "other; start them with torchrun, or unset both"
            )
        return cls(rank, world_size)

    def part(self, items: Sequence[T]) -> list[T]:
        """Return what of a list this rank does: every item is in the part of one rank."""
        return list(items[self.rank :: self.world_size])

    def device(self, name: str) -> torch.device:
        """Return the device called `name`; `auto` is a GPU for each rank, or the CPU.

        Raises:
            ValueError: If there is none.
        """
        if self.world_size > 1 and name in ("auto", "cuda"):
            if name == "auto" and not torch.cuda.is_available():
                # Never MPS: it is one for all.
                return torch.device("cpu")
            return find_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        return find_device(name)

    def meet(self, place: str, word: str = "") -> list[str]:
        """Wait until all ranks have come to a place; return what each has to say there."""
        if self.world_size == 1:
            return [word]
        store = self._connect()
        names = [f"{place}/{rank}" for rank in range(self.world_size)]
        store.set(names[self.rank], word)
        # One rank may have to wait for days; a store has a time limit for each question.
        while not store.check(names):
            time.sleep(_POLL_S)
        said = [store.get(name).decode() for name in names]
        # Who keeps the store leaves last.
        store.set(f"{place}/{self.rank}/heard", "")
        heard = [f"{name}/heard" for name in names]
        while self.rank == 0 and not store.check(heard):
            time.sleep(_POLL_S)
        return said

    def _connect(self) -> Any:
        if self._store is None:
            import torch.distributed as dist

            store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(minutes=30)))
            # The launcher keeps its store when it starts workers again.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store = dist.PrefixStore(f"restore_{attempt}", store)
        return self._store
