"""The loaders of a probe: its own, those of a data module, or those of the Trainer."""

from typing import Any

from lightning.pytorch import Trainer

from ssl_modules.evaluation.batches import sample_count
from ssl_modules.evaluation.shared_features import SharedFeatures


def find_loader(probe: Any, part: str, trainer: Any, store: SharedFeatures) -> Any:
    """The loader that a probe reads a part from.

    Args:
        probe: an :class:`~ssl_modules.callbacks.OnlineProbe`.
        part: "train" or "test".
        trainer: a Trainer of either namespace, or None.
        store: keeps the loaders of data modules.

    Raises:
        ValueError: if there is no such loader, or reading it would change the Trainer's own order.
    """
    if probe.train is not None:
        return probe.train if part == "train" else probe.test
    data = datamodule_of(probe, trainer)
    if data is not None:
        is_trainers = trainer is not None and data is trainer.datamodule
        return single_loader(probe, part, store.loader(data, part, set_up=not is_trainers))
    if trainer is None:
        raise ValueError(
            f"{probe.name}: expected data, got none; give labelled loaders, train= and test=, or datamodule="
        )
    loader = single_loader(probe, part, trainer.train_dataloader if part == "train" else trainer.val_dataloaders)
    # Iterating over the Trainer's own loader would move its sampler, or restart its workers.
    if sample_count(loader) is None:
        raise ValueError(
            f"{probe.name}: expected a {part} loader that can be read in the data set's order, got the Trainer's "
            f"{type(loader).__name__} with an order of its own, which the probe would disturb; give the probe "
            "loaders of its own: train= and test="
        )
    return loader


def single_loader(probe: Any, part: str, loader: Any) -> Any:
    """A loader, which may be alone in a list.

    Raises:
        ValueError: for none, or several.
    """
    if isinstance(loader, list | tuple) and len(loader) == 1:
        loader = loader[0]
    if loader is None or isinstance(loader, list | tuple | dict):
        found = "none" if not loader else f"{len(loader)} of them"
        raise ValueError(
            f"{probe.name}: expected one {part} loader with labels in the run, got {found}; "
            "give the probe loaders of its own: train= and test="
        )
    return loader


def datamodule_of(probe: Any, trainer: Any) -> Any:
    """The data module that a probe reads: its own, or the Trainer's; None without either."""
    return probe.datamodule or (None if trainer is None else trainer.datamodule)


def takes_the_trainers_loaders(probe: Any, trainer: Any) -> bool:
    """Whether a probe has neither loaders nor a data module, and so reads the Trainer's loaders."""
    return probe.train is None and datamodule_of(probe, trainer) is None


def is_fast_dev_run(trainer: Any) -> bool:
    """Whether a Trainer, if there is one, only tries a few batches."""
    return trainer is not None and bool(trainer.fast_dev_run)


def validates(trainer: Trainer) -> bool:
    """Whether a Trainer runs a validation loop."""
    # A data module without a validation part gives no loader, or one without batches.
    is_empty = trainer.val_dataloaders is not None and sum(trainer.num_val_batches) == 0
    return trainer.enable_validation and not is_empty
