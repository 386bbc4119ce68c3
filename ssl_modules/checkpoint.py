"""Checkpoints of any method, read back without naming its class."""

import sys
from pathlib import Path
from pickle import UnpicklingError

import torch

from ssl_modules.module import STATE, ContrastiveModule


def load_module(path: str | Path) -> ContrastiveModule:
    """The module of a checkpoint, of the class that wrote it, on the CPU and in training mode.

    Args:
        path: a checkpoint of :class:`~ssl_modules.ContrastiveModule` or a subclass, of a notebook or the command line.

    Returns:
        The module with its weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint of ours, or of a class that is not imported.

    Example:
        >>> import lightning.pytorch as pl
        >>> from ssl_modules import SimCLR
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, barebones=True)
        >>> trainer.strategy.connect(SimCLR("simclr", "test_resnet"))
        >>> trainer.save_checkpoint("last.ckpt")
        >>> type(load_module("last.ckpt")).__name__
        'SimCLR'
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError, IndexError) as error:
        raise ValueError(f"path: {path} is no checkpoint") from error
    name = checkpoint.get(STATE, {}).get("class") if isinstance(checkpoint, dict) else None
    if name is None:
        raise ValueError(f"path: {path} is no checkpoint of a ContrastiveModule")
    module, _, qualname = name.rpartition(".")
    # A checkpoint is data from elsewhere: it may name a class of our kind, not have anything imported or called.
    found = getattr(sys.modules.get(module), qualname, None)
    if not (isinstance(found, type) and issubclass(found, ContrastiveModule)):
        raise ValueError(
            f"path: {path} is of the class {name}, which is not there; import the module that defines it first"
        )
    return found.load_from_checkpoint(path, map_location="cpu")
