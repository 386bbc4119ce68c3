"""One file per method: the paper's choice for each of the five aspects."""

from ssl_modules.methods.amdim import AMDIM
from ssl_modules.methods.byol import BYOL
from ssl_modules.methods.cpc import CPC
from ssl_modules.methods.groco import GroCo
from ssl_modules.methods.moco import MoCo
from ssl_modules.methods.ressl import ReSSL
from ssl_modules.methods.rince import RINCE
from ssl_modules.methods.s2r2 import S2R2
from ssl_modules.methods.sce import SCE
from ssl_modules.methods.simclr import SimCLR
from ssl_modules.methods.simsiam import SimSiam
from ssl_modules.methods.sup_con import SupCon
from ssl_modules.methods.swav import SwAV
from ssl_modules.methods.yadim import YADIM

__all__ = [
    "AMDIM",
    "BYOL",
    "CPC",
    "RINCE",
    "S2R2",
    "SCE",
    "YADIM",
    "GroCo",
    "MoCo",
    "ReSSL",
    "SimCLR",
    "SimSiam",
    "SupCon",
    "SwAV",
]
