"""Finds the loaders of a probe: its own, those of a datamodule, or those of the Trainer."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from ssl_modules.evaluation.batches import is_data_set, sample_count
from ssl_modules.evaluation.shared_features import SharedFeatures


def find_loader(probe: Any, part: str, trainer: Any, store: SharedFeatures) -> Any:
    """Return the loader of a part for a probe.

    Args:
        probe: an :class:`~ssl_modules.callbacks.OnlineProbe`.
        part: "train" or "test".
        trainer: a ``lightning`` or ``pytorch_lightning`` Trainer, or None.
        store: keeps the loaders of datamodules.

    Raises:
        ValueError: if there is no such loader, or reading it would change the order of the Trainer's batches.
    """
    if probe.train is not None:
        return store.as_loader(probe.train if part == "train" else probe.test)
    data = datamodule_of(probe, trainer)
    if data is not None:
        is_trainers = trainer is not None and data is trainer.datamodule
        return single_loader(probe, part, store.loader(data, part, set_up=not is_trainers))
    if trainer is None:
        raise ValueError(
            f"{probe.name}: expected data, got none; give labelled loaders, train= and test=, or datamodule="
        )
    loader = single_loader(probe, part, trainer.train_dataloader if part == "train" else trainer.val_dataloaders)
    # Iterating over the Trainer's loader would advance its sampler or restart its workers.
    if sample_count(loader) is None:
        raise ValueError(
            f"{probe.name}: expected a {part} loader that can be read in the data set's order, got the Trainer's "
            f"{type(loader).__name__} with an order of its own, which the probe would disturb; give the probe "
            "loaders of its own: train= and test="
        )
    return loader


def check_data(name: str, data: Any, otherwise: str = "") -> None:
    """Raise unless an argument is None, a loader, or a map-style data set.

    Args:
        name: name of the argument.
        data: value of the argument.
        otherwise: words for the message that say what else the argument may be.

    Raises:
        TypeError: if ``data`` is anything else.
    """
    is_loader = hasattr(data, "__iter__") and not isinstance(data, Mapping)
    if data is not None and (isinstance(data, str | type) or not (is_loader or is_data_set(data))):
        raise TypeError(f"{name}: expected a loader or a map-style data set{otherwise}, got {data!r}")


def single_loader(probe: Any, part: str, loader: Any) -> Any:
    """Return the loader, also if it is given as a list of one loader.

    Raises:
        ValueError: if there is no loader, or more than one.
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
    """Return the probe's own datamodule, else the Trainer's; None if there is neither."""
    return probe.datamodule or (None if trainer is None else trainer.datamodule)


def takes_the_trainers_loaders(probe: Any, trainer: Any) -> bool:
    """Whether a probe reads the Trainer's loaders, because it has neither loaders nor a datamodule."""
    return probe.train is None and datamodule_of(probe, trainer) is None


def is_fast_dev_run(trainer: Any) -> bool:
    """Whether there is a Trainer and it does a ``fast_dev_run`` of a few batches."""
    return trainer is not None and bool(trainer.fast_dev_run)


def validates(trainer: Trainer) -> bool:
    """Whether a Trainer runs a validation loop."""
    # A datamodule without a validation part returns no loader, or a loader without batches.
    is_empty = trainer.val_dataloaders is not None and sum(trainer.num_val_batches) == 0
    return trainer.enable_validation and not is_empty
