"""Restorer: a trained network that takes pictures and returns pictures of the same kind.

A network of mode `grayscale` restores the luma of a colour picture and leaves its colours alone:
the change of the luma is added to red, green and blue alike, which keeps Cb and Cr.
"""

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from kornia.color import lab_to_rgb
from PIL import Image
from torch import Tensor

from ..datasets.photos import to_srgb
from ..synth import LAB_SCALE, Mode, find_device, grayscale
from ..train import ModelCard, UNet, load_model
from .tiles import apply_tiled, check_tiles, count_tiles

Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)

OVERLAP_PX = 64
"""What neighbouring tiles share."""
AUTO_TILE_PX = {"cpu": 512, "mps": 512, "cuda": 1024}
"""Tiles of this size keep a network of preset `large` within 2 GiB on a CPU and 4 GiB on a GPU."""


class Restorer:
    """Restores pictures.

    Example:
        restored = Restorer.from_pretrained("grayscale")(Image.open("grandmother.jpg"))
    """

    def __init__(self, net: UNet, card: ModelCard, *, device: str | torch.device = "auto") -> None:
        """Use a network, see `from_pretrained` for one from a file."""
        self.device = find_device(device)
        self.net = net.to(self.device).eval()
        self.card = card

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, device: str | torch.device = "auto"
    ) -> "Restorer":
        """Load a model by name, or from a file of weights (.safetensors) or a folder of a training.

        Raises:
            ValueError: If there is no such model, or the file is not one.
        """
        # The device first: a wrong one is found before weights are read.
        device = find_device(device)
        return cls(*_load(model), device=device)

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
            picture: A Pillow image; an array (H, W) or (H, W, 3), uint8, uint16 or floating point
                in [0, 1]; or a tensor (C, H, W) or (B, C, H, W) with 1 or 3 channels, uint8 or
                floating point in [0, 1].
            strength: 0 returns the picture as it is, 1 restores it fully.
            tile: Side in pixels of the tiles that large pictures are done in.
            on_tile: Called after each tile, for a progress bar.

        Returns:
            A picture of the same kind, size and depth; in the modes that add colour, a gray one
            comes back as RGB. Transparency is kept.

        Raises:
            ValueError: If picture, strength or tile is not as described.
        """
        tile_px = self.check(strength=strength, tile=tile)

        def restore(pixels: Tensor) -> Tensor:
            return self._restore(pixels, strength, tile_px, on_tile)

        if isinstance(picture, Image.Image):
            return _map_image(restore, picture)
        if isinstance(picture, np.ndarray):
            return _map_array(restore, picture)
        if isinstance(picture, Tensor):
            return _map_tensor(restore, picture)
        raise ValueError(
            f"picture must be a Pillow image, a NumPy array or a tensor, got {type(picture)}"
        )

    def check(self, *, strength: float = 1.0, tile: int | Literal["auto"] = "auto") -> int:
        """Return the side of the tiles in pixels, or raise ValueError if an option does not fit."""
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be 0 to 1, got {strength}")
        tile_px = AUTO_TILE_PX.get(self.device.type, 512) if tile == "auto" else tile
        check_tiles(tile_px, OVERLAP_PX, stride=self.net.config.stride)
        return tile_px

    def count_tiles(self, height: int, width: int, tile: int | Literal["auto"] = "auto") -> int:
        """Return how many tiles a picture takes."""
        return count_tiles(height, width, tile_px=self.check(tile=tile), overlap_px=OVERLAP_PX)

    def _restore(
        self, pixels: Tensor, strength: float, tile_px: int, on_tile: Callable[[], object]
    ) -> Tensor:
        """Restore (C, H, W) float32 in [0, 1], C = 1 or 3."""
        if strength == 0:
            return pixels
        aged = pixels if self.mode == "color" else grayscale(pixels[None])[0]
        if self.mode == "color" and aged.shape[0] == 1:
            aged = aged.expand(3, -1, -1)
        answer = apply_tiled(
            self.net,
            aged,
            stride=self.net.config.stride,
            tile_px=tile_px,
            overlap_px=OVERLAP_PX,
            device=self.device,
            on_tile=on_tile,
        )
        if self.mode == "lab":
            answer = lab_to_rgb((answer * answer.new_tensor(LAB_SCALE)[:, None, None])[None])[0]
        if self.mode == "grayscale":
            # One channel or three: the luma changes, the colours stay.
            return (pixels + strength * (answer.clamp(0, 1) - aged)).clamp(0, 1)
        return torch.lerp(aged.expand_as(answer), answer, strength).clamp(0, 1)


def shipped_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    with as_file(files("agedphoto.restore")) as folder:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _load(model: str | Path) -> tuple[UNet, ModelCard]:
    path = Path(model)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors" or path.exists():
        return load_model(path)
    shipped = shipped_models()
    if str(model) not in shipped:
        raise ValueError(
            f"unknown model {str(model)!r}; there are: {', '.join(shipped) or 'none by name'}, or "
            "give the path of a .safetensors file that `agedphoto train` wrote"
        )
    return load_model(shipped[str(model)])


def _map_image(restore: Callable[[Tensor], Tensor], image: Image.Image) -> Image.Image:
    alpha = None
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "I;16"):
        image = to_srgb(image)
    restored = Image.fromarray(_map_array(restore, np.asarray(image)))
    if alpha is not None:
        restored.putalpha(alpha)
    return restored


def _map_array(restore: Callable[[Tensor], Tensor], array: np.ndarray) -> np.ndarray:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))) or not array.size:
        raise ValueError(f"an array must be (H, W), (H, W, 1) or (H, W, 3), got {array.shape}")
    if array.dtype in (np.uint8, np.uint16):
        top = np.iinfo(array.dtype).max
    elif np.issubdtype(array.dtype, np.floating):
        top = 1
    else:
        raise ValueError(f"an array must be uint8, uint16 or floating point, got {array.dtype}")
    pixels = torch.from_numpy(np.atleast_3d(array).astype(np.float32) / np.float32(top))
    restored = restore(pixels.permute(2, 0, 1)).permute(1, 2, 0).numpy()
    if top > 1:
        restored = restored.astype(np.float64) * top + 0.5
    restored = restored.astype(array.dtype)
    return restored[:, :, 0] if array.ndim == 2 and restored.shape[2] == 1 else restored


def _map_tensor(restore: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3) or not tensor.numel():
        raise ValueError(
            "a tensor must be (C, H, W) or (B, C, H, W) with 1 or 3 channels, "
            f"got {tuple(tensor.shape)}"
        )
    if tensor.dtype == torch.uint8:
        top = 255
    elif tensor.dtype.is_floating_point:
        top = 1
    else:
        raise ValueError(f"a tensor must be uint8 or floating point, got {tensor.dtype}")
    pixels = tensor.detach().cpu().to(torch.float32) / top
    if tensor.ndim == 4:
        restored = torch.stack([restore(picture) for picture in pixels])
    else:
        restored = restore(pixels)
    if top > 1:
        restored = restored * top + 0.5
    return restored.to(device=tensor.device, dtype=tensor.dtype)
