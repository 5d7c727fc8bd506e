"""The device code of `philox_triton`, in Triton; importable only where Triton is."""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def kernel(function: Callable[..., Any]) -> Any:
    """Make a function Triton's, without what a checker of types has wrapped around it."""
    return triton.jit(inspect.unwrap(function))


@kernel
def to_uniform(bits):
    """Map 32-bit words to [0, 1), as `philox.bits_to_uniform` does."""
    return (bits >> 8).to(tl.float32) * 5.9604644775390625e-08


@kernel
def to_normal(a, b):
    """Map two words to two normal numbers, as `philox.bits_to_normal` does."""
    radius = tl.sqrt(tl.log(((a >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08) * -2.0)
    angle = to_uniform(b) * 6.283185307179586
    return radius * tl.cos(angle), radius * tl.sin(angle)


@kernel
def to_below(bits, limit):
    """Map words to whole numbers below `limit`, as `philox.bits_to_below` does."""
    return (bits.to(tl.int64) * limit) >> 32


@kernel
def encrypt(key, c0, c1, op, plane):
    """Encrypt the counters (c0, c1, op, plane), int32 of shapes that broadcast.

    Their bits count: words of 2**31 or more are given as negative numbers.
    """
    zero = (c0 + c1) * 0
    return tl.philox(
        key,
        (zero + c0).to(tl.int32),
        (zero + c1).to(tl.int32),
        (zero + op).to(tl.int32),
        (zero + plane).to(tl.int32),
    )


@kernel
def words_kernel(c0, c1, c2, c3, k0, k1, out, total, BLOCK: tl.constexpr):
    """Encrypt counters of four words each under keys of two, all int64."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < total
    low = tl.load(k0 + index, mask=inside, other=0)
    key = low | (tl.load(k1 + index, mask=inside, other=0) << 32)
    a, b, c, d = tl.philox(
        key,
        tl.load(c0 + index, mask=inside, other=0).to(tl.int32),
        tl.load(c1 + index, mask=inside, other=0).to(tl.int32),
        tl.load(c2 + index, mask=inside, other=0).to(tl.int32),
        tl.load(c3 + index, mask=inside, other=0).to(tl.int32),
    )
    tl.store(out + index, a.to(tl.int64), mask=inside)
    tl.store(out + total + index, b.to(tl.int64), mask=inside)
    tl.store(out + 2 * total + index, c.to(tl.int64), mask=inside)
    tl.store(out + 3 * total + index, d.to(tl.int64), mask=inside)


@kernel
def _counter(index, keys, planes, height, width):
    column = index % width
    row = index // width % height
    plane = index // (width * height) % planes
    return tl.load(keys + index // (width * height * planes)), row, column, plane


@kernel
def normal_kernel(
    keys, out, total, op, plane, planes, top, height, first, quads, BLOCK: tl.constexpr
):
    """Write normal numbers, four to a counter."""
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


@kernel
def bits_kernel(keys, out, total, op, plane, planes, top, height, left, width, BLOCK: tl.constexpr):
    """Write words, four to a counter."""
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
