"""One file a method: its paper's choice for the five aspects, and nothing else."""

from ssl_modules.methods.byol import BYOL
from ssl_modules.methods.moco import MoCo
from ssl_modules.methods.rince import RINCE
from ssl_modules.methods.sce import SCE
from ssl_modules.methods.simclr import SimCLR

__all__ = ["BYOL", "RINCE", "SCE", "MoCo", "SimCLR"]
