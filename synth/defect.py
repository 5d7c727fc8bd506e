"""What a defect is: something that happens to photographs, drawn from their keys."""

import re
from abc import ABC, abstractmethod

from .scene import Scene
from .types import Images, Mask, Params


class Defect(ABC):
    """A kind of ageing: `sample` draws its parameters, `apply` is pure in them.

    A defect is an instance of a frozen dataclass derived from this class, with fields that JSON can
    hold, so that a recipe can be saved with a checkpoint. Its laws: severity 0 returns the pictures
    as they are; they stay in [0, 1], of their dtype, on their device, in their memory format; no
    photograph depends on another of the batch; a window of a picture ages as it does in the whole,
    given `reach_px` more on all sides.
    """

    __slots__ = ()

    @property
    def uses_textures(self) -> bool:
        """Whether it lays textures on the picture: only then are there any in the scene."""
        return False

    @property
    def changes_channels(self) -> bool:
        """Whether pictures can have more or fewer channels afterwards."""
        return False

    @abstractmethod
    def sample(self, scene: Scene) -> Params:
        """Draw the parameters of each photograph: tensors whose first dimension is B."""

    @abstractmethod
    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Return the aged pictures, and where they are hidden if they can be; x stays as it is."""

    def reach_px(self, size: tuple[int, int]) -> int:
        """How far away a pixel can be and still matter to another, in pictures of a size (H, W)."""
        return 0


def name_of(kind: type) -> str:
    """Return the name that a class of defects has in saved recipes: FilmGrain is film_grain."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
