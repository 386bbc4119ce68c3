"""Loading checkpoints of any method without naming its class."""

from pathlib import Path
from typing import Any

import ssl_modules.methods  # noqa: F401  registers the methods' classes
from ssl_modules.module import ContrastiveModule
from ssl_modules.utils.checkpoint_io import read_checkpoint
from ssl_modules.utils.configurable import find_class
from ssl_modules.utils.plain_checkpoint import STATE, check_version


def load_module(path: str | Path, **arguments: Any) -> ContrastiveModule:
    """Load the module of a checkpoint, with the class that saved it, on the CPU and in training mode.

    No code in the file is run, and nothing it names is imported.

    Args:
        path: a checkpoint of a :class:`~ssl_modules.ContrastiveModule`, saved from Python or the command line.
        arguments: constructor arguments that replace those in the checkpoint, such as an ``encoder`` that could not be
            saved in it.

    Returns:
        The module with its weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, is not a checkpoint of this package, was written by ssl-modules 0.1, or
            needs a class that is not imported.

    Example:
        >>> import lightning.pytorch as pl
        >>> from ssl_modules import SimCLR
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, barebones=True)
        >>> trainer.strategy.connect(SimCLR(encoder="test_resnet"))
        >>> trainer.save_checkpoint("last.ckpt")
        >>> type(load_module("last.ckpt")).__name__
        'SimCLR'
    """
    checkpoint = read_checkpoint(path, "meta")
    name = checkpoint.get(STATE, {}).get("class")
    if name is None:
        raise ValueError(f"path: {path} is no checkpoint of a ContrastiveModule")
    check_version(checkpoint)
    found = find_class(name)
    if not (found is not None and issubclass(found, ContrastiveModule)):
        raise ValueError(
            f"path: {path} is of the class {name}, which does not exist here; import the module that defines it first, "
            f"on the command line with --model {name}"
        )
    return found.load_from_checkpoint(path, map_location="cpu", **arguments)
