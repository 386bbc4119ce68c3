"""All private names of Lightning that we use; a test checks that each version still has them."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelPruning
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod

__all__ = [
    "NO_INSTANTIATOR",
    "attached_trainer",
    "class_method_only",
    "continue_epoch",
    "ended_processes",
    "prunes",
    "reads_a_search",
    "restore_loader_states",
    "state_key",
    "synchronises_batch_norms",
]

# Decorator of a class method that can't be called on an instance, such as Lightning's load_from_checkpoint.
class_method_only = _restricted_classmethod

# Keyword of load_from_checkpoint. It replaces the function that a checkpoint names for building the module.
NO_INSTANTIATOR: dict[str, Any] = {"_instantiator": None}


def attached_trainer(module: pl.LightningModule) -> Any:
    """The Trainer of a module, or None; ``module.trainer`` would raise."""
    return module._trainer


def prunes(trainer: pl.Trainer) -> bool:
    """Return whether a Trainer has the callback ModelPruning, which needs contiguous weights by default."""
    return any(isinstance(callback, ModelPruning) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def reads_a_search(trainer: pl.Trainer) -> bool:
    """Return whether a LearningRateFinder or BatchSizeFinder wrote the last checkpoint that the Trainer read.

    These finders save the state of a fit before their search, and restore it afterwards.
    """
    return Path(str(trainer.ckpt_path)).name.startswith((".lr_find_", ".scale_batch_size_"))


def restore_loader_states(trainer: pl.Trainer) -> None:
    """Restore the training loader's position in the epoch if Lightning made it before it read the checkpoint."""
    trainer.fit_loop._load_combined_loader_states()


def continue_epoch(trainer: pl.Trainer, validation_is_pending: bool) -> None:
    """Prepare the loops of a resumed fit so that a pending validation is done and no batch is trained too often.

    If the number of processes or the batch size has changed since the checkpoint, the loops take the number of finished
    batches of the epoch from the loader of the data module. Call this function before the first step.

    Args:
        trainer: a Trainer whose loops have read a checkpoint.
        validation_is_pending: whether the validation after the last batch has not been completed.
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    loader: Any = trainer.train_dataloader
    # The loader counts batches of this run, because the batch size or the number of processes may have changed.
    before = getattr(loader, "batches_before", None)
    if before is not None and loader.state_dict()["epoch"] == trainer.current_epoch:
        for count in ("ready", "started", "processed", "completed"):
            setattr(loop.batch_progress.current, count, before)
    is_due = loop._should_check_val_fx(fetcher)  # type: ignore[arg-type]
    if validation_is_pending:
        loop.val_loop.batch_progress.reset()
    if trainer.lightning_module.automatic_optimization:
        # This is the step number of the next log entry. Lightning counts the last step after the validation.
        counts_again = loop.restarting and is_due and not loop._should_accumulate()
        loop._batches_that_stepped = trainer.global_step - counts_again
    if loop._num_ready_batches_reached() and not is_due:
        fetcher.done = True  # type: ignore[union-attr]  # no batch is left in this epoch


def state_key(callback: pl.Callback, **attributes: Any) -> str:
    """The key of a callback's state in a checkpoint: its class, and the attributes that distinguish it in the class."""
    return callback._generate_state_key(**attributes)


def synchronises_batch_norms(trainer: pl.Trainer) -> bool:
    """Return whether the strategy will replace batch norms by synchronised ones, because of ``sync_batchnorm=True``."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def ended_processes(trainer: pl.Trainer) -> list[str]:
    """Describe the processes that a Trainer started on this machine and that ended with an error."""
    launcher = trainer.strategy.launcher
    processes = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    ended = []
    for local_rank, process in enumerate(processes, start=1):
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)  # a process closes its connection shortly before it ends
        if code := process.returncode:
            how = f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
            rank = trainer.node_rank * trainer.num_devices + local_rank
            ended.append(f"The process of rank {rank} {how} (PID {process.pid}).")
    return ended
