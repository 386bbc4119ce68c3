"""Aspect 1: batched augmentations with parameters drawn per image."""

from ssl_modules.augmentations.blur import GaussianBlur
from ssl_modules.augmentations.build import not_an_augmentation
from ssl_modules.augmentations.clips import ClipViews
from ssl_modules.augmentations.color import ColorDrop, RandomGrayscale, RandomSolarize
from ssl_modules.augmentations.foreign import Foreign
from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop, RandomShift
from ssl_modules.augmentations.jitter import ColorJitter
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.patches import PatchGrid
from ssl_modules.augmentations.policies import POLICIES, policy
from ssl_modules.augmentations.policies.amdim import AMDIMViews
from ssl_modules.augmentations.policies.byol import BYOLViews
from ssl_modules.augmentations.policies.cpc import CPCViews
from ssl_modules.augmentations.policies.groco import GroCoViews
from ssl_modules.augmentations.policies.moco import MoCoViews
from ssl_modules.augmentations.policies.ressl import ReSSLViews
from ssl_modules.augmentations.policies.sce import SCEViews
from ssl_modules.augmentations.policies.simclr import SimCLRViews
from ssl_modules.augmentations.policies.swav import SwAVViews
from ssl_modules.augmentations.policies.yadim import YADIMViews
from ssl_modules.augmentations.ready import ReadyViews
from ssl_modules.augmentations.views import Augmentation, JointViews, Views

__all__ = [
    "POLICIES",
    "AMDIMViews",
    "Augmentation",
    "BYOLViews",
    "CPCViews",
    "ClipViews",
    "ColorDrop",
    "ColorJitter",
    "Foreign",
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
    "ReSSLViews",
    "ReadyViews",
    "SCEViews",
    "SimCLRViews",
    "SwAVViews",
    "Views",
    "YADIMViews",
    "not_an_augmentation",
    "policy",
]
