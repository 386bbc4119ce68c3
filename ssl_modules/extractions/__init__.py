"""Aspect 3, extraction: maps of all views -> list of contrasts."""

from ssl_modules.extractions.all_views import AllViews
from ssl_modules.extractions.base import Extraction

__all__ = ["AllViews", "Extraction"]
