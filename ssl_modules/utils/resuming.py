"""Exact resuming: a checkpoint stores the run's seed, the global random state and the sum of the epoch's losses."""

from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ssl_modules.utils.distributed import gather_objects, rank, world_size
from ssl_modules.utils.lightning import attached_trainer, continue_epoch, reads_a_search, restore_loader_states
from ssl_modules.utils.pending import rewind
from ssl_modules.utils.plain_checkpoint import STATE
from ssl_modules.utils.seeds import derive_generator, global_random_state, set_global_random_state


class ExactResume:
    """Mixin for LightningModules whose resumed runs equal uninterrupted ones bit for bit.

    The generator of a batch is seeded by run seed, epoch, batch and process, so a resumed epoch draws the same random
    numbers as an uninterrupted one. Dropout draws from the global random state, which differs between processes;
    checkpoints store it. If a validation or the end of an epoch was pending when a checkpoint was saved, the resumed
    run does it first. A subclass that overrides one of these hooks must call ``super()``.
    """

    _run_seed = 0  # the same in all processes; a fit that isn't resumed draws a new one
    _resumed = False
    _random_state: dict[str, Tensor] | None = None
    _validation_is_pending = False
    _epoch_loss: tuple[Any, int] = (0.0, 0)  # sum over the epoch's images, and their number
    _not_logged: tuple[float, int] = (0.0, 0)  # the part of _epoch_loss that came from a checkpoint

    def generator(self, stage: str, batch_idx: int, device: torch.device) -> torch.Generator:
        """The generator of a batch; in validation and test it is the same in all epochs and runs, for comparability.

        Args:
            stage: "train", "val" or "test".
            batch_idx: number of the batch in its epoch.
            device: device of the generator.
        """
        module: Any = self
        seed, epoch = (self._run_seed, module.current_epoch) if stage == "train" else (0, 0)
        return derive_generator(seed, stage, epoch, batch_idx, rank(), device=device)

    def on_fit_start(self) -> None:
        super().on_fit_start()  # type: ignore[misc]
        module: Any = self
        if not self._resumed:
            self._run_seed = module.trainer.strategy.broadcast(int(torch.randint(2**62, ())))

    def on_train_start(self) -> None:
        module: Any = self
        restore_loader_states(module.trainer)
        if self._resumed:
            continue_epoch(module.trainer, self._validation_is_pending)
        self._resumed = False  # a later fit is a new run

    def log_epoch_loss(self, loss: Tensor, images: int) -> None:
        """Log ``train/loss_epoch``, the mean over all images of the epoch, also those before the run was resumed."""
        total, number = self._epoch_loss
        self._epoch_loss = (total + loss.detach() * images, number + images)
        total, number = self._not_logged
        self._not_logged = (0.0, 0)
        self._log_mean((total + loss * images) / (number + images) if number else loss, number + images)

    def on_train_epoch_start(self) -> None:
        self._epoch_loss = self._not_logged = (0.0, 0)

    def on_train_epoch_end(self) -> None:
        total, number = self._not_logged
        if number:  # the run was resumed after the last step of the epoch
            self._log_mean(torch.tensor(total / number), number)

    def _log_mean(self, mean: Tensor, images: int) -> None:
        module: Any = self
        module.log("train/loss_epoch", mean, on_step=False, on_epoch=True, sync_dist=True, batch_size=images)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Restore at the first step, because Lightning draws random numbers after it has loaded the checkpoint.
        if self._random_state is not None:
            set_global_random_state(self._random_state)
            self._random_state = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        module: Any = self
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        total, number = self._epoch_loss
        states, losses = zip(*gather_objects((global_random_state(module.device), (float(total), number))), strict=True)
        trainer = attached_trainer(module)
        for logger in trainer.loggers if trainer is not None else ():
            logger.save()  # a run that resumes from here doesn't log these rows again
        checkpoint[STATE] |= {"seed": self._run_seed, "random_state": list(states), "epoch_loss": list(losses)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        module: Any = self
        trainer, state = attached_trainer(module), checkpoint.get(STATE)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING and state is not None:
            states, losses = state["random_state"], state["epoch_loss"]
            if reads_a_search(trainer):  # the fit starts from the random state before the search
                set_global_random_state(states[rank()])
                return
            self._resumed = True
            self._run_seed = state["seed"]
            self._random_state = states[rank()] if rank() < len(states) else None
            self._epoch_loss = self._not_logged = _share(losses)
            self._validation_is_pending = rewind(checkpoint["loops"]["fit_loop"])


def _share(losses: list[tuple[float, int]]) -> tuple[float, int]:
    """Return the sum and the number of the losses of an epoch for this process.

    If the number of processes has changed, the losses are shared evenly.
    """
    if len(losses) == world_size():
        return losses[rank()]
    totals, numbers = zip(*losses, strict=True)
    number, rest = divmod(sum(numbers), world_size())
    own = number + (rank() < rest)
    return sum(totals) / sum(numbers) * own if own else 0.0, own
