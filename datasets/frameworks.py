"""Frameworks that wrap loaders: AgedPairs has split its batches over the ranks already."""

import sys
from types import CodeType, ModuleType


def refuse_second_split() -> None:
    """Raise ValueError if Accelerate is about to split what one rank reads over all ranks again.

    Its IterableDatasetShard would drop all but a part of what each rank made, and its dispatcher
    reads on rank 0 alone. All of it can only be told by who is calling.
    """
    if _is_split_by_accelerate():
        raise ValueError(
            "AgedPairs gives every rank its own part and must not be split a second time; leave it "
            "out of accelerator.prepare and iterate over it as it is"
        )


def _is_split_by_accelerate() -> bool:
    loading = sys.modules.get("accelerate.data_loader")
    if loading is None:
        return False
    splitting = {_code_of(loading, name) for name in _SPLITTING}
    frame = sys._getframe(1)
    while frame is not None:
        # By code alone: to look at its variables would keep alive what the caller has forgotten.
        if frame.f_code in splitting:
            return True
        frame = frame.f_back
    return False


_SPLITTING = (
    "IterableDatasetShard.__iter__",
    "DataLoaderDispatcher.__iter__",
    "prepare_data_loader",
)


def _code_of(module: ModuleType, name: str) -> CodeType | None:
    """Return the code of a function; None where a version has none of that name."""
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return getattr(found, "__code__", None)
