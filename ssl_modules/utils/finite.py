"""Stops a fit if the loss is not finite, and refuses to save weights that are not finite."""

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor

from ssl_modules.utils.distributed import world_size


class FiniteLoss:
    """Mixin for LightningModules that ends a fit with an error at the first loss that is NaN or infinite.

    The optimiser does not step with such a loss, so the weights are those of the previous step. All processes stop at
    the same step. The loss is read after the backward pass was queued, so a GPU does not wait for it. Saving a
    checkpoint raises an error if weights or optimiser states are not finite; the previous file remains. A subclass that
    overrides one of these hooks must call ``super()``.
    """

    _losses: Tensor | None = None  # sum since the last optimiser step, over all processes

    def on_fit_start(self) -> None:
        super().on_fit_start()  # type: ignore[misc]
        self._losses = None  # an earlier run may have ended in the middle of a step

    def on_before_backward(self, loss: Tensor) -> None:
        value = loss.detach().float().sum()
        if world_size() > 1:
            dist.all_reduce(value)
        self._losses = value if self._losses is None else self._losses + value

    def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
        losses, self._losses = self._losses, None
        if losses is not None and not losses.isfinite():
            raise FloatingPointError(_explanation(self, optimizer, losses))

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        trained = {name for name, _ in self.named_parameters()}
        for name, value in _saved(checkpoint):
            # A buffer may hold infinity, for example in a mask, but never NaN.
            is_good = value.isfinite() if name in trained or name.startswith(_STATE) else ~value.isnan()
            if not is_good.all():
                raise FloatingPointError(
                    f"checkpoint: {name} holds NaN or infinity, so nothing is saved and the last checkpoint stays; "
                    f"{_FIXES}"
                )


_FIXES = "lower the learning rate, or clip gradients with Trainer(gradient_clip_val=1.0)"
_STATE = "the optimiser's "  # prefix of the names of optimiser states


def _saved(checkpoint: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Names and values of all weights, buffers and optimiser states of a checkpoint."""
    named = list(checkpoint["state_dict"].items())
    for states in checkpoint.get("optimizer_states", []):
        for state in states["state"].values():
            named += [(_STATE + key, value) for key, value in state.items()]
    yield from ((name, value) for name, value in named if isinstance(value, Tensor))


def _explanation(module: LightningModule, optimizer: Any, losses: Tensor) -> str:
    """The message of the error: the loss, the step, and the probable cause with a fix."""
    trainer = module.trainer
    rate = max(group["lr"] for group in optimizer.param_groups)
    where = f"step {trainer.global_step}, epoch {trainer.current_epoch}"
    if any(value.isnan().any() for value in (*module.parameters(), *module.buffers())):
        cause = f"weights hold NaN since an earlier step; learning rate {rate:.3g}: {_FIXES}"
    elif str(trainer.precision).startswith("16"):
        cause = f'precision="{trainer.precision}" overflows above 65,504; use "bf16-mixed" or "32-true"'
    else:
        cause = (
            f"the weights are finite, so look at the images of this batch (NaN, infinity) and at the loss (its "
            f"temperature); learning rate {rate:.3g}: {_FIXES}"
        )
    return f"loss: {losses.item()} at {where}; {cause}; the last checkpoint is of an earlier step"
