"""Aspect 3, extraction: maps of all views -> list of contrasts."""

from ssl_modules.extractions.all_views import AllViews
from ssl_modules.extractions.base import Extraction
from ssl_modules.extractions.local_maps import LocalMaps
from ssl_modules.extractions.patch_context import PatchContext
from ssl_modules.extractions.predictor import Predictor
from ssl_modules.extractions.prototypes import Prototypes
from ssl_modules.extractions.queue import Queue
from ssl_modules.extractions.ranks import LabelRanks, NeighbourRanks, Ranks, RankTable, SimilarityRanks

__all__ = [
    "AllViews",
    "Extraction",
    "LabelRanks",
    "LocalMaps",
    "NeighbourRanks",
    "PatchContext",
    "Predictor",
    "Prototypes",
    "Queue",
    "RankTable",
    "Ranks",
    "SimilarityRanks",
]
