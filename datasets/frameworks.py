"""Frameworks that wrap loaders: AgedPairs has split its batches over the ranks already."""

import sys


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
    # Not there in every version.
    kinds = tuple(
        getattr(loading, name, None) for name in ("IterableDatasetShard", "DataLoaderDispatcher")
    )
    preparing = getattr(getattr(loading, "prepare_data_loader", None), "__code__", None)
    frame = sys._getframe(1)
    while frame is not None:
        # By type: their dispatcher says of itself that it is a DataLoader.
        if type(frame.f_locals.get("self")) in kinds or frame.f_code is preparing:
            return True
        frame = frame.f_back
    return False
