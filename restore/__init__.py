"""A checkpoint and an old photograph to a restored photograph."""

from .photos import Job, Restored, plan_jobs, restore_photos
from .restorer import Restorer, find_model, shipped_models

__all__ = [
    "Job",
    "Restored",
    "Restorer",
    "find_model",
    "plan_jobs",
    "restore_photos",
    "shipped_models",
]
