"""Ageing: what time does to a photograph, as keyed, replayable tensor operations."""

from .ageing import AgedPhotos, Ageing
from .crops import CropBoxes, sample_crops, turn_crops
from .device import find_device
from .grain import Grain, grain
from .grayscale import Grayscale, grayscale
from .keys import sample_keys
from .modes import AGED_CHANNELS, CLEAN_CHANNELS, LAB_SCALE, MODES, Mode, check_mode
from .philox import draw_bits, draw_uniform, normal_field, philox4x32
from .recipes import RECIPES, Defect, Recipe, find_recipe
from .texture import Texture, overlay, read_textures

__all__ = [
    "AGED_CHANNELS",
    "CLEAN_CHANNELS",
    "LAB_SCALE",
    "MODES",
    "RECIPES",
    "AgedPhotos",
    "Ageing",
    "CropBoxes",
    "Defect",
    "Grain",
    "Grayscale",
    "Mode",
    "Recipe",
    "Texture",
    "check_mode",
    "draw_bits",
    "draw_uniform",
    "find_device",
    "find_recipe",
    "grain",
    "grayscale",
    "normal_field",
    "overlay",
    "philox4x32",
    "read_textures",
    "sample_crops",
    "sample_keys",
    "turn_crops",
]
