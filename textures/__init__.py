"""What lies on a print: dust, hairs, scratches and creases, drawn from statistics of film.

The leftmost package: it imports nothing of ours.
"""

from .bank import TextureBank
from .families import FAMILIES

__all__ = ["FAMILIES", "TextureBank"]
