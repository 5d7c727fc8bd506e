"""Philox4x32-10: every random number is a pure function of (key of the photograph, op, place).

Counter-based (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11), so
no draw depends on batch position, rank, device or on what was drawn before. The counter of a draw:

    word 0   column // 4 of a pixel, column of a cell, or number // 4 for per-photo draws
    word 1   row, or 0
    word 2   op: the place of the defect in its recipe
    word 3   plane (channel, or which field), or PER_PHOTO

One call yields four 32-bit words, for four neighbouring pixels of a row. So the grain at (row,
column) does not depend on the size of the picture, and a GPU thread makes four pixels at a time.
Rows and columns may be negative: fields go on without end in every direction.

Written in int64 torch operations: exact on every device, and the reference for faster kernels,
which draw the fields on CUDA (`philox_triton`).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import philox_triton
from .types import Keys

WORD = 0xFFFFFFFF
PER_PHOTO = 0xFFFFFFFF
"""Counter word 3 of the draws that are made once for a photograph."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encrypt a 128-bit counter under a 64-bit key with ten rounds.

    Args:
        counter: Four int64 tensors of 32-bit words, least significant first; they broadcast.
        key: Two int64 tensors of 32-bit words, least significant first; they broadcast too.

    Returns:
        Four int64 tensors with values in [0, 2**32).
    """
    if philox_triton.draws(key[0]):
        return philox_triton.philox4x32(counter, key)
    c0, c1, c2, c3, _, _ = torch.broadcast_tensors(*counter, *key)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64; their bits, and so the two halves, are still exact.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # In place: a third of the memory that new tensors would take, and half of the time.
        c0, c1 = (p1 >> 32).bitwise_and_(WORD).bitwise_xor_(c1).bitwise_xor_(k0), p1
        c2, c3 = (p0 >> 32).bitwise_and_(WORD).bitwise_xor_(c3).bitwise_xor_(k1), p0
        c1.bitwise_and_(WORD)
        c3.bitwise_and_(WORD)
        k0, k1 = (k0 + _WEYL[0]) & WORD, (k1 + _WEYL[1]) & WORD
    return c0, c1, c2, c3


def draw_bits(keys: Keys, *, op: int, count: int) -> Int[Tensor, "B count"]:
    """Draw `count` 32-bit words for each photograph."""
    quads = torch.arange(-(-count // 4), device=keys.device)[None]
    words = philox4x32(
        (quads, word(0, like=keys), word(op, like=keys), word(PER_PHOTO, like=keys)),
        _key_words(keys[:, None]),
    )
    return torch.stack(words, -1).flatten(1)[:, :count]


def draw_uniform(keys: Keys, *, op: int, count: int) -> Float[Tensor, "B count"]:
    """Draw `count` float32 numbers in [0, 1) for each photograph."""
    return bits_to_uniform(draw_bits(keys, op=op, count=count))


def normal_field(
    keys: Keys,
    *,
    op: int,
    planes: int,
    height: int,
    width: int,
    top: int = 0,
    left: int = 0,
    plane: int = 0,
) -> Float[Tensor, "B planes height width"]:
    """Draw standard normal float32 numbers, one for each pixel of a window of an endless field.

    Args:
        keys: One for each photograph.
        op: Place of the defect in its recipe.
        planes: Independent fields, numbered from `plane`.
        height: Rows of the window, in pixels.
        width: Columns of the window, in pixels.
        top: Its first row.
        left: Its first column.
        plane: Number of the first plane.
    """
    # A quad of columns shares one call, so the window begins at one and is cut afterwards.
    first, skip = left // 4, left % 4
    quads = -(-(skip + width) // 4)
    if philox_triton.draws(keys):
        field = philox_triton.normal_field(
            keys,
            op=op,
            plane=plane,
            planes=planes,
            top=top,
            height=height,
            first=first,
            quads=quads,
        )
    else:
        words = _field_words(keys, op, plane, planes, top, height, first, quads)
        field = torch.stack(
            bits_to_normal(words[0], words[1]) + bits_to_normal(words[2], words[3]), -1
        ).flatten(-2)
    return field[..., skip : skip + width]


def cell_bits(
    keys: Keys,
    *,
    op: int,
    count: int,
    height: int,
    width: int,
    top: int = 0,
    left: int = 0,
    plane: int = 0,
) -> Int[Tensor, "B count height width"]:
    """Draw `count` 32-bit words for each cell of a window of an endless grid.

    For what lies in cells: the marks of a cell are the same in every window that shows it. Four
    words take one plane, so planes `plane` to `plane` + (count - 1) // 4 are used up, and they must
    not be those of a `normal_field` of the same op.
    """
    planes = -(-count // 4)
    if philox_triton.draws(keys):
        words = philox_triton.cell_bits(
            keys, op=op, plane=plane, planes=planes, top=top, height=height, left=left, width=width
        )
    else:
        words = torch.stack(_field_words(keys, op, plane, planes, top, height, left, width), 2)
    return words.flatten(1, 2)[:, :count]


def bits_to_uniform(bits: Tensor) -> Tensor:
    """Map 32-bit words to [0, 1) by their upper 24 bits, exact in float32."""
    return (bits >> 8).to(torch.float32) * 2.0**-24


def bits_to_below(bits: Tensor, limit: int | Tensor) -> Tensor:
    """Map 32-bit words to whole numbers in [0, limit), limit at most 2**31."""
    return (bits * limit) >> 32


def bits_to_normal(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Map two words to two independent standard normal numbers (Box and Muller, 1958)."""
    # The +1 keeps the logarithm finite; the largest magnitude is sqrt(48 ln 2) = 5.77.
    radius = ((((a >> 8) + 1).to(torch.float32) * 2.0**-24).log() * -2.0).sqrt()
    angle = bits_to_uniform(b) * (2.0 * math.pi)
    return radius * angle.cos(), radius * angle.sin()


def word(value: int, *, like: Tensor) -> Tensor:
    """Make a word of a counter or key, on the device of another tensor."""
    # Filled there: torch.tensor would copy from the host and wait for the GPU.
    return torch.full((), value, dtype=torch.int64, device=like.device)


def _field_words(
    keys: Keys, op: int, plane: int, planes: int, top: int, height: int, left: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encrypt the counters (left + j, top + i, op, plane + p), each word (B, planes, H, W)."""
    device = keys.device
    return philox4x32(
        (
            torch.arange(left, left + width, device=device) & WORD,
            (torch.arange(top, top + height, device=device) & WORD)[:, None],
            word(op, like=keys),
            torch.arange(plane, plane + planes, device=device)[:, None, None],
        ),
        _key_words(keys[:, None, None, None]),
    )


def _key_words(keys: Tensor) -> tuple[Tensor, Tensor]:
    return keys & WORD, (keys >> 32) & WORD
