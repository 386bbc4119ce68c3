"""The Trainer's hooks around the training step: evaluation, prediction, optimiser and teacher."""

from collections.abc import Sized
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from ssl_modules.batch import read_batch
from ssl_modules.last_batch import check_last_batch
from ssl_modules.objective import ranking
from ssl_modules.optim import build_optimizer, param_groups
from ssl_modules.optim.build import steps_per_epoch
from ssl_modules.optim.resumed import keep_options, options
from ssl_modules.optim.tuning import Tunable
from ssl_modules.rehearsal import rehearse_step
from ssl_modules.utils.distributed import world_size
from ssl_modules.utils.finite import FiniteLoss
from ssl_modules.utils.lightning import prunes
from ssl_modules.utils.memory import keep_freed_memory
from ssl_modules.utils.resuming import ExactResume
from ssl_modules.utils.strategies import check_strategy


class TrainerHooks(FiniteLoss, ExactResume, Tunable):
    """Mixin with all Trainer hooks of a :class:`~ssl_modules.ContrastiveModule` except the training step.

    A subclass that overrides a hook must call ``super()``, except for ``configure_optimizers``, ``param_groups``
    and the steps of validation, test and prediction.
    """

    _configured: list[dict[str, Any]] | None = None  # the optimiser's options; None if a subclass builds it

    def validation_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("val", batch, batch_idx)

    def test_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test", batch, batch_idx)

    def _evaluate(self: Any, stage: str, batch: Any, batch_idx: int) -> None:
        images, loss = read_batch(batch, self.encoder.in_channels), self.loss
        if len(images) * world_size() < loss.min_images:  # such as an incomplete last batch
            if batch_idx == 0:
                rank_zero_warn(
                    f"{stage}: the first batch has {len(images)} images and is left out, as {type(loss).__name__} "
                    f"compares {loss.min_images} or more; use a larger batch size or part"
                )
            return
        generator = self.generator(stage, batch_idx, images.device)
        contrasts = self.contrasts(images, self.embed(self.views(images, generator)), generator)
        values = {f"{stage}/loss": self.objective(contrasts)}
        for name, value in ranking(contrasts, self.similarity).items():
            if not value.isnan():  # NaN if no anchor has negatives
                values[f"{stage}/contrast_{name}"] = value
        self.log_dict(values, batch_size=len(images), sync_dist=True)

    def predict_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Any]:
        """Return the representation of the images of a batch, and their index if the loader gives one."""
        images = read_batch(batch, self.encoder.in_channels)
        if images.images is None:
            raise TypeError("batch: expected images to predict, got views from the loader; give it images")
        return self(images.images), images.index

    def param_groups(self: Any) -> list[dict[str, Any]]:
        """Return groups of the trainable parameters; biases and norms have weight decay only with ``decay_norms``."""
        return param_groups([self], self.decay_norms)

    def configure_optimizers(self: Any) -> OptimizerLRScheduler:
        groups = self.param_groups()
        built = build_optimizer(self.optimizer, groups, self.schedule, self.trainer, self.base_batch_size)
        self._configured = options(built["optimizer"])
        return built

    def optimizer_step(self: Any, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step the optimiser, then update the teacher, even if mixed precision skips the optimiser's step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)  # type: ignore[misc]
        if self.extraction.teacher_update == "after":
            self._update_teacher()

    def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
        """Update the teacher before the optimiser's step, if the extraction has ``teacher_update="before"``."""
        super().on_before_optimizer_step(optimizer)
        if self.extraction.teacher_update == "before":
            self._update_teacher()

    def _update_teacher(self: Any) -> None:
        if self.teacher is not None:
            steps = self.trainer.estimated_stepping_batches
            self.teacher.update(self.encoder, self.extraction.heads, self.trainer.global_step, steps)

    def setup(self: Any, stage: str) -> None:
        super().setup(stage)  # type: ignore[misc]
        if stage == "fit":
            check_strategy(self)

    def on_fit_start(self: Any) -> None:
        super().on_fit_start()
        if prunes(self.trainer):
            self.to(memory_format=torch.contiguous_format)  # activations stay channels-last
        if self.device.type == "cpu":
            keep_freed_memory()

    def on_train_start(self: Any) -> None:
        super().on_train_start()
        if self._configured is not None:
            keep_options(self.trainer, self._configured)
        trainer = self.trainer
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        images = len(dataset) if isinstance(dataset, Sized) else None
        self.extraction.on_fit_start(images, trainer.estimated_stepping_batches, steps_per_epoch(trainer))
        check_last_batch(self, rehearse_step)

    def on_train_batch_start(self: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.extraction.before_step(self.trainer.global_step)

    def on_after_backward(self: Any) -> None:
        self.extraction.after_backward()
