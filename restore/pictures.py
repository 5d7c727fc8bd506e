"""Pictures of all kinds as arrays of pixels, and back: Pillow images, NumPy arrays, tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..datasets.photos import to_srgb


@dataclass(frozen=True, slots=True)
class Taken:
    """A picture that was given, and how to give one back."""

    pixels: np.ndarray
    """(H, W, C), C = 1 or 3; unsigned integers, or floats in [0, 1]."""
    copy: Callable[[], Any]
    """Returns a copy of what was given."""
    make: Callable[[np.ndarray, bool], Any]
    """Turns pixels, or those of a mask, into the kind that was given."""

    def give_back(self, pixels: np.ndarray, *, is_mask: bool = False) -> Any:
        """Return pixels (H, W, C) in the kind that was given."""
        return self.make(pixels, is_mask)


def take_picture(picture: Any) -> Taken:
    """Take a picture of any kind.

    Raises:
        ValueError: If it is none, or has no pixels, or values out of range.
    """
    if isinstance(picture, Image.Image):
        return _take_image(picture)
    if isinstance(picture, np.ndarray):
        return _take_array(picture)
    if isinstance(picture, Tensor):
        return _take_tensor(picture)
    raise ValueError(
        "picture must be a Pillow image, a NumPy array or a tensor, or a list of them, got "
        f"{type(picture).__name__}; PIL.Image.open reads files"
    )


def take_mask(name: str, mask: Any, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (H, W) of any kind as float32 in [0, 1].

    Raises:
        ValueError: If it is no mask, or of another size.
    """
    if isinstance(mask, Image.Image):
        values = np.asarray(mask if mask.mode.startswith("I;16") else mask.convert("L"))
    elif isinstance(mask, Tensor):
        values = mask.detach().cpu().numpy()
    else:
        values = mask
    if not isinstance(values, np.ndarray):
        raise ValueError(
            f"{name} must be a Pillow image, a NumPy array or a tensor, got {type(mask).__name__}"
        )
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 and values.shape[2] != 1 else values[..., 0]
    if values.shape != tuple(size):
        raise ValueError(
            f"{name} must be as large as the picture, {size[0]} x {size[1]} (height x width), "
            f"got {' x '.join(map(str, values.shape))}"
        )
    if values.dtype == bool:
        return values.astype(np.float32)
    _check_type(name, values.dtype)
    if values.dtype.kind == "f":
        _check_range(name, values)
        return values.astype(np.float32).clip(0, 1)
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def as_floats(pixels: np.ndarray, top: int, bottom: int) -> Tensor:
    """Return rows of pixels (H, W, C) as float32 (C, h, W) in [0, 1]."""
    rows = pixels[top:bottom].astype(np.float32)
    if pixels.dtype.kind == "u":
        rows /= np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(rows).clamp_(0, 1).permute(2, 0, 1).contiguous()


def store_rows(values: Tensor, pixels: np.ndarray, part: slice) -> None:
    """Write rows (C, h, W) in [0, 1] into their place in (H, W, C), rounded to the nearest."""
    rows = values.permute(1, 2, 0).numpy()
    if pixels.dtype.kind == "u":
        # Of 16 bits float32 has 8 to spare.
        rows = rows * np.float32(np.iinfo(pixels.dtype).max) + np.float32(0.5)
    pixels[part] = rows.astype(pixels.dtype)


def _take_image(image: Image.Image) -> Taken:
    mode, alpha, plain = image.mode, None, image
    if image.has_transparency_data and not mode.startswith("I"):
        plain = image.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = plain.getchannel("A")
        plain = plain.convert(plain.mode[:-1])
    if mode == "1":
        plain = plain.convert("L")
    elif plain.mode not in ("L", "RGB") and not plain.mode.startswith("I;16"):
        plain = to_srgb(plain)
    pixels = np.asarray(plain)

    def make(restored: np.ndarray, is_mask: bool) -> Image.Image:
        result = Image.fromarray(restored[..., 0] if restored.shape[2] == 1 else restored)
        if alpha is not None and not is_mask:
            result.putalpha(alpha)
        return result

    return Taken(_with_channels(pixels), image.copy, make)


def _take_array(array: np.ndarray) -> Taken:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))) or not array.size:
        raise ValueError(f"an array must be (H, W), (H, W, 1) or (H, W, 3), got {array.shape}")
    _check_type("an array", array.dtype)
    if array.dtype.kind == "f":
        _check_range("a floating-point picture", array)

    def make(restored: np.ndarray, is_mask: bool) -> np.ndarray:
        del is_mask
        return restored[..., 0] if array.ndim == 2 and restored.shape[2] == 1 else restored

    return Taken(_with_channels(array), array.copy, make)


def _take_tensor(tensor: Tensor) -> Taken:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or not tensor.numel():
        raise ValueError(
            "a tensor must be (C, H, W) or (B, C, H, W) with 1 or 3 channels, "
            f"got {tuple(tensor.shape)}"
        )
    if tensor.dtype.is_floating_point:
        _check_range("a floating-point picture", tensor)
    elif tensor.dtype != torch.uint8:
        raise ValueError(f"a tensor must be uint8 or floating point, got {tensor.dtype}")
    plain = tensor.detach().cpu()
    if tensor.dtype.is_floating_point and tensor.dtype != torch.float64:
        plain = plain.float()
    pixels = plain.permute(1, 2, 0).numpy()

    def make(restored: np.ndarray, is_mask: bool) -> Tensor:
        del is_mask
        back = torch.from_numpy(restored).permute(2, 0, 1).contiguous()
        return back.to(device=tensor.device, dtype=tensor.dtype)

    return Taken(pixels, lambda: tensor.detach().clone(), make)


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _check_type(name: str, dtype: np.dtype) -> None:
    if dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize <= 2):
        return
    raise ValueError(f"{name} must be uint8, uint16 or floating point, got {dtype}")


def _check_range(name: str, values: np.ndarray | Tensor) -> None:
    values = values.detach() if isinstance(values, Tensor) else values
    least, most = float(values.min()), float(values.max())
    # Resampling overshoots a little, which is clipped; NaN fails both comparisons.
    if not (least >= -0.5 and most <= 1.5):
        raise ValueError(
            f"{name} must be in [0, 1], got {least:g} to {most:g}; divide 8-bit values by 255"
        )
