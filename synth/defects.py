"""All defects there are, by the name they have in saved recipes."""

from .defect import Defect, name_of
from .grain import Grain
from .grayscale import Grayscale
from .texture import Texture
from .tone import ToneCurve

DEFECTS: dict[str, type[Defect]] = {
    name_of(kind): kind
    for kind in (
        Grayscale,
        Grain,
        Texture,
        ToneCurve,
    )
}
