"""Philox fields drawn by Triton: the bits of `philox`, eight times faster on a GPU.

Inductor cannot compile the int64 form for CUDA (its constants do not fit into int32), and the eager
one makes some forty passes over memory; here a thread encrypts a counter in registers. Triton is
optional: without it, and off CUDA, `philox` draws by itself.
"""

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

if importlib.util.find_spec("triton"):
    import triton
    import triton.language as tl
else:
    triton: Any = None

_BLOCK = 256


def draws(keys: Tensor) -> bool:
    """Whether fields for these keys are drawn here."""
    return triton is not None and keys.device.type == "cuda"


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def normal_field(
    keys: Tensor, *, op: int, plane: int, planes: int, top: int, height: int, first: int, quads: int
) -> Tensor:
    """Draw normal numbers, float32 (B, planes, height, 4 quads), from column 4 first on."""
    B = keys.shape[0]
    out = torch.empty((B, planes, height, 4 * quads), dtype=torch.float32, device=keys.device)
    total = out.numel() // 4
    if total:
        _normal_kernel[(triton.cdiv(total, _BLOCK),)](
            keys, out, total, op, plane, planes, top, height, first, quads, BLOCK=_BLOCK
        )
    return out


def cell_bits(
    keys: Tensor, *, op: int, plane: int, planes: int, top: int, height: int, left: int, width: int
) -> Tensor:
    """Draw words, int64 (B, planes, 4, height, width), of the cells from (top, left) on."""
    B = keys.shape[0]
    out = torch.empty((B, planes, 4, height, width), dtype=torch.int64, device=keys.device)
    total = out.numel() // 4
    if total:
        _bits_kernel[(triton.cdiv(total, _BLOCK),)](
            keys, out, total, op, plane, planes, top, height, left, width, BLOCK=_BLOCK
        )
    return out


if triton is not None:

    @triton.jit
    def to_uniform(bits):
        """Map 32-bit words to [0, 1), as `philox.bits_to_uniform` does."""
        return (bits >> 8).to(tl.float32) * 5.9604644775390625e-08

    @triton.jit
    def to_normal(a, b):
        """Map two words to two normal numbers, as `philox.bits_to_normal` does."""
        radius = tl.sqrt(tl.log(((a >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08) * -2.0)
        angle = to_uniform(b) * 6.283185307179586
        return radius * tl.cos(angle), radius * tl.sin(angle)

    @triton.jit
    def to_below(bits, limit):
        """Map words to whole numbers below `limit`, as `philox.bits_to_below` does."""
        return (bits.to(tl.int64) * limit) >> 32

    @triton.jit
    def encrypt(key, c0, c1, op, plane):
        """Encrypt the counters (c0, c1, op, plane), of any shapes that broadcast."""
        zero = (c0 + c1) * 0
        return tl.philox(
            key,
            (c0 + zero).to(tl.uint32),
            (c1 + zero).to(tl.uint32),
            (op + zero).to(tl.uint32),
            (plane + zero).to(tl.uint32),
        )

    @triton.jit
    def _counter(index, keys, planes, height, width):
        column = index % width
        row = index // width % height
        plane = index // (width * height) % planes
        return tl.load(keys + index // (width * height * planes)), row, column, plane

    @triton.jit
    def _normal_kernel(
        keys, out, total, op, plane, planes, top, height, first, quads, BLOCK: tl.constexpr
    ):
        index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = index < total
        index = tl.where(inside, index, 0)
        key, row, column, number = _counter(index, keys, planes, height, quads)
        a, b, c, d = encrypt(key, first + column, top + row, op, plane + number)
        n0, n1 = to_normal(a, b)
        n2, n3 = to_normal(c, d)
        tl.store(out + 4 * index, n0, mask=inside)
        tl.store(out + 4 * index + 1, n1, mask=inside)
        tl.store(out + 4 * index + 2, n2, mask=inside)
        tl.store(out + 4 * index + 3, n3, mask=inside)

    @triton.jit
    def _bits_kernel(
        keys, out, total, op, plane, planes, top, height, left, width, BLOCK: tl.constexpr
    ):
        index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = index < total
        index = tl.where(inside, index, 0)
        key, row, column, number = _counter(index, keys, planes, height, width)
        a, b, c, d = encrypt(key, left + column, top + row, op, plane + number)
        area = height * width
        place = out + index // area * area * 4 + index % area
        tl.store(place, a.to(tl.int64), mask=inside)
        tl.store(place + area, b.to(tl.int64), mask=inside)
        tl.store(place + 2 * area, c.to(tl.int64), mask=inside)
        tl.store(place + 3 * area, d.to(tl.int64), mask=inside)
