"""The scene: what a defect is told about the photographs it meets, and where its draws come from.

A batch may show a window of larger pictures (`top`, `left` within `size`): then a defect acts as it
would on the whole. That is how a picture of any size ages in bounded memory, tile by tile.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ..textures import TextureBank
from .philox import bits_to_uniform, cell_bits, draw_bits, normal_field
from .ranges import Range, spread
from .types import Keys, PerImage

NOMINAL_SIDE_PX = 1024
"""Lengths of wear are meant for pictures so long at most; on larger ones they grow along."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One defect and one batch; draws are pure functions of key, op and place."""

    keys: Keys
    """One for each photograph."""
    op: int
    """Place of the defect in its recipe; its draws are its own."""
    size: tuple[int, int]
    """Height and width of the whole pictures, in pixels."""
    severity: PerImage
    """How worn each photograph is; 1 is the recipe as written, 0 leaves it alone. For samplers."""
    textures: TextureBank | None = None
    """Wear to lay on the pictures, on their device; there if the recipe uses any."""
    top: int = 0
    """First row of the batch within the whole pictures."""
    left: int = 0
    """First column of the batch within the whole pictures."""

    @property
    def scale(self) -> float:
        """What a length of 1 px amounts to here: a scan twice as fine has dust twice as large."""
        return max(1.0, max(self.size) / NOMINAL_SIDE_PX)

    @property
    def bank(self) -> TextureBank:
        """The textures.

        Raises:
            ValueError: If there are none.
        """
        if self.textures is None:
            raise ValueError(
                f"the defect at place {self.op} needs textures, but has none; its uses_textures "
                "must be True"
            )
        return self.textures

    def of(self, some: Int[Tensor, " b"]) -> "Scene":
        """Return the scene of some photographs of the batch, by their places in it."""
        return replace(self, keys=self.keys[some], severity=self.severity[some])

    def bits(self, count: int) -> Int[Tensor, "B count"]:
        """Draw 32-bit words for each photograph; a defect asks once, for all it needs."""
        return draw_bits(self.keys, op=self.op, count=count)

    def uniform(self, count: int) -> Float[Tensor, "B count"]:
        """Draw numbers in [0, 1) for each photograph: the same bits that `bits` returns."""
        return bits_to_uniform(self.bits(count))

    def strength(self, u: PerImage, value: Range, *, most: float = 1.0) -> PerImage:
        """Map u in [0, 1) onto a range, times the severity, at most `most`."""
        return (spread(u, value) * self.severity).clamp(max=most)

    def amount(self, u: Float[Tensor, "..."], value: Range) -> Float[Tensor, "..."]:
        """Map u in [0, 1) onto a range that the severity has no part in."""
        return spread(u, value)

    def normals(
        self, height: int, width: int, *, planes: int = 1, plane: int = 0, around_px: int = 0
    ) -> Float[Tensor, "B planes H W"]:
        """Draw a normal number for each pixel of the batch, and of a border about it.

        Args:
            height: Of the batch, in pixels.
            width: Of the batch, in pixels.
            planes: Independent fields, numbered from `plane`.
            plane: A field of its own for each use within one defect.
            around_px: Width of the border; H = height + 2 around_px.
        """
        return normal_field(
            self.keys,
            op=self.op,
            planes=planes,
            height=height + 2 * around_px,
            width=width + 2 * around_px,
            top=self.top - around_px,
            left=self.left - around_px,
            plane=plane,
        )

    def cells(
        self, top: int, left: int, height: int, width: int, *, count: int, plane: int
    ) -> Int[Tensor, "B count height width"]:
        """Draw 32-bit words for each cell of a grid, see `philox.cell_bits`."""
        return cell_bits(
            self.keys,
            op=self.op,
            count=count,
            height=height,
            width=width,
            top=top,
            left=left,
            plane=plane,
        )

    def rows(self, height: int) -> Float[Tensor, "H 1"]:
        """Rows of the batch in the whole picture, float32; pixels have whole numbers."""
        return (torch.arange(height, device=self.keys.device) + self.top).float()[:, None]

    def columns(self, width: int) -> Float[Tensor, "1 W"]:
        """Columns of the batch in the whole picture, float32."""
        return (torch.arange(width, device=self.keys.device) + self.left).float()[None, :]

    def part(self, number: int) -> "Scene":
        """Return the scene of a defect within this one, whose draws are its own again."""
        return replace(self, op=(self.op + 1) * 256 + number)


def per_pixel(value: Shaped[Tensor, " B"]) -> Shaped[Tensor, "B 1 1 1"]:
    """Give one number a photograph the shape (B, 1, 1, 1), to go with pixels."""
    return value[:, None, None, None]
