"""All private names of Lightning that we use; a test checks that each version still has them."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod

__all__ = ["NO_INSTANTIATOR", "attached_trainer", "class_method_only", "restore_loader_states", "state_key"]

# Decorator of a class method that can't be called on an instance, such as Lightning's load_from_checkpoint.
class_method_only = _restricted_classmethod

# Keyword of load_from_checkpoint. It replaces the function that a checkpoint names for building the module.
NO_INSTANTIATOR: dict[str, Any] = {"_instantiator": None}


def attached_trainer(module: pl.LightningModule) -> Any:
    """The Trainer of a module, or None; ``module.trainer`` would raise."""
    return module._trainer


def restore_loader_states(trainer: pl.Trainer) -> None:
    """Restore the training loader's position in the epoch if Lightning made it before it read the checkpoint."""
    trainer.fit_loop._load_combined_loader_states()


def state_key(callback: pl.Callback, **attributes: Any) -> str:
    """The key of a callback's state in a checkpoint: its class, and the attributes that distinguish it in the class."""
    return callback._generate_state_key(**attributes)
