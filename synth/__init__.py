"""Ageing: what time does to a photograph, as keyed, replayable tensor operations."""

from .ageing import AgedPhotos, Ageing, Backend
from .augment import Augment
from .banks import EndlessTextures, find_textures
from .blur import Defocus, MotionBlur
from .casts import ColorCast, Yellowing
from .composites import AnyOrder, InOrder, Sometimes
from .cracks import Cracks
from .creases import Creases
from .crops import CropBoxes, sample_crops, turn_crops
from .defect import Defect
from .defects import DEFECTS
from .device import find_device
from .dirt import Dirt
from .dust import Dust
from .edges import EdgeWear
from .fading import Fading
from .film_grain import FilmGrain
from .fingerprints import Fingerprints
from .foxing import Foxing
from .fused import Pixels
from .grain import Grain, grain
from .grayscale import Grayscale, grayscale
from .hairs import Hairs
from .halation import Halation
from .halftone import Halftone
from .jpeg import Jpeg
from .keys import sample_keys
from .lattice import smooth_noise
from .light_leak import LightLeak
from .mirroring import SilverMirroring
from .modes import (
    AGED_CHANNELS,
    CLEAN_CHANNELS,
    LAB_SCALE,
    MODES,
    Mode,
    aged_in_mode,
    check_mode,
    clean_in_mode,
)
from .mould import Mould
from .noise import GaussianNoise, SpeckleNoise
from .paper import PaperFibre
from .peel import Peeling
from .philox import draw_bits, draw_uniform, normal_field, philox4x32
from .recipe import Recipe
from .recipes import RECIPES, find_recipe
from .scan import LowResolution
from .scene import Scene, per_pixel
from .scratches import Scratches
from .stains import WaterStains
from .tears import TornCorners
from .texture import Texture, darken, overlay, read_textures
from .tone import ToneCurve, tone_curve
from .toning import Toning
from .vignette import UnevenExposure, Vignette

__all__ = [
    "AGED_CHANNELS",
    "CLEAN_CHANNELS",
    "DEFECTS",
    "LAB_SCALE",
    "MODES",
    "RECIPES",
    "AgedPhotos",
    "Ageing",
    "AnyOrder",
    "Augment",
    "Backend",
    "ColorCast",
    "Cracks",
    "Creases",
    "CropBoxes",
    "Defect",
    "Defocus",
    "Dirt",
    "Dust",
    "EdgeWear",
    "EndlessTextures",
    "Fading",
    "FilmGrain",
    "Fingerprints",
    "Foxing",
    "GaussianNoise",
    "Grain",
    "Grayscale",
    "Hairs",
    "Halation",
    "Halftone",
    "InOrder",
    "Jpeg",
    "LightLeak",
    "LowResolution",
    "Mode",
    "MotionBlur",
    "Mould",
    "PaperFibre",
    "Peeling",
    "Pixels",
    "Recipe",
    "Scene",
    "Scratches",
    "SilverMirroring",
    "Sometimes",
    "SpeckleNoise",
    "Texture",
    "ToneCurve",
    "Toning",
    "TornCorners",
    "UnevenExposure",
    "Vignette",
    "WaterStains",
    "Yellowing",
    "aged_in_mode",
    "check_mode",
    "clean_in_mode",
    "darken",
    "draw_bits",
    "draw_uniform",
    "find_device",
    "find_recipe",
    "find_textures",
    "grain",
    "grayscale",
    "normal_field",
    "overlay",
    "per_pixel",
    "philox4x32",
    "read_textures",
    "sample_crops",
    "sample_keys",
    "smooth_noise",
    "tone_curve",
    "turn_crops",
]
