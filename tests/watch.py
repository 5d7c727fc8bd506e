"""What a computation asks of the host and of torch's own generator."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """Collects operations that would wait for a GPU, and those that draw from a global generator.

    Copies from the host are seen on the CPU too: `torch.tensor` and `torch.from_numpy` are followed
    by `lift_fresh`, whatever the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.draws: list[str] = []
        self.seen = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen += 1
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.draws.append(str(func))
        if _waits(func, args, out):
            self.waits.append(str(func))
        return out


def _waits(func: Any, args: tuple[Any, ...], out: Any) -> bool:
    if func is torch.ops.aten.lift_fresh.default:
        return True
    if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
        devices = {one.device for one in (*args, out) if isinstance(one, Tensor)}
        return len(devices) > 1
    if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default):
        # Whole numbers are as good as any; what a mask picks has to be counted first.
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))
