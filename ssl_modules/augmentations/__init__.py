"""Aspect 1: batched augmentations with one draw per image."""

from ssl_modules.augmentations.blur import GaussianBlur
from ssl_modules.augmentations.color import ColorDrop, RandomGrayscale, RandomSolarize
from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop, RandomShift
from ssl_modules.augmentations.jitter import ColorJitter
from ssl_modules.augmentations.named import POLICIES, policy
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.patches import PatchGrid
from ssl_modules.augmentations.policies import (
    AMDIMViews,
    BYOLViews,
    CPCViews,
    GroCoViews,
    MoCoViews,
    SCEViews,
    SimCLRViews,
    YADIMViews,
)
from ssl_modules.augmentations.views import Augmentation, JointViews, Views

__all__ = [
    "POLICIES",
    "AMDIMViews",
    "Augmentation",
    "BYOLViews",
    "CPCViews",
    "ColorDrop",
    "ColorJitter",
    "GaussianBlur",
    "GroCoViews",
    "JointViews",
    "MoCoViews",
    "Operation",
    "PatchGrid",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomShift",
    "RandomSolarize",
    "SCEViews",
    "SimCLRViews",
    "Views",
    "YADIMViews",
    "policy",
]
