"""Philox fields drawn by Triton: the bits of `philox`, eight times faster on a GPU.

Inductor cannot compile the int64 form for CUDA (its constants do not fit into int32), and the eager
one makes some forty passes over memory; here a thread encrypts a counter in registers. Triton is
optional: without it, and off CUDA, `philox` draws by itself.
"""

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

HAS_TRITON = importlib.util.find_spec("triton") is not None

_BLOCK = 256


def draws(keys: Tensor) -> bool:
    """Whether fields for these keys are drawn here."""
    return HAS_TRITON and keys.device.type == "cuda"


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def philox4x32(
    counter: Sequence[Tensor], key: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encrypt counters, as `philox.philox4x32` does."""
    words = [word.contiguous() for word in torch.broadcast_tensors(*counter, *key)]
    out = torch.empty((4, *words[0].shape), dtype=torch.int64, device=words[0].device)
    total = words[0].numel()
    if total:
        from .philox_kernels import words_kernel

        words_kernel[(-(-total // _BLOCK),)](*words, out, total, BLOCK=_BLOCK)
    return out[0], out[1], out[2], out[3]


def normal_field(
    keys: Tensor, *, op: int, plane: int, planes: int, top: int, height: int, first: int, quads: int
) -> Tensor:
    """Draw normal numbers, float32 (B, planes, height, 4 quads), from column 4 first on."""
    B = keys.shape[0]
    out = torch.empty((B, planes, height, 4 * quads), dtype=torch.float32, device=keys.device)
    total = out.numel() // 4
    if total:
        from .philox_kernels import normal_kernel

        normal_kernel[(-(-total // _BLOCK),)](
            keys.contiguous(),
            out,
            total,
            op,
            plane,
            planes,
            top,
            height,
            first,
            quads,
            BLOCK=_BLOCK,
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
        from .philox_kernels import bits_kernel

        bits_kernel[(-(-total // _BLOCK),)](
            keys.contiguous(), out, total, op, plane, planes, top, height, left, width, BLOCK=_BLOCK
        )
    return out
