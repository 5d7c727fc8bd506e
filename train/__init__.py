"""Pairs to a model: the network, the loop, what is kept."""

from .checkpoint import ModelCard, load_model, save_model
from .loop import TrainConfig, TrainResult, check_run, describe, net_config, train, validate
from .metrics import Quality, picture_quality, psnr_db
from .unet import PRESETS, UNet, UNetConfig, find_preset

__all__ = [
    "PRESETS",
    "ModelCard",
    "Quality",
    "TrainConfig",
    "TrainResult",
    "UNet",
    "UNetConfig",
    "check_run",
    "describe",
    "find_preset",
    "load_model",
    "net_config",
    "picture_quality",
    "psnr_db",
    "save_model",
    "train",
    "validate",
]
