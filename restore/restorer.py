"""Restorer: a trained network that takes pictures and returns pictures of the same kind.

A network of mode `grayscale` restores the luma of a colour picture and leaves its colours alone:
the change of the luma is added to red, green and blue alike, which keeps Cb and Cr.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..datasets.photos import to_srgb
from ..synth import Mode, find_device, grayscale
from ..train import LabNet, ModelCard, Net, UNet, load_model
from .colorize import colorize, with_colors
from .tiles import apply_tiled, check_tiles, count_tiles

Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)

OVERLAP_CELLS = 8
"""What neighbouring tiles share, counted in pixels of the network's coarsest level: 64 px for
preset `tiny`, 128 px for `base` and `large`. Trained networks then answer in tiles as in one piece
to within a quarter of one 8-bit step; with half of it there are seams of several steps.
"""
AUTO_TILE_PX = {"cpu": 1024, "mps": 512, "cuda": 1024}
"""Tiles of this size keep a network of preset `large` within 2 GiB."""


class Restorer:
    """Restores pictures.

    Example:
        restored = Restorer.from_pretrained("grayscale")(Image.open("grandmother.jpg"))
    """

    def __init__(self, net: Net, card: ModelCard, *, device: str | torch.device = "auto") -> None:
        """Use a network, see `from_pretrained` for one from a file."""
        self.device = find_device(device)
        self.net = net.to(self.device).eval()
        self.card = card
        self._tiled = net.luminance if isinstance(net, LabNet) else net
        """What goes over a picture in tiles; None for colours without a network for luminance."""
        self._stride = self._tiled.config.stride if self._tiled else 1
        self._overlap_px = OVERLAP_CELLS * self._stride

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, device: str | torch.device = "auto"
    ) -> "Restorer":
        """Load a model by name, or from a file of weights (.safetensors) or a folder of a training.

        A string that is the name of a model means that model; a folder of the same name in the
        current folder is `./name`.

        Raises:
            ValueError: If there is no such model, or the file is not one.
        """
        # The device first: a wrong one is found before weights are read.
        device = find_device(device)
        return cls(*find_model(model), device=device)

    @property
    def mode(self) -> Mode:
        """What the network sees and answers, see `synth.modes`."""
        return self.card.mode

    def __call__(
        self,
        picture: Picture,
        *,
        strength: float = 1.0,
        tile: int | Literal["auto"] = "auto",
        on_tile: Callable[[], object] = lambda: None,
    ) -> Picture:
        """Restore a picture.

        Args:
            picture: A Pillow image; an array (H, W), (H, W, 1) or (H, W, 3), uint8, uint16 or
                floating point in [0, 1]; or a tensor (C, H, W) or (B, C, H, W) with 1 or 3
                channels, uint8 or floating point in [0, 1].
            strength: 0 returns a copy of the picture, 1 restores it fully.
            tile: Side in pixels of the tiles that large pictures are done in.
            on_tile: Called after each tile, for a progress bar.

        Returns:
            A picture of the same kind, size and depth; in all modes but `grayscale`, a gray one
            comes back as RGB. Transparency is kept. Pillow images of other modes than L, RGB and
            16 bits, with or without transparency, come back in one of these: bilevel as L, the
            rest as 8-bit sRGB.

        Raises:
            ValueError: If picture, strength or tile is not as described, or a tile does not fit
                into the memory of the device.
        """
        tile_px = self.check(strength=strength, tile=tile)

        def restore(pixels: Tensor) -> Tensor:
            return self._restore(pixels, strength, tile_px, on_tile)

        if isinstance(picture, Image.Image):
            return _map_image(restore, picture) if strength else picture.copy()
        if isinstance(picture, np.ndarray):
            _check_array(picture)
            return _map_array(restore, picture) if strength else picture.copy()
        if isinstance(picture, Tensor):
            _check_tensor(picture)
            return _map_tensor(restore, picture) if strength else picture.detach().clone()
        raise ValueError(
            "picture must be a Pillow image, a NumPy array or a tensor, got "
            f"{type(picture).__name__}; PIL.Image.open reads files"
        )

    def check(self, *, strength: float = 1.0, tile: int | Literal["auto"] = "auto") -> int:
        """Return the side of the tiles in pixels, or raise ValueError if an option does not fit."""
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be 0 to 1, got {strength}")
        stride = self._stride
        if tile == "auto":
            wanted = max(AUTO_TILE_PX.get(self.device.type, 512), 2 * self._overlap_px)
            tile = -(-wanted // stride) * stride
        elif isinstance(tile, bool) or not isinstance(tile, int):
            raise ValueError(f"tile must be 'auto' or a whole number of pixels, got {tile!r}")
        check_tiles(tile, self._overlap_px, stride=stride)
        return tile

    def count_tiles(self, height: int, width: int, tile: int | Literal["auto"] = "auto") -> int:
        """Return how many tiles a picture takes."""
        tile_px = self.check(tile=tile)
        if not self._tiled:
            return 1
        tiles = count_tiles(height, width, tile_px=tile_px, overlap_px=self._overlap_px)
        return tiles + isinstance(self.net, LabNet)

    def _restore(
        self, pixels: Tensor, strength: float, tile_px: int, on_tile: Callable[[], object]
    ) -> Tensor:
        """Restore (C, H, W) float32, C = 1 or 3."""
        pixels = pixels.clamp(0, 1)
        aged = pixels if self.mode == "color" else grayscale(pixels[None])[0]
        if self.mode == "color":
            aged = aged.expand(3, -1, -1)
        answer = self._answer(self._tiled, aged, tile_px, on_tile) if self._tiled else aged
        if isinstance(self.net, LabNet):
            luma = answer.clamp(0, 1)[None]
            ab = colorize(self.net.color, luma.to(self.device)).float().cpu()
            on_tile()
            answer = with_colors(luma, ab)[0]
        answer = answer.clamp(0, 1)
        if self.mode == "grayscale":
            # One channel or three: the luma changes, the colours stay.
            answer = (pixels + (answer - aged)).clamp(0, 1)
        return torch.lerp(pixels.expand_as(answer), answer, strength)

    def _answer(
        self, net: UNet, aged: Tensor, tile_px: int, on_tile: Callable[[], object]
    ) -> Tensor:
        try:
            return apply_tiled(
                net,
                aged,
                stride=self._stride,
                tile_px=tile_px,
                overlap_px=self._overlap_px,
                device=self.device,
                on_tile=on_tile,
            )
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"not enough memory on {self.device} for tiles of {tile_px} px; use a smaller tile"
            ) from error


def shipped_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}


def find_model(model: str | Path) -> tuple[Net, ModelCard]:
    """Load a model by name, from a file of weights, or from a folder of a training.

    Raises:
        ValueError: If there is no such model, or the file is not one.
    """
    shipped = shipped_models()
    if isinstance(model, str) and model in shipped:
        return load_model(shipped[model])
    path = Path(model)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors" or path.exists():
        return load_model(path)
    raise ValueError(
        f"unknown model {str(model)!r}; there are: {', '.join(shipped) or 'none by name'}, or "
        "give the path of a .safetensors file that `agedphoto train` wrote"
    )


def _map_image(restore: Callable[[Tensor], Tensor], image: Image.Image) -> Image.Image:
    mode, alpha = image.mode, None
    if image.has_transparency_data and not mode.startswith("I"):
        image = image.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    if mode == "1":
        image = image.convert("L")
    elif mode not in ("L", "LA", "RGB", "RGBA") and not mode.startswith("I;16"):
        image = to_srgb(image)
    restored = Image.fromarray(_map_array(restore, np.asarray(image)))
    if alpha is not None:
        restored.putalpha(alpha)
    return restored


def _map_array(restore: Callable[[Tensor], Tensor], array: np.ndarray) -> np.ndarray:
    top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    pixels = torch.from_numpy(np.atleast_3d(array).astype(np.float32) / np.float32(top))
    restored = restore(pixels.permute(2, 0, 1)).permute(1, 2, 0).numpy()
    if top > 1:
        restored = restored.astype(np.float64) * top + 0.5
    restored = restored.astype(array.dtype)
    return restored[:, :, 0] if array.ndim == 2 and restored.shape[2] == 1 else restored


def _map_tensor(restore: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    top = 255 if tensor.dtype == torch.uint8 else 1
    pixels = tensor.detach().cpu().to(torch.float32) / top
    if tensor.ndim == 4:
        restored = torch.stack([restore(picture) for picture in pixels])
    else:
        restored = restore(pixels)
    if top > 1:
        restored = restored * top + 0.5
    return restored.to(device=tensor.device, dtype=tensor.dtype)


def _check_array(array: np.ndarray) -> None:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))) or not array.size:
        raise ValueError(f"an array must be (H, W), (H, W, 1) or (H, W, 3), got {array.shape}")
    if array.dtype.kind == "f":
        _check_range(float(array.min()), float(array.max()))
    elif array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ValueError(f"an array must be uint8, uint16 or floating point, got {array.dtype}")


def _check_tensor(tensor: Tensor) -> None:
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3) or not tensor.numel():
        raise ValueError(
            "a tensor must be (C, H, W) or (B, C, H, W) with 1 or 3 channels, "
            f"got {tuple(tensor.shape)}"
        )
    if tensor.dtype.is_floating_point:
        _check_range(tensor.min().item(), tensor.max().item())
    elif tensor.dtype != torch.uint8:
        raise ValueError(f"a tensor must be uint8 or floating point, got {tensor.dtype}")


def _check_range(least: float, most: float) -> None:
    # Resampling overshoots a little, which is clipped; NaN fails both comparisons.
    if not (least >= -0.5 and most <= 1.5):
        raise ValueError(
            f"a floating-point picture must be in [0, 1], got {least:g} to {most:g}; "
            "divide 8-bit values by 255"
        )
