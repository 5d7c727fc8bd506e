"""A checkpoint and an old photograph to a restored photograph."""

from .batch import Restored, restore_photos
from .models import find_model, shipped_models
from .own_colors import has_own_colors
from .photos import Job, plan_jobs
from .restorer import Restorer
from .scans import Page, encode_pages, read_pages

__all__ = [
    "Job",
    "Page",
    "Restored",
    "Restorer",
    "encode_pages",
    "find_model",
    "has_own_colors",
    "plan_jobs",
    "read_pages",
    "restore_photos",
    "shipped_models",
]
