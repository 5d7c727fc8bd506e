"""Ageing: what time does to a photograph, as keyed, replayable tensor operations."""

from .ageing import AgedPhotos, Ageing
from .augment import Augment
from .banks import EndlessTextures, find_textures
from .composites import AnyOrder, Sometimes
from .crops import CropBoxes, sample_crops, turn_crops
from .defect import Defect
from .defects import DEFECTS
from .device import find_device
from .fused import Pixels
from .grain import Grain, grain
from .grayscale import Grayscale, grayscale
from .keys import sample_keys
from .lattice import smooth_noise
from .modes import AGED_CHANNELS, CLEAN_CHANNELS, LAB_SCALE, MODES, Mode, check_mode
from .philox import draw_bits, draw_uniform, normal_field, philox4x32
from .recipe import Recipe
from .recipes import RECIPES, find_recipe
from .scene import Scene
from .texture import Texture, darken, overlay, read_textures
from .tone import ToneCurve, tone_curve

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
    "CropBoxes",
    "Defect",
    "EndlessTextures",
    "Grain",
    "Grayscale",
    "Mode",
    "Pixels",
    "Recipe",
    "Scene",
    "Sometimes",
    "Texture",
    "ToneCurve",
    "check_mode",
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
    "philox4x32",
    "read_textures",
    "sample_crops",
    "sample_keys",
    "smooth_noise",
    "tone_curve",
    "turn_crops",
]
