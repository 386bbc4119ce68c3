"""Checkpoints that hold plain data: reading one imports and calls nothing that the file names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from ssl_modules.utils.checkpoint_io import read_checkpoint
from ssl_modules.utils.configurable import class_path, find_class, storable
from ssl_modules.utils.lightning import NO_INSTANTIATOR, attached_trainer, class_method_only
from ssl_modules.version import __version__

_OF_THE_OPTIMISER = {"optimizer", "base_batch_size"}  # optim.resumed warns about these
STATE = "ssl_modules"  # our key in a checkpoint
RENAMED = {
    "momentum": "extraction.init_args.momentum",
    "momentum_schedule": "extraction.init_args.momentum_schedule",
    "warmup": "schedule={class_path: WarmupCosine, init_args: {warmup: ...}}",
    "reference_batch_size": "base_batch_size",
}


class PlainCheckpoint:
    """Mixin for Lightning's modules and data modules whose arguments are stored as plain data.

    Lightning would call a function that the checkpoint names, and import the classes that it names. Here the
    constructor gets plain data, and :func:`~ssl_modules.utils.configurable.build` turns it into objects.
    """

    @class_method_only
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path | Any, *args: Any, weights_only: bool | None = True, **kwargs: Any
    ) -> Self:
        """Load an object from a checkpoint, as Lightning's method of this name does; no code of the file runs.

        Args:
            checkpoint_path: path, URL or open file.
            args: Lightning's ``map_location``, ``hparams_file`` and ``strict``, by position.
            weights_only: whether the file may hold only tensors and plain data. With False a file runs any code.
            kwargs: the same by name, and constructor arguments that replace those of the checkpoint.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, needs a class that is not imported or is neither configurable nor an
                optimiser, lacks an argument that could not be serialised, or was written by ssl-modules 0.1.
        """
        base: Any = super()
        kwargs |= {"weights_only": weights_only, **NO_INSTANTIATOR}
        is_path = isinstance(checkpoint_path, str | Path) and "://" not in str(checkpoint_path)
        checkpoint = read_checkpoint(checkpoint_path, "meta", weights_only=weights_only is not False) if is_path else {}
        try:
            return base.load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except TypeError:
            check_version(checkpoint)
            raise


class PlainModule(PlainCheckpoint):
    """Mixin for LightningModules whose checkpoints hold class, version and arguments as plain data.

    Attributes:
        replaceable: arguments that are also attributes; a checkpoint stores the attributes' current values.
    """

    replaceable: tuple[str, ...] = ()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
        for name in self.replaceable:
            if name in stored and not isinstance(stored[name], str):  # a name, such as a policy's, was not replaced
                stored[name] = getattr(self, name)
        if stored:  # a subclass may have added objects with save_hyperparameters()
            checkpoint[LightningModule.CHECKPOINT_HYPER_PARAMS_KEY] = storable(stored)
        checkpoint[STATE] = {"version": __version__, "class": class_path(type(self))}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_version(checkpoint)
        module: Any = self
        if attached_trainer(module) is not None:
            _compare(module, checkpoint)


def _compare(module: Any, checkpoint: Mapping[str, Any]) -> None:
    """Raise if a Trainer's checkpoint is of another method; warn about arguments that differ in a resumed fit."""
    own, stored = class_path(type(module)), checkpoint.get(STATE, {}).get("class")
    found = find_class(stored) if stored else None
    if found is not None and not (isinstance(module, found) or issubclass(found, type(module))):
        raise ValueError(
            f"ckpt_path: the checkpoint is of {stored.rpartition('.')[2]}, but the module is a "
            f"{own.rpartition('.')[2]}; give both the same class"
        )
    if attached_trainer(module).state.fn != TrainerFn.FITTING:
        return
    before, now = checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {}), storable(module.hparams)
    for name in before.keys() & now.keys() - _OF_THE_OPTIMISER:
        if before[name] != now[name]:
            rank_zero_warn(f"{name}: continues with {now[name]}; the checkpoint was trained with {before[name]}")


def check_version(checkpoint: Mapping[str, Any]) -> None:
    """Raise for a checkpoint of ssl-modules 0.1, because arguments had other names there.

    Example:
        >>> check_version({"ssl_modules": {"version": "0.2.0"}})
    """
    state = checkpoint.get(STATE)
    # FineTuning of 0.1 stored nothing under our key, but had an argument "warmup".
    is_old = "warmup" in checkpoint.get("hyper_parameters", {}) if state is None else "version" not in state
    if is_old:
        raise ValueError(
            "checkpoint: is of ssl-modules 0.1, where momentum and momentum_schedule (now of the extraction), "
            "warmup (now schedule=WarmupCosine(warmup)), reference_batch_size (now base_batch_size) and policies such "
            'as "simclr-32" (now "simclr" with image_size=32) had other names; build the module with the new names and '
            'load its weights: module.load_state_dict(torch.load(path)["state_dict"])'
        )
