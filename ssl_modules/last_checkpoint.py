"""A callback that keeps the last checkpoint, so that a stopped run can continue."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_modules.utils.checks import check_instance


class LastCheckpoint(ModelCheckpoint):
    """Callback that saves the last state of a run to one file, also when SIGTERM ends the run.

    It saves after each validation, or after each epoch if there is no validation, and replaces the previous file.
    Clusters and preemptible machines send SIGTERM before they end a process. The Trainer then finishes the step, and
    this callback saves the checkpoint. The command uses it by default.

    Args:
        filename: name of the file, without ``.ckpt``.
        settings: other keyword arguments of Lightning's ``ModelCheckpoint``, such as ``dirpath`` or
            ``every_n_train_steps``.

    Raises:
        TypeError: if ``filename`` is not a string.

    Example:
        >>> LastCheckpoint(dirpath="run").filename
        'last'
    """

    def __init__(self, filename: str = "last", **settings: Any) -> None:
        check_instance("filename", filename, str, 'such as "last"')
        super().__init__(filename=filename, enable_version_counter=False, save_on_exception=True, **settings)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save only at SIGTERM; other exceptions may interrupt a step, and a run can't continue from such a state."""
        if isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)
