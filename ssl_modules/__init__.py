"""Contrastive self-supervised learning for PyTorch Lightning: every method a choice of five aspects."""

from pathlib import Path

from ssl_modules.checkpoint import load_module
from ssl_modules.contrast import Contrast, Relation
from ssl_modules.finetuning import FineTuning
from ssl_modules.methods import AMDIM, BYOL, CPC, RINCE, S2R2, SCE, YADIM, GroCo, MoCo, SimCLR
from ssl_modules.module import ContrastiveModule
from ssl_modules.version import __version__

__all__ = [
    "AMDIM",
    "BYOL",
    "CPC",
    "RINCE",
    "S2R2",
    "SCE",
    "YADIM",
    "Contrast",
    "ContrastiveModule",
    "FineTuning",
    "GroCo",
    "MoCo",
    "Relation",
    "SimCLR",
    "__version__",
    "load_module",
]

# In a bare checkout the data modules and callbacks stand beside this folder; installed, they are inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "datamodules" / "__init__.py").is_file() and (_root / "callbacks" / "__init__.py").is_file():
    __path__.append(str(_root))
