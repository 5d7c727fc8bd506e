"""Clean photographs to aged / clean pairs on the GPU, to a UNet, to restored old photographs.

    from agedphoto import AgedPairs, Restorer

The way of a photograph: textures -> synth -> datasets -> train -> restore, one sub-package each.
"""

from agedphoto.datasets import AgedPairs
from agedphoto.restore import Restorer
from agedphoto.synth import Ageing

__version__ = "0.1.0"

__all__ = ["AgedPairs", "Ageing", "Restorer", "__version__"]
