"""Which arithmetic a device does fast."""

from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 matrix work is done in hardware on `device`."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Without these instructions oneDNN converts back and forth, at a loss.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def uses_bf16(device: torch.device, precision: Precision = "auto") -> bool:
    """Whether the network computes in bfloat16."""
    return precision == "bf16" or (precision == "auto" and bf16_is_fast(device))


def autocast(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """Return the context in which the network computes; weights stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(device, precision))
