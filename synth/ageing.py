"""Ageing: clean photographs in, aged / clean pairs and the damage mask out, on the same device.

Everything drawn comes from the photograph's key, so a photograph ages alike in any batch.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import torch

from ..textures import TextureBank
from .augment import Augment
from .banks import Banks, EndlessTextures
from .fused import FUSED_DTYPES, FusedAgeing, Pixels, available, fits
from .keys import check_seed, sample_keys
from .modes import Mode, aged_in_mode, check_mode, clean_in_mode
from .recipe import Recipe
from .recipes import find_recipe
from .scene import Scene
from .types import Images, InMode, Keys, Mask, Params, Photos

Backend: TypeAlias = Literal["auto", "eager", "compiled", "fused"]

WINDOW_STEP = 16
"""Windows of a picture begin at multiples of this: JPEG's blocks, twice subsampled, lie so."""


class AgedPhotos(NamedTuple):
    """A batch of pairs; where nothing was changed they share memory with the photos given."""

    aged: InMode
    clean: InMode
    mask: Mask


class Ageing:
    """Ages batches of photographs after a recipe.

    Example:
        aged, clean, mask = Ageing("seed", seed=0)(photos)  # (B, 3, H, W), uint8 or float
    """

    def __init__(
        self,
        recipe: str | Recipe = "seed",
        *,
        seed: int = 0,
        mode: Mode = "color",
        textures: TextureBank | EndlessTextures | None = None,
        dtype: torch.dtype = torch.float32,
        augment: bool = True,
        backend: Backend = "auto",
        channels_last: bool = False,
    ) -> None:
        """Settle the recipe.

        Args:
            recipe: Name of a recipe, or one of your own.
            seed: 0 to 2**64 - 1; used where a call gives no keys.
            mode: Channels of aged and clean, see `synth.modes`.
            textures: Wear to draw from; the 64 textures that are shipped if None, read at the first
                call. Endless ones are made afresh on the device for every epoch, see `turn_to`.
            dtype: Floating-point type of aged and clean.
            augment: Whether the clean photo is varied first, as the recipe has it; to age a
                photograph in its place, False.
            backend: What does the work. "eager": torch, an operation at a time; "compiled":
                torch.compile makes few kernels of them; "fused": one kernel for recipes of
                Grayscale, ToneCurve, Grain and Texture, on CUDA with Triton. "auto" takes the last
                of these that can be had on a GPU, and "eager" elsewhere.
            channels_last: Memory format of aged and clean.

        Raises:
            ValueError: If the recipe, the mode or the backend is unknown, the seed out of range,
                dtype not floating point, or the recipe not for the fused kernel.
        """
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be floating point, got {dtype}; use torch.float32")
        self.recipe = find_recipe(recipe)
        self.seed = check_seed(seed)
        self.mode: Mode = check_mode(mode)
        self.dtype = dtype
        self.augment = self.recipe.augment if augment else Augment()
        self._banks = Banks(textures)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._photos_seen = 0
        if backend not in get_args(Backend):
            raise ValueError(
                f"unknown backend {backend!r}; there are: {', '.join(get_args(Backend))}"
            )
        self.backend: Backend = backend
        kernel_fits = fits(self.recipe) and dtype in FUSED_DTYPES
        self._fused = (
            FusedAgeing(self.recipe, mode=self.mode, augment=self.augment, dtype=dtype)
            if backend == "fused" or (backend == "auto" and kernel_fits)
            else None
        )
        self._compiled: Callable[..., AgedPhotos] | None = None

    def backend_on(self, device: torch.device) -> Backend:
        """Return what does the work on a device.

        Raises:
            ValueError: If that is the fused kernel, asked for by name, and there is no Triton.
        """
        if self.backend in ("eager", "compiled"):
            return self.backend
        # The interpreter is for tests, which ask for it.
        wanted = self.backend == "fused" or device.type == "cuda"
        if self._fused is not None and wanted and available(device):
            return "fused"
        if self.backend == "fused":
            raise ValueError(
                f"backend 'fused' needs Triton and a CUDA device, got {device}; use 'eager' or "
                "'compiled'"
            )
        return "compiled" if device.type == "cuda" else "eager"

    def __call__(
        self,
        photos: Photos,
        keys: Keys | None = None,
        *,
        margin_px: int = 0,
        move: bool = True,
    ) -> AgedPhotos:
        """Age a batch.

        Args:
            photos: (B, 3, H, W), uint8 in 0..255 or floating point in [0, 1].
            keys: One int64 key for each photograph, on any device. None numbers the photographs
                seen by this object and derives their keys from the seed, so every call draws anew
                and a fresh object repeats the sequence. So do copies, as in the workers of a
                DataLoader: give them keys, or seeds of their own.
            margin_px: What lies around the pictures proper, on each side, for the augmentation to
                move in; it is cut off.
            move: Whether the augmentation may rotate, zoom and shift; brightness it varies anyway.

        Raises:
            ValueError: If the shape or the type of photos or keys does not fit.
        """
        _check_photos(photos)
        B, device = len(photos), photos.device
        if keys is None:
            keys = self._next_keys(B)
        _check_keys(keys, B)
        keys = keys.to(device, non_blocking=True)
        if torch.compiler.is_compiling():
            # Within a graph of the caller's; what is settled about products is theirs, too.
            return self._age(photos, keys, margin_px, move)
        backend = self.backend_on(device)
        size = (photos.shape[2], photos.shape[3])
        # The kernel's places are int32 and in 1 / 2**16 px.
        fits_kernel = margin_px == 0 and photos.dtype != torch.float64 and max(size) <= 8192
        if backend == "fused" and fits_kernel:
            return self._age_fused(Pixels.of_batch(photos), keys, size, move=move)
        if backend == "compiled":
            # Drawn now: a graph holds no files to read and no textures to draw.
            self._textures_if_used(device)
            if self._compiled is None:
                self._compiled = torch.compile(self._age, dynamic=False)
            with exact_products():
                return self._compiled(photos, keys, margin_px, move)
        with exact_products():
            return self._age(photos, keys, margin_px, move)

    def age_crops(self, photos: Pixels, keys: Keys, *, crop_px: int) -> AgedPhotos:
        """Cut a square out of each photograph where it lies, turn it, and age it: one launch.

        The same as `sample_crops`, `turn_crops` and a call with the crops and their margin.

        Args:
            photos: Where the photographs lie, packed (H, W, 3), uint8; none smaller than the crop.
            keys: One int64 key for each photograph, on their device.
            crop_px: Side of the squares.

        Raises:
            ValueError: If the fused kernel is not to be had, see `backend_on`.
        """
        backend = self.backend_on(keys.device)
        if backend != "fused":
            raise ValueError(f"crops are aged where they lie by backend 'fused', not {backend!r}")
        return self._age_fused(photos, keys, (crop_px, crop_px), crop=True)

    def _age_fused(
        self, photos: Pixels, keys: Keys, size: tuple[int, int], **options: bool
    ) -> AgedPhotos:
        assert self._fused is not None
        textures = self._textures_if_used(keys.device)
        channels_last = self._layout is torch.channels_last
        return AgedPhotos(
            *self._fused(
                photos, keys, size=size, textures=textures, channels_last=channels_last, **options
            )
        )

    def _age(self, photos: Photos, keys: Keys, margin_px: int, move: bool) -> AgedPhotos:
        clean = _as_float32(photos)
        H, W = clean.shape[2] - 2 * margin_px, clean.shape[3] - 2 * margin_px
        augment = self.augment if move else dataclasses.replace(self.augment, p=0.0)
        if augment.moves or augment.tones or margin_px:
            drawn = augment.sample(keys, side_px=min(H, W))
            clean = augment.apply(clean, drawn, margin_px=margin_px)
        return self.apply(clean, self.sample(keys, size=(H, W)), keys=keys)

    def sample(self, keys: Keys, *, size: tuple[int, int]) -> list[Params]:
        """Draw the parameters of every defect for pictures of `size` (H, W), in recipe order."""
        return [
            defect.sample(scene)
            for defect, scene in zip(self.recipe.defects, self._scenes(keys, size), strict=True)
        ]

    def apply(
        self,
        clean: Photos,
        params: list[Params],
        *,
        keys: Keys,
        size: tuple[int, int] | None = None,
        top: int = 0,
        left: int = 0,
    ) -> AgedPhotos:
        """Age photographs as `sample` has drawn it; the same arguments, the same result.

        Args:
            clean: (B, 3, H, W), uint8 in 0..255 or floating point in [0, 1].
            params: What `sample` returned, or what you made of it.
            keys: Those that were given to `sample`.
            size: Height and width of the whole pictures, if these are windows of larger ones.
            top: First row of the window; a multiple of 16.
            left: First column of the window; a multiple of 16.

        Raises:
            ValueError: If the photographs are of a wrong shape or type, or params are of another
                recipe.
        """
        _check_photos(clean)
        _check_keys(keys, len(clean))
        if len(params) != len(self.recipe.defects):
            raise ValueError(
                f"params are of {len(params)} defects, but recipe {self.recipe.name!r} has "
                f"{len(self.recipe.defects)}; give what `sample` of this recipe has drawn"
            )
        if top % WINDOW_STEP or left % WINDOW_STEP:
            raise ValueError(
                f"top and left must be multiples of {WINDOW_STEP}, the grid of JPEG's blocks, got "
                f"{top} and {left}"
            )
        x = clean = _as_float32(clean)
        scenes = self._scenes(keys, size or (x.shape[2], x.shape[3]), top, left)
        hidden = torch.zeros_like(x[:, :1], dtype=torch.bool)
        # A caller's autocast would round the convolutions of a defect to bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            for defect, drawn, scene in zip(self.recipe.defects, params, scenes, strict=True):
                # Of no photographs, convolutions make an error.
                try:
                    x, mask = defect.apply(x, drawn, scene) if len(x) else (x, None)
                except KeyError as error:
                    raise ValueError(
                        f"params of {type(defect).__name__} lack {error}; give what `sample` of "
                        f"recipe {self.recipe.name!r} has drawn"
                    ) from error
                if mask is not None:
                    hidden = hidden | mask
            aged, clean = aged_in_mode(x, self.mode), clean_in_mode(clean, self.mode)
        return AgedPhotos(
            aged.to(self.dtype).contiguous(memory_format=self._layout),
            clean.to(self.dtype).contiguous(memory_format=self._layout),
            hidden,
        )

    def _scenes(
        self, keys: Keys, size: tuple[int, int], top: int = 0, left: int = 0
    ) -> list[Scene]:
        textures = self._textures_if_used(keys.device)
        severity = self.recipe.severity(keys)
        return [
            Scene(
                keys=keys,
                op=op,
                size=size,
                severity=severity,
                textures=textures,
                top=top,
                left=left,
            )
            for op in range(len(self.recipe.defects))
        ]

    def textures_on(self, device: torch.device) -> TextureBank:
        """Return the texture bank on `device`; it stays there until wanted on another."""
        return self._banks.on(device)

    @property
    def textures_fingerprint(self) -> str | None:
        """What tells the textures from others; None if the recipe uses none."""
        return self._banks.fingerprint if self.recipe.uses_textures else None

    def turn_to(self, epoch: int) -> None:
        """Go to an epoch: endless textures are others in each."""
        self._banks.turn_to(epoch)

    def _textures_if_used(self, device: torch.device) -> TextureBank | None:
        return self.textures_on(device) if self.recipe.uses_textures else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be pickled; it is made again when wanted."""
        return self.__dict__ | {"_compiled": None}

    def _next_keys(self, count: int) -> Keys:
        with _NUMBERING:
            first = self._photos_seen
            self._photos_seen += count
        samples = torch.arange(first, first + count)
        return sample_keys(self.seed, 0, samples, torch.zeros_like(samples))


_NUMBERING = Lock()

_BACKENDS: Any = torch.backends
_PRODUCTS = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
)


class _ExactProducts:
    """How many are at it, and what was settled before the first of them came."""

    lock = Lock()
    depth = 0
    before: ClassVar[list[Any]] = []


@contextmanager
def exact_products() -> Iterator[None]:
    """Keep convolutions and matrix products in full float32: no TF32 with its ten bits.

    Results are to be the same on every device. The setting is the process's, so it holds until the
    last thread has left.
    """
    with _ExactProducts.lock:
        if _ExactProducts.depth == 0:
            _ExactProducts.before = [kind.fp32_precision for kind in _PRODUCTS]
            for kind in _PRODUCTS:
                kind.fp32_precision = "ieee"
        _ExactProducts.depth += 1
    try:
        yield
    finally:
        with _ExactProducts.lock:
            _ExactProducts.depth -= 1
            if _ExactProducts.depth == 0:
                for kind, precision in zip(_PRODUCTS, _ExactProducts.before, strict=True):
                    kind.fp32_precision = precision


def _check_keys(keys: Keys, num: int) -> None:
    if keys.shape != (num,) or keys.dtype != torch.int64:
        raise ValueError(
            f"keys must be int64 of shape ({num},), one for each photograph, "
            f"got {keys.dtype} of shape {tuple(keys.shape)}"
        )


def _check_photos(photos: Photos) -> None:
    if photos.ndim != 4 or photos.shape[1] != 3:
        raise ValueError(
            f"photos must have the shape (B, 3, H, W), got {tuple(photos.shape)}; "
            "repeat a gray channel three times, add a batch dimension to a single photograph"
        )
    if 0 in photos.shape[2:]:
        raise ValueError(f"photos must have pixels, got the shape {tuple(photos.shape)}")
    if photos.dtype != torch.uint8 and not photos.dtype.is_floating_point:
        raise ValueError(
            f"photos must be uint8 or floating point, got {photos.dtype}; scale them to 0..255 and "
            "use .to(torch.uint8)"
        )


def _as_float32(photos: Photos) -> Images:
    if photos.dtype == torch.uint8:
        return photos.to(torch.float32) / 255.0
    # In bfloat16, luma and grain would be rounded to 1/256.
    return photos.to(torch.float32)
