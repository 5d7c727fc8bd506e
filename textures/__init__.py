"""What lies on a print and what time did to it, drawn from statistics of film or read from scans.

The leftmost package: it imports nothing of ours.
"""

from .bank import TextureBank
from .families import DARKENING, FAMILIES, ROTA
from .pack import write_pack

__all__ = ["DARKENING", "FAMILIES", "ROTA", "TextureBank", "write_pack"]
