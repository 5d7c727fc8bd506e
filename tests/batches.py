"""What the tests of AgedPairs do with batches."""

import torch

from agedphoto.datasets import AgedPairs, Batch

SIZES = [(20 + n % 3, 24 - n % 5) for n in range(14)]
"""Height and width of the photos that most of these tests use."""
CROP = 16


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.aged, batch.clean, batch.mask, batch.keys, batch.valid


def same(a: list[Batch], b: list[Batch]) -> bool:
    """Bit for bit."""
    return len(a) == len(b) and all(
        x.photos == y.photos
        and all(torch.equal(s, t) for s, t in zip(tensors(x), tensors(y), strict=True))
        for x, y in zip(a, b, strict=True)
    )


def joined(parts: tuple[Batch, ...]) -> Batch:
    """The global batch of what the ranks got."""
    aged, clean, mask, keys, valid = (
        torch.cat(columns) for columns in zip(*map(tensors, parts), strict=True)
    )
    return Batch(
        aged=aged, clean=clean, mask=mask, keys=keys, valid=valid,
        photos=sum((part.photos for part in parts), ()),
    )  # fmt: skip


def take(source: AgedPairs, count: int) -> list[Batch]:
    """Batches from here on, through as many epochs as it takes."""
    got = []
    while len(got) < count:
        for batch in source:
            got.append(batch)
            if len(got) == count:
                break
    return got
