"""All defects there are, by the name they have in saved recipes."""

from .blur import Defocus, MotionBlur
from .casts import ColorCast, Yellowing
from .cracks import Cracks
from .creases import Creases
from .defect import Defect, name_of
from .dirt import Dirt
from .dust import Dust
from .edges import EdgeWear
from .fading import Fading
from .film_grain import FilmGrain
from .fingerprints import Fingerprints
from .foxing import Foxing
from .grain import Grain
from .grayscale import Grayscale
from .hairs import Hairs
from .halation import Halation
from .halftone import Halftone
from .jpeg import Jpeg
from .light_leak import LightLeak
from .mirroring import SilverMirroring
from .mould import Mould
from .noise import GaussianNoise, SpeckleNoise
from .paper import PaperFibre
from .peel import Peeling
from .scan import LowResolution
from .scratches import Scratches
from .stains import WaterStains
from .tears import TornCorners
from .texture import Texture
from .tone import ToneCurve
from .toning import Toning
from .vignette import UnevenExposure, Vignette

DEFECTS: dict[str, type[Defect]] = {
    name_of(kind): kind
    for kind in (
        # Lens and light.
        Defocus,
        MotionBlur,
        Halation,
        LightLeak,
        Vignette,
        UnevenExposure,
        # Film and print.
        Grayscale,
        ToneCurve,
        Grain,
        FilmGrain,
        GaussianNoise,
        SpeckleNoise,
        Toning,
        Fading,
        ColorCast,
        Yellowing,
        Halftone,
        PaperFibre,
        # What lies on them.
        Texture,
        Dust,
        Dirt,
        Hairs,
        Scratches,
        # What time and hands did.
        WaterStains,
        Foxing,
        Mould,
        SilverMirroring,
        Fingerprints,
        Creases,
        Cracks,
        Peeling,
        EdgeWear,
        TornCorners,
        # The scan.
        LowResolution,
        Jpeg,
    )
}
"""In the order of a photograph's life."""
