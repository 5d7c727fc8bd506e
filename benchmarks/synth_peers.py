"""The same work by others: luma, Gaussian grain, clipped, one texture added, clipped.

Each contender takes a batch of uint8 photos and returns (aged, clean), float32, one channel. They
are written as their documentation has it; what a library lacks (no library lays textures) is done
in plain torch or NumPy on its side, at its best. Before anything is timed `check` shows that all do
the same work: with both, with grain alone and with textures alone.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agedphoto.synth import Ageing, Grain, Grayscale, Recipe, Texture
from agedphoto.textures import TextureBank

from .peers import load, why_absent

SIGMA, ALPHA = 0.10, 0.5
MASK_LEVEL = 0.05
"""A pixel is covered where the texture adds at least so much."""
LUMA = (0.299, 0.587, 0.114)

Run = Callable[[], tuple[Tensor, Tensor]]
Make = Callable[["Work"], Run]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done."""

    photos: Tensor
    """uint8 (B, 3, H, W), on the device."""
    bank: TextureBank
    """On the same device."""
    sigma: float = SIGMA
    alpha: float = ALPHA

    @property
    def device(self) -> torch.device:
        """Where it is done."""
        return self.photos.device


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """Who does it."""

    name: str
    make: Make | None
    """None where it cannot be had here."""
    why_not: str = ""
    compiled: bool = False


def contenders(device: torch.device) -> list[Contender]:
    """Return all of them, those that cannot be had here with the reason."""
    is_cuda = device.type == "cuda"
    return [
        Contender(name="agedphoto, eager", make=partial(_ours, backend="eager")),
        Contender(
            name="agedphoto, compiled", make=partial(_ours, backend="compiled"), compiled=True
        ),
        Contender(
            name="agedphoto, fused kernel",
            make=partial(_ours, backend="fused") if is_cuda else None,
            why_not="it needs a CUDA device",
        ),
        Contender(name="Kornia, as people write it", make=kornia_chain),
        Contender(
            name="Kornia, generators on the device",
            make=partial(kornia_chain, generators=True) if device.type != "cpu" else None,
            why_not="on a CPU they are there already",
        ),
        Contender(
            name="Kornia, compiled",
            make=partial(kornia_chain, generators=True, compiled=True),
            compiled=True,
        ),
        _if_there("torchvision v2", "torchvision", torchvision_chain),
        Contender(name="plain torch, eager", make=plain_torch),
        Contender(
            name="plain torch, compiled", make=partial(plain_torch, compiled=True), compiled=True
        ),
        _if_there("albumentations, CPU, all cores", "albumentations", _albumentations),
    ]


def check(
    works: dict[str, Run], make_again: Callable[[str, float, float], Run], slack: float
) -> None:
    """Raise unless all change the photos alike.

    Args:
        works: The contenders, with grain and textures.
        make_again: Makes one by name, with another sigma and alpha.
        slack: How far means, spreads and coverage may be apart, in units of full scale.

    Raises:
        RuntimeError: Names who does something else.
    """
    measured: dict[str, dict[str, float]] = {}
    shapes: dict[str, Any] = {}
    for name, run in works.items():
        aged, clean = run()
        change = aged.float() - clean.float()
        grain = _change(make_again(name, SIGMA, 0.0)())
        layer = _change(make_again(name, 0.0, ALPHA)())
        shapes[name] = (tuple(aged.shape), tuple(clean.shape))
        measured[name] = {
            "mean": change.mean().item(),
            "spread": change.std().item(),
            "grain's variance": grain.var().item(),
            "texture coverage": (layer >= MASK_LEVEL).float().mean().item(),
        }
    first = next(iter(measured))
    for name, found in measured.items():
        for what, value in found.items():
            if not abs(value - measured[first][what]) < slack or shapes[name] != shapes[first]:
                raise RuntimeError(
                    f"not the same work: {what} of {name} is {value:.4f} and of {first} "
                    f"{measured[first][what]:.4f}; shapes {shapes[name]} and {shapes[first]}"
                )


def _change(pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[0].float() - pair[1].float()


def _if_there(name: str, module: str, make: Make) -> Contender:
    problem = why_absent(module)
    return Contender(name=name, make=None if problem else make, why_not=problem or "")


def _ours(work: Work, *, backend: Any) -> Run:
    recipe = Recipe(
        name="benchmark",
        defects=(
            Grayscale(),
            Grain(sigma=(work.sigma, work.sigma)),
            Texture(alpha=(work.alpha, work.alpha), zoom=(1.0, 1.0)),
        ),
    )
    ageing = Ageing(recipe, mode="grayscale", textures=work.bank, backend=backend)
    keys = torch.arange(len(work.photos), device=work.device)

    def run() -> tuple[Tensor, Tensor]:
        aged, clean, _ = ageing(work.photos, keys)
        return aged, clean

    return run


def _layer(work: Work) -> Tensor:
    """Cut one window of a random texture for each photo, as light-handed as torch can."""
    B, _, H, W = work.photos.shape
    index = torch.randint(len(work.bank), (B,), device=work.device)
    # One offset for the batch: a slice and no gather, which is kinder than our own work.
    room = work.bank.size_px - max(H, W)
    top, left = torch.randint(room + 1, (2,)).tolist()
    return work.bank.textures[index, top : top + H, left : left + W][:, None].float() / 255


def kornia_chain(work: Work, *, generators: bool = False, compiled: bool = False) -> Run:
    """Two of Kornia's modules; the texture is laid by hand."""
    augmentation = load("kornia.augmentation")
    gray = augmentation.RandomGrayscale(p=1.0)
    noise = augmentation.RandomGaussianNoise(mean=0.0, std=work.sigma, p=1.0)
    if generators:
        for module in (gray, noise):
            module.set_rng_device_and_dtype(work.device, torch.float32)
    if compiled:
        gray, noise = torch.compile(gray, dynamic=False), torch.compile(noise, dynamic=False)

    def run() -> tuple[Tensor, Tensor]:
        clean = gray(work.photos.float() / 255)[:, :1]
        # It does not clip.
        grainy = noise(clean).clamp(0, 1)
        return (grainy + work.alpha * _layer(work)).clamp(0, 1), clean

    return run


def torchvision_chain(work: Work) -> Run:
    """Two of torchvision's transforms v2; the texture is laid by hand."""
    v2 = load("torchvision.transforms.v2")
    gray = v2.Compose([v2.Grayscale(1), v2.ToDtype(torch.float32, scale=True)])
    noise = v2.GaussianNoise(mean=0.0, sigma=work.sigma, clip=True)

    def run() -> tuple[Tensor, Tensor]:
        clean = gray(work.photos)
        return (noise(clean) + work.alpha * _layer(work)).clamp(0, 1), clean

    return run


def plain_torch(work: Work, *, compiled: bool = False) -> Run:
    """What anybody would write."""
    luma = torch.tensor(LUMA, device=work.device)[None, :, None, None]

    def age(photos: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
        clean = (photos.float() / 255 * luma).sum(1, keepdim=True)
        grainy = (clean + work.sigma * torch.randn_like(clean)).clamp(0, 1)
        return (grainy + work.alpha * layer).clamp(0, 1), clean

    step = torch.compile(age, dynamic=False) if compiled else age
    return lambda: step(work.photos, _layer(work))


def _albumentations(work: Work) -> Run:
    """Photo by photo on threads: NumPy and OpenCV release the lock, and nothing is sent about."""
    A = load("albumentations")
    load("cv2").setNumThreads(0)
    photos = [np.ascontiguousarray(p) for p in work.photos.permute(0, 2, 3, 1).cpu().numpy()]
    textures = work.bank.textures.cpu().numpy()
    H, W, _ = photos[0].shape
    room = textures.shape[-1] - max(H, W)
    own = threading.local()
    seeds = iter(range(1, 1_000_000))
    threads = ThreadPoolExecutor(os.cpu_count() or 1)

    def tools() -> tuple[Any, Any, np.random.Generator]:
        # A pipeline keeps a generator of its own and is not for two threads.
        if not hasattr(own, "tools"):
            seed = next(seeds)
            gray = A.Compose([A.ToGray(num_output_channels=1, p=1.0), A.ToFloat(255.0, p=1.0)])
            noise = A.Compose(
                [A.GaussNoise(std_range=(work.sigma, work.sigma), mean_range=(0.0, 0.0), p=1.0)],
                seed=seed,
            )
            own.tools = (gray, noise, np.random.default_rng(seed))
        return own.tools

    def one(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gray, noise, rng = tools()
        clean = gray(image=photo)["image"].reshape(H, W, 1)
        grainy = noise(image=clean)["image"].reshape(H, W, 1)
        top, left = rng.integers(0, room + 1, 2)
        layer = textures[rng.integers(len(textures)), top : top + H, left : left + W, None]
        aged = np.clip(grainy + layer * np.float32(work.alpha / 255), 0, 1)
        return aged, clean

    def run() -> tuple[Tensor, Tensor]:
        done = list(threads.map(one, photos))
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(np.stack([pair[side] for pair in done])).permute(0, 3, 1, 2)
            for side in (0, 1)
        )

    return run
