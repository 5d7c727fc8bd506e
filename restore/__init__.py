"""A checkpoint and an old photograph to a restored photograph."""

from .photos import Job, Restored, plan_jobs, restore_photos
from .restorer import Restorer, shipped_models

__all__ = ["Job", "Restored", "Restorer", "plan_jobs", "restore_photos", "shipped_models"]
