"""Contrastive self-supervised learning for PyTorch Lightning: each method is a choice of five aspects."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_modules.version import __version__

if TYPE_CHECKING:
    from ssl_modules.checkpoint import load_module
    from ssl_modules.contrast import Contrast, Relation
    from ssl_modules.downstream import evaluate, evaluate_features
    from ssl_modules.finetuning import FineTuning
    from ssl_modules.last_checkpoint import LastCheckpoint
    from ssl_modules.methods import (
        AMDIM,
        BYOL,
        CPC,
        RINCE,
        S2R2,
        SCE,
        YADIM,
        GroCo,
        MoCo,
        ReSSL,
        SimCLR,
        SimSiam,
        SupCon,
        SwAV,
    )
    from ssl_modules.module import ContrastiveModule
    from ssl_modules.utils.checkpoint_io import SafeCheckpointIO

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
    "LastCheckpoint",
    "MoCo",
    "ReSSL",
    "Relation",
    "SafeCheckpointIO",
    "SimCLR",
    "SimSiam",
    "SupCon",
    "SwAV",
    "__version__",
    "evaluate",
    "evaluate_features",
    "load_module",
]

_HOMES = {
    "Contrast": "contrast",
    "ContrastiveModule": "module",
    "FineTuning": "finetuning",
    "LastCheckpoint": "last_checkpoint",
    "Relation": "contrast",
    "SafeCheckpointIO": "utils.checkpoint_io",
    "evaluate": "downstream",
    "evaluate_features": "downstream",
    "load_module": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import a name at its first use, so that the callbacks alone import no method and no timm."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'methods')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# In a checkout, the data modules and callbacks are beside this folder; in an installed package, inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "datamodules" / "__init__.py").is_file() and (_root / "callbacks" / "__init__.py").is_file():
    __path__.append(str(_root))
