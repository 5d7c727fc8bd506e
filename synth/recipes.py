"""The recipes there are, as functions that return a full one.

The order is that of a photograph's life: the lens, the film and what fell on it in the enlarger,
the print and what time did to it, its handling, and last the scan of it. What may come in any order
is drawn for each photograph. Strengths are those of real prints and films as measured or published
(see the modules of the defects); how often something happens is our estimate. Tones and spectra are
held to the range of real old photographs where there are some (tests/test_realism.py). Ranges are
for a severity of 1, and one photograph in ten has twice that.

A crop in training is aged like a small print: it has edges and corners of its own.
"""

from collections.abc import Callable

from .augment import Augment
from .blur import Defocus, MotionBlur
from .casts import ColorCast, Yellowing
from .composites import AnyOrder, InOrder, Sometimes
from .cracks import Cracks
from .creases import Creases
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
from .recipe import Recipe
from .scan import LowResolution
from .scratches import Scratches
from .stains import WaterStains
from .tears import TornCorners
from .texture import Texture
from .tone import ToneCurve
from .toning import Toning
from .vignette import UnevenExposure, Vignette

_SLIGHT = Augment(
    p=0.25, rotation_turns=0.01, zoom=0.1, translation=0.0, brightness=0.05, contrast=0.1
)
"""Interpolation softens what the network is to answer, so most photographs stay in their place."""


def seed() -> Recipe:
    """Grayscale, Gaussian grain of sigma 0.10, then dust and scratches added with random strength.

    What the student project behind agedphoto meant to do; it multiplied the whole picture by alpha
    instead of the texture. The ranges of the augmentation are its own.
    """
    return Recipe(
        name="seed",
        defects=(Grayscale(), Grain(sigma=(0.10, 0.10)), Texture()),
        augment=Augment(
            rotation_turns=0.03, zoom=0.05, translation=0.02, brightness=0.05, contrast=0.05
        ),
    )


def light_wear() -> Recipe:
    """A print that was kept well: flat tones, fine grain, a little dust. One fused kernel."""
    return Recipe(
        name="light_wear",
        defects=(
            Grayscale(),
            ToneCurve(black=(0.0, 0.08), white=(0.0, 0.08), gamma=(0.85, 1.2)),
            Grain(sigma=(0.01, 0.05)),
            Texture(alpha=(0.1, 0.45)),
        ),
        severity_sigma=0.5,
        augment=_SLIGHT,
    )


def film_35mm() -> Recipe:
    """Black-and-white 35 mm film, scanned: stock grain, and all that lies on a negative."""
    return Recipe(
        name="film_35mm",
        defects=(
            Grayscale(),
            Sometimes(what=Defocus(sigma_px=(0.3, 1.0)), p=0.4),
            Sometimes(what=MotionBlur(length_px=(2.0, 6.0)), p=0.06),
            Sometimes(what=Halation(amount=(0.05, 0.2)), p=0.3),
            Sometimes(what=LightLeak(intensity=(0.06, 0.5), depth=(0.03, 0.15)), p=0.05),
            Sometimes(what=Vignette(loss=(0.1, 0.35)), p=0.3),
            ToneCurve(black=(0.0, 0.015), white=(0.0, 0.03), gamma=(0.65, 1.5)),
            FilmGrain(sigma=(0.01, 0.035)),
            Dust(dark=0.1),
            Dirt(dark=0.1),
            Hairs(dark=0.1),
            Sometimes(what=Scratches(dark=0.3), p=0.6),
            Sometimes(what=Jpeg(quality=(75.0, 96.0)), p=0.4),
        ),
        severity_sigma=0.6,
        augment=_SLIGHT,
    )


def faded_print() -> Recipe:
    """A colour print of the sixties to eighties: dyes gone, cyan first, yellow whites, dust."""
    return Recipe(
        name="faded_print",
        defects=(
            Sometimes(what=Defocus(sigma_px=(0.3, 1.1)), p=0.5),
            FilmGrain(sigma=(0.006, 0.025)),
            Fading(
                black=(0.0, 0.07),
                white_lost=(0.0, 0.06),
                density_lost=(0.01, 0.1),
                dye_lost=(0.05, 0.28),
            ),
            # Cyan goes first, so reds and yellows are left; greens and blues are rare.
            ColorCast(strength=(0.02, 0.1), hue_deg=(0.0, 60.0), crossing=(0.0, 0.3)),
            Sometimes(what=ColorCast(strength=(0.02, 0.1), hue_deg=(300.0, 360.0)), p=0.3),
            Sometimes(what=ColorCast(strength=(0.02, 0.08), hue_deg=(190.0, 240.0)), p=0.08),
            Yellowing(amount=(0.1, 0.7)),
            Sometimes(what=Vignette(loss=(0.1, 0.35)), p=0.35),
            Sometimes(what=UnevenExposure(stops=(0.05, 0.25)), p=0.3),
            Sometimes(what=PaperFibre(relief=(0.004, 0.015), woven=0.1), p=0.2),
            Sometimes(
                what=WaterStains(num=(0.4, 1.2), radius_px=(40.0, 250.0), density=(0.2, 0.8)),
                p=0.08,
            ),
            Sometimes(what=Foxing(per_mpx=(40.0, 300.0), density=(0.2, 0.7)), p=0.08),
            Dust(density=(0.1, 1.0), dark=0.5),
            Sometimes(what=Hairs(density=(0.0, 1.5), dark=0.5), p=0.4),
            Sometimes(what=Scratches(density=(0.0, 1.5), dark=0.1, coloured=0.5), p=0.4),
            Sometimes(what=Fingerprints(num=(0.4, 1.0), light=(0.05, 0.18)), p=0.08),
            Sometimes(what=Jpeg(quality=(75.0, 96.0)), p=0.4),
        ),
        severity_sigma=0.5,
        augment=_SLIGHT,
    )


def creased_print() -> Recipe:
    """A black-and-white print that was carried about: folds, cracks, worn edges, stains."""
    return Recipe(
        name="creased_print",
        defects=(
            Grayscale(),
            Sometimes(what=Defocus(sigma_px=(0.3, 0.9)), p=0.45),
            ToneCurve(black=(0.0, 0.05), white=(0.0, 0.05), gamma=(0.6, 1.4)),
            FilmGrain(sigma=(0.006, 0.028)),
            Toning(amount=(0.0, 1.0)),
            Sometimes(what=UnevenExposure(stops=(0.05, 0.35)), p=0.4),
            Sometimes(what=PaperFibre(relief=(0.005, 0.02), woven=0.08), p=0.35),
            Yellowing(amount=(0.05, 0.6)),
            Sometimes(what=SilverMirroring(sheen=(0.05, 0.25), width_px=(15.0, 60.0)), p=0.08),
            AnyOrder(
                defects=(
                    Sometimes(
                        what=WaterStains(
                            num=(0.4, 1.4), radius_px=(50.0, 280.0), density=(0.4, 1.4)
                        ),
                        p=0.2,
                    ),
                    Sometimes(what=Foxing(per_mpx=(60.0, 500.0)), p=0.15),
                )
            ),
            Dust(density=(0.2, 1.4), dark=0.4),
            Sometimes(what=Scratches(dark=0.1), p=0.5),
            Creases(num_folds=(0.8, 3.0)),
            Sometimes(what=Cracks(area=(0.04, 0.25)), p=0.3),
            Sometimes(what=Peeling(area=(0.001, 0.025), edges=(0.6, 1.8)), p=0.18),
            Sometimes(what=EdgeWear(), p=0.4),
            Sometimes(what=TornCorners(), p=0.15),
            Sometimes(what=Fingerprints(num=(0.4, 1.0)), p=0.06),
            Sometimes(what=LowResolution(factor=(1.0, 1.5), nearest=0.0), p=0.12),
            Sometimes(what=Jpeg(quality=(75.0, 96.0)), p=0.5),
        ),
        severity_sigma=0.6,
        augment=_SLIGHT,
    )


def glass_plate() -> Recipe:
    """A glass negative of 1880 to 1920, printed: pale skies, soft corners, specks, gelatin gone.

    Where the emulsion has left the glass the print is black, mostly along the edges.
    """
    return Recipe(
        name="glass_plate",
        defects=(
            Grayscale(),
            Sometimes(what=Defocus(sigma_px=(0.3, 1.1)), p=0.6),
            Sometimes(what=Vignette(loss=(0.05, 0.4)), p=0.5),
            UnevenExposure(stops=(0.05, 0.35)),
            # These plates see blue alone: skies and light walls are blank.
            ToneCurve(black=(0.0, 0.04), white=(0.0, 0.04), gamma=(0.42, 1.2)),
            FilmGrain(sigma=(0.004, 0.018)),
            Dust(dark=0.6),
            Dirt(dark=0.6),
            Sometimes(what=Scratches(dark=0.6), p=0.6),
            Sometimes(what=Mould(bleaching=0.1), p=0.12),
            Sometimes(what=SilverMirroring(sheen=(0.05, 0.2), width_px=(15.0, 50.0)), p=0.1),
            Sometimes(
                what=Peeling(
                    area=(0.001, 0.02),
                    edges=(1.5, 2.0),
                    flake_px=(6.0, 18.0),
                    relief=(0.0, 0.1),
                    light=(0.0, 0.08),
                    warmth=(0.0, 0.0),
                ),
                p=0.45,
            ),
            Sometimes(what=Fingerprints(num=(0.4, 1.0), light=(0.05, 0.18)), p=0.08),
            Sometimes(what=Jpeg(quality=(75.0, 96.0)), p=0.4),
        ),
        severity_sigma=0.6,
        augment=_SLIGHT,
    )


def newspaper() -> Recipe:
    """A cutting: halftone dots on yellow paper, folded once or twice."""
    return Recipe(
        name="newspaper",
        defects=(
            Grayscale(),
            Defocus(sigma_px=(0.4, 1.2)),
            ToneCurve(black=(0.0, 0.08), white=(0.0, 0.08), gamma=(0.8, 1.25)),
            Halftone(period_px=(2.8, 5.0), blend=(0.6, 1.0), ink=(0.08, 0.2), paper=(0.82, 0.96)),
            # Three channels, for the yellow to come; before the screen it would print in colours.
            Toning(kinds=("warm",), amount=(0.4, 1.0)),
            PaperFibre(relief=(0.01, 0.035), woven=0.0),
            # Ink spreads in the paper, and the scanner does not see every dot sharply.
            Sometimes(what=Defocus(sigma_px=(0.3, 0.8)), p=0.6),
            Yellowing(amount=(0.4, 1.0)),
            Sometimes(what=Foxing(per_mpx=(60.0, 500.0)), p=0.2),
            Sometimes(what=WaterStains(num=(0.4, 1.6), radius_px=(50.0, 300.0)), p=0.15),
            Sometimes(what=Creases(whiteness=(0.1, 0.4)), p=0.5),
            Sometimes(what=LowResolution(factor=(1.0, 2.0)), p=0.5),
            Sometimes(what=Jpeg(quality=(75.0, 96.0)), p=0.5),
        ),
        severity_sigma=0.5,
        augment=_SLIGHT,
    )


def heavy_wear() -> Recipe:
    """All at once, the photograph still to be made out: to train on the worst."""
    return Recipe(
        name="heavy_wear",
        defects=(
            Sometimes(what=Grayscale(), p=0.7),
            Defocus(sigma_px=(0.4, 1.5)),
            FilmGrain(sigma=(0.012, 0.045), chroma=(0.0, 0.0)),
            Sometimes(what=SpeckleNoise(sigma=(0.02, 0.1)), p=0.15),
            Fading(black=(0.02, 0.13), density_lost=(0.0, 0.18), dye_lost=(0.04, 0.25)),
            Sometimes(what=Toning(), p=0.3),
            Yellowing(amount=(0.2, 1.0)),
            Sometimes(what=LightLeak(intensity=(0.06, 0.4), depth=(0.03, 0.12)), p=0.06),
            Sometimes(what=WaterStains(num=(0.4, 1.6), radius_px=(50.0, 300.0)), p=0.3),
            Sometimes(what=Foxing(), p=0.25),
            Sometimes(what=Mould(), p=0.15),
            Dust(density=(0.5, 2.0), dark=0.4),
            Dirt(density=(0.5, 2.0), dark=0.4),
            Hairs(density=(0.2, 2.0), dark=0.4),
            Scratches(density=(0.5, 3.0)),
            Creases(num_folds=(1.0, 4.0)),
            Sometimes(what=Cracks(area=(0.05, 0.2)), p=0.35),
            Sometimes(what=Peeling(area=(0.003, 0.03), edges=(0.6, 1.8)), p=0.35),
            Sometimes(what=EdgeWear(), p=0.4),
            Sometimes(what=TornCorners(), p=0.3),
            Sometimes(what=Fingerprints(num=(0.4, 1.0)), p=0.1),
            # One has scanned, another photographed, a third sent on: no order is the right one.
            AnyOrder(
                defects=(
                    Sometimes(what=LowResolution(factor=(1.0, 2.2)), p=0.3),
                    Sometimes(what=GaussianNoise(sigma=(0.01, 0.04)), p=0.3),
                    Sometimes(what=Jpeg(quality=(65.0, 94.0)), p=0.6),
                )
            ),
        ),
        severity_sigma=0.4,
        augment=_SLIGHT,
    )


def awgn() -> Recipe:
    """Grayscale and Gaussian noise of sigma 0 to 50 of 255 levels: the denoisers' common task.

    Blind, as DnCNN-B's training (Zhang et al., IEEE TIP 2017); clipped, as a stored picture is.
    """
    return Recipe(
        name="awgn",
        defects=(Grayscale(), Grain(sigma=(0.0, 50 / 255))),
        augment=Augment(p=0.0),
    )


def mixed_wear() -> Recipe:
    """All kinds of wear by turns on black-and-white photos: what the shipped weights learn.

    Tones stay as they are: whether a photograph faded or was taken in fog nobody can tell, and a
    network that guesses spoils good ones. One photograph in five is clean, to be left alone.
    """
    return Recipe(
        name="mixed_wear",
        defects=(Grayscale(), Sometimes(what=_all_kinds_of_wear(), p=0.8)),
        severity_sigma=0.5,
        augment=Augment(p=0.0),
    )


def mixed_wear_in_color() -> Recipe:
    """As `mixed_wear`, on photos that keep their colours."""
    return Recipe(
        name="mixed_wear_in_color",
        defects=(Sometimes(what=_all_kinds_of_wear(), p=0.8),),
        severity_sigma=0.5,
        augment=Augment(p=0.0),
    )


def _all_kinds_of_wear() -> InOrder:
    return InOrder(
        defects=(
            Sometimes(what=Defocus(sigma_px=(0.3, 0.9)), p=0.2),
            Sometimes(what=Grain(sigma=(0.0, 50 / 255)), p=0.45),
            Sometimes(what=FilmGrain(sigma=(0.006, 0.045)), p=0.5),
            Sometimes(what=WaterStains(num=(0.4, 1.2), radius_px=(40.0, 250.0)), p=0.06),
            Sometimes(what=Foxing(per_mpx=(40.0, 400.0)), p=0.08),
            Sometimes(what=Dust(density=(0.2, 2.0), dark=0.4), p=0.6),
            Sometimes(what=Dirt(density=(0.2, 2.0), dark=0.4), p=0.3),
            Sometimes(what=Hairs(density=(0.2, 2.0), dark=0.4), p=0.3),
            Sometimes(what=Scratches(density=(0.3, 3.0), dark=0.3), p=0.5),
            Sometimes(what=Creases(num_folds=(0.8, 2.5)), p=0.2),
            Sometimes(what=Cracks(area=(0.03, 0.2)), p=0.1),
            Sometimes(what=Texture(), p=0.25),
            Sometimes(what=Jpeg(quality=(60.0, 96.0)), p=0.35),
        )
    )


def tones() -> Recipe:
    """A clean gray photograph, half of them with other tones, half with fine grain.

    For the network that colours restored photographs: it has to bear what restoring leaves behind.
    """
    return Recipe(
        name="tones",
        defects=(
            Grayscale(),
            Sometimes(
                what=ToneCurve(black=(0.0, 0.12), white=(0.0, 0.12), gamma=(0.6, 1.6)), p=0.5
            ),
            Sometimes(what=Grain(sigma=(0.0, 0.05)), p=0.5),
        ),
        augment=Augment(p=0.0),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        seed,
        light_wear,
        film_35mm,
        faded_print,
        creased_print,
        glass_plate,
        newspaper,
        heavy_wear,
        awgn,
        mixed_wear,
        mixed_wear_in_color,
        tones,
    )
}


def find_recipe(recipe: str | Recipe) -> Recipe:
    """Return a recipe by name, or the recipe itself.

    Raises:
        ValueError: If no recipe has that name; the message lists those there are.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; there are: {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]()
