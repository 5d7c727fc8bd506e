"""Film grain: noise in clumps as they were measured on four films, strongest in the mid-tones.

White noise, keyed by the pixel, convolved with the zero-phase kernel whose spectrum is that of the
film: 1 / |1 - A|, A the measured autoregression (the model of AV1's film grain, sequential there;
its spectrum is all that matters for a Gaussian field). The films have no correlation beyond 2 px,
so 5 x 5 taps are enough. On a CPU the convolution costs a tenth of drawing the noise.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .philox import bits_to_below, bits_to_uniform
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Indices, InMode, Mask, Params, PerImage

STOCKS = ("tmax3200", "tri_x_1600", "tmax400", "orwo_np20")
"""The films, in the order of their numbers."""

MOST_SIZE = 4.0
"""Clumps are enlarged so much at most: closer up one would see the shape of the crystals."""

# fmt: off
AUTOREGRESSION: dict[str, tuple[float, ...]] = {
    "tmax3200": (
        .003, -.005, .012, .027, .017, .011, -.001, -.003, .014, -.012, -.118, -.092, -.006, .005,
        .022, -.020, -.120, .438, .161, -.027, -.001, .017, -.145, .511,
    ),
    "tri_x_1600": (
        .001, -.003, .008, .028, .019, .013, -.006, -.002, .022, -.001, -.132, -.080, -.007, .004,
        .017, -.013, -.145, .449, .148, -.022, -.001, .022, -.154, .520,
    ),
    "tmax400": (
        .000, -.008, -.015, -.004, -.014, -.011, -.003, -.011, -.026, -.021, -.086, -.038, -.011,
        -.005, -.012, .003, -.161, .035, -.092, -.030, -.007, .030, -.124, .203,
    ),
    "orwo_np20": (
        -.012, .014, -.065, .105, .003, -.004, -.011, .010, -.068, .168, -.330, -.012, .000, -.010,
        -.040, .137, -.386, .679, -.050, -.013, -.009, .081, -.272, .547,
    ),
}
# fmt: on
"""What a pixel takes over from those before it: rows -3, -2, -1 of columns -3 to 3, then columns
-3, -2, -1 of its own row. Fitted to scans of the blank films at mid-grey (those of G'MIC)."""

TAPS = 5
"""Side of the kernels."""


def film_grain(x: Images, field: InMode, *, sigma: PerImage) -> Images:
    """Return clip(x + sigma s(x) field): the mean tone stays.

    Density fluctuates in proportion to its square root (Nutting, "On the absorption of light in
    heterogeneous media", 1913): in tones, s(x) = x sqrt(-ln x), here scaled to 1 at its largest,
    at x = 0.61. Neither blank paper nor the deepest black has grain.

    Args:
        x: Pictures.
        field: Grain of variance 1, with their channels or one for all, see `grain_field`.
        sigma: Standard deviation where it is largest, in units of full scale; 0 returns x.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # Clamped, so that the logarithm stays finite in black and negative in white.
    spread = wide * (wide.clamp(1e-6, 1.0).log() * (-2.0 * math.e)).sqrt()
    return (wide + spread * per_pixel(sigma) * field).clamp(0, 1).to(x.dtype)


def grain_field(
    scene: Scene,
    height: int,
    width: int,
    *,
    planes: int,
    stock: Indices,
    size: PerImage,
    most_size: float = MOST_SIZE,
) -> Float[Tensor, "B planes height width"]:
    """Draw grain of variance 1 with the autocorrelation of a film.

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        planes: Independent fields.
        stock: Which film, a number into `STOCKS`.
        size: Pixels that one of the scanned film takes; 1 is the grain as measured.
        most_size: No size is larger; the smaller it is, the smaller the kernels.
    """
    kernels = grain_kernels(stock, size, most_size=most_size)
    B, K, _ = kernels.shape
    white = scene.normals(height, width, planes=planes, around_px=K // 2)
    kernels = kernels[:, None, None].expand(B, planes, 1, K, K).reshape(B * planes, 1, K, K)
    # As channels of one picture: each photograph has a kernel of its own.
    grain = F.conv2d(white.reshape(1, B * planes, *white.shape[2:]), kernels, groups=B * planes)
    return grain.view(B, planes, height, width)


def grain_kernels(
    stock: Indices, size: PerImage, *, most_size: float = MOST_SIZE
) -> Float[Tensor, "B K K"]:
    """Return the kernel of each photograph, of unit energy; enlarged ones are interpolated."""
    device = size.device
    # One word for each tap holds it for all four films, in 16 bits each. Filled in on the device:
    # a table copied from the host would make it wait.
    words = torch.stack(
        [torch.full((), word, dtype=torch.int64, device=device) for word in _PACKED_TAPS]
    )
    taps = ((words[None] >> (16 * stock[:, None])) & 0xFFFF).float() * 2.0**-15 - 1.0
    # Half of the taps, up to the middle: the other half is the same, mirrored.
    order = len(_PACKED_TAPS) - 1 - (torch.arange(TAPS**2, device=device) - TAPS**2 // 2).abs()
    taps = taps[:, order].unflatten(1, (TAPS, TAPS))
    reach = math.ceil((TAPS // 2 + 1) * most_size) - 1
    place = torch.arange(-reach, reach + 1, device=device) / size[:, None]
    near = torch.arange(-(TAPS // 2), TAPS // 2 + 1, device=device)
    hat = (1 - (place[:, :, None] - near).abs()).clamp(min=0)
    kernels = hat @ taps @ hat.mT
    return kernels / kernels.square().sum((1, 2), keepdim=True).sqrt()


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmGrain(Defect):
    """Grain of real films."""

    sigma: Range = (0.02, 0.08)
    """Standard deviation in the mid-tones, uniform in this range for each photograph; the measured
    films have 0.09 to 0.14 in scans of about 35 mm / 5000 px."""
    size: Range = (1.0, 1.6)
    """Enlargement of the measured clumps, likewise; 1 correlates neighbouring pixels by 0.5."""
    chroma: Range = (0.2, 0.5)
    """Share of the variance that each colour has to itself: 0 is grey grain, 1 the coloured grain
    of three layers that know nothing of each other. Without colour it has no part."""
    stocks: tuple[str, ...] = STOCKS
    """Films to draw from."""

    def __post_init__(self) -> None:
        """Check the ranges and the names of films."""
        check_range("sigma", self.sigma, low=0.0, high=0.5)
        check_range("size", self.size, low=1.0, high=MOST_SIZE)
        check_range("chroma", self.chroma, low=0.0, high=1.0)
        if not self.stocks or not set(self.stocks) <= set(STOCKS):
            raise ValueError(f"stocks must be some of {', '.join(STOCKS)}, got {self.stocks!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw sigma, size in pixels and chroma (B,), and stock (B,) int64."""
        bits = scene.bits(4)
        u = bits_to_uniform(bits)
        drawn = bits_to_below(bits[:, 3], len(self.stocks))
        stock = torch.zeros_like(drawn)
        for place, name in enumerate(self.stocks):
            stock = torch.where(drawn == place, STOCKS.index(name), stock)
        size = scene.amount(u[:, 1], self.size) * scene.scale
        return {
            "sigma": scene.strength(u[:, 0], self.sigma),
            "size": size.clamp(max=MOST_SIZE),
            "chroma": scene.amount(u[:, 2], self.chroma),
            "stock": stock,
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Add the grain; it hides nothing, so there is no mask."""
        _B, C, H, W = x.shape
        coloured = C > 1 and self.chroma[1] > 0
        field = grain_field(
            scene,
            H,
            W,
            planes=C if coloured else 1,
            stock=params["stock"],
            size=params["size"],
            most_size=min(self.size[1] * scene.scale, MOST_SIZE),
        )
        if coloured:
            field = _correlate(field, params["chroma"])
        return film_grain(x, field, sigma=params["sigma"]), None


def _correlate(field: Tensor, chroma: PerImage) -> Tensor:
    """Mix independent fields to such of variance 1 and correlation 1 - chroma."""
    # The root of the matrix chroma I + (1 - chroma) J, where J is all ones.
    planes = field.shape[1]
    own = chroma.sqrt()
    common = ((planes - (planes - 1) * chroma).sqrt() - own) / planes
    return field * per_pixel(own) + field.sum(1, keepdim=True) * per_pixel(common)


def _packed_taps() -> tuple[int, ...]:
    """Make the kernels of all films; return their first half, row by row, one word for each tap."""
    places = [(row, column) for row in (-3, -2, -1) for column in range(-3, 4)]
    places += [(0, -3), (0, -2), (0, -1)]
    halves = []
    for stock in STOCKS:
        filtered = torch.zeros(64, 64, dtype=torch.float64)
        filtered[0, 0] = 1.0
        for (row, column), share in zip(places, AUTOREGRESSION[stock], strict=True):
            filtered[row, column] -= share
        kernel = torch.fft.ifft2(1 / torch.fft.fft2(filtered).abs()).real
        kernel = kernel.roll((TAPS // 2, TAPS // 2), (0, 1))[:TAPS, :TAPS]
        kernel = kernel / kernel.square().sum().sqrt()
        halves.append(((kernel.flatten()[: TAPS**2 // 2 + 1] + 1) * 2**15).round().long().tolist())
    # The fourth film's bits would make the word negative, as int64 is signed.
    words = [
        sum(tap << (16 * i) for i, tap in enumerate(taps)) for taps in zip(*halves, strict=True)
    ]
    return tuple(word - 2**64 if word >= 2**63 else word for word in words)


_PACKED_TAPS = _packed_taps()
