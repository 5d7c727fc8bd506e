"""Running something in a process of its own, with memory and threads that nothing else has used."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any

import torch


class KilledError(RuntimeError):
    """The process ended without an answer."""


def run_apart(run: Callable[..., Any], *arguments: Any, here: bool = False) -> Any:
    """Return what `run` returns, from a process that then ends; `here` runs it in this one.

    Raises:
        KilledError: If it was killed, most likely for its memory.
        Exception: What `run` raised.
    """
    return run(*arguments) if here else run_all_apart(run, [arguments])[0]


def run_all_apart(run: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The same, several at once, each in a process of its own."""
    with processes(len(arguments)) as pool:
        return run_in(pool, run, arguments)


def run_in(
    pool: ProcessPoolExecutor, run: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """The same, in processes that are there."""
    try:
        return [done.result() for done in [pool.submit(run, *each) for each in arguments]]
    except BrokenProcessPool as error:
        raise KilledError("killed; most likely there was not enough memory") from error
    except torch.OutOfMemoryError as error:
        raise KilledError(str(error).strip().partition("\n")[0]) from error


def processes(most: int) -> ProcessPoolExecutor:
    """Return so many processes, started when they are needed, to be closed by the caller.

    They end with this one, even if it is killed: nothing goes on measuring, and keeps cores busy.
    """
    return ProcessPoolExecutor(most, mp_context=_context(), initializer=_end_with_parent)


def barrier(parties: int) -> tuple[Any, Any]:
    """Return a manager, to be shut down by the caller, and a barrier that can be sent along."""
    manager = _context().Manager()
    return manager, manager.Barrier(parties)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _context() -> BaseContext:
    # A server to fork from would import once, but libraries start threads when they are imported,
    # and a process that is forked then waits for ever for those that it has not.
    return multiprocessing.get_context("spawn")
