"""Every private name of Lightning that we use, in one place; a test asks each version whether it still has them."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod

__all__ = ["NO_INSTANTIATOR", "attached_trainer", "class_method_only", "restore_loader_states", "state_key"]

# A class method that can't be called on an instance, as Lightning's load_from_checkpoint is.
class_method_only = _restricted_classmethod

# Keyword of load_from_checkpoint. It takes the place of the function that a checkpoint names to build the module by.
NO_INSTANTIATOR: dict[str, Any] = {"_instantiator": None}


def attached_trainer(module: pl.LightningModule) -> Any:
    """The Trainer of a module, or None; ``module.trainer`` would raise."""
    return module._trainer


def restore_loader_states(trainer: pl.Trainer) -> None:
    """Give the training loader its place in the epoch, where Lightning made it before it had read the checkpoint."""
    trainer.fit_loop._load_combined_loader_states()


def state_key(callback: pl.Callback, **attributes: Any) -> str:
    """The key of a callback's state in a checkpoint: its class, and what tells it from others of the class."""
    return callback._generate_state_key(**attributes)
