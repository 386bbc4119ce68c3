"""Aspect 1: batched augmentations with one draw per image."""

from ssl_modules.augmentations.blur import GaussianBlur
from ssl_modules.augmentations.color import ColorDrop, RandomGrayscale, RandomSolarize
from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop, RandomShift
from ssl_modules.augmentations.jitter import ColorJitter
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.patches import PatchGrid
from ssl_modules.augmentations.policies import POLICIES, SimCLRViews, policy
from ssl_modules.augmentations.views import Augmentation, JointViews, Views

__all__ = [
    "POLICIES",
    "Augmentation",
    "ColorDrop",
    "ColorJitter",
    "GaussianBlur",
    "JointViews",
    "Operation",
    "PatchGrid",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomShift",
    "RandomSolarize",
    "SimCLRViews",
    "Views",
    "policy",
]
