"""Pairs to a model: the networks, the loop, what is kept."""

from .checkpoint import ModelCard, Net, load_model, net_shape, save_model
from .colornet import COLOR_PRESETS, ColorNet, ColorNetConfig
from .config import TrainConfig
from .lab import LabNet
from .loop import (
    FinishedError,
    StoppedError,
    TrainResult,
    check_run,
    check_start,
    describe,
    measure,
    train,
    validate,
)
from .metrics import Quality, picture_quality, psnr_db
from .objectives import make_objective, net_config
from .run_folder import FolderError, RunFolder
from .unet import PRESETS, UNet, UNetConfig, find_preset

__all__ = [
    "COLOR_PRESETS",
    "PRESETS",
    "ColorNet",
    "ColorNetConfig",
    "FinishedError",
    "FolderError",
    "LabNet",
    "ModelCard",
    "Net",
    "Quality",
    "RunFolder",
    "StoppedError",
    "TrainConfig",
    "TrainResult",
    "UNet",
    "UNetConfig",
    "check_run",
    "check_start",
    "describe",
    "find_preset",
    "load_model",
    "make_objective",
    "measure",
    "net_config",
    "net_shape",
    "picture_quality",
    "psnr_db",
    "save_model",
    "train",
    "validate",
]
