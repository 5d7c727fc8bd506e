"""Which device to work on."""

import torch


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device called `name`; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: If the device is unknown or this machine has none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {str(name)!r}; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"device {str(name)!r} is not there: torch finds no CUDA device; use --device cpu, "
                "or run `agedphoto doctor`"
            )
        if device.index is None:
            return torch.device("cuda", torch.cuda.current_device())
        if device.index >= torch.cuda.device_count():
            raise ValueError(
                f"device {str(name)!r} is not there: this machine has {torch.cuda.device_count()} "
                "CUDA devices, counted from 0"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there: torch finds no Apple GPU; use --device cpu")
    return device
