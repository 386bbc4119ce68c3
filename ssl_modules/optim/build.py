"""Building an optimiser with its learning rates and schedule, in Lightning's format."""

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from timm.optim import Lars
from torch.optim import Optimizer

from ssl_modules.optim.schedules import Schedule
from ssl_modules.utils.checks import check_instance


def check_optimizer(optimizer: Any) -> None:
    """Raise unless the argument ``optimizer`` is a function of parameter groups.

    Example:
        >>> check_optimizer(0.1)
        Traceback (most recent call last):
        ...
        TypeError: optimizer: expected a function of parameter groups, such as partial(torch.optim.SGD, lr=0.1), got 0.1
    """
    if isinstance(optimizer, Optimizer):
        name = type(optimizer).__name__
        raise TypeError(
            f"optimizer: expected a function of parameter groups, got a {name} object, which already has parameters; "
            f"give partial({name}, lr=...)"
        )
    if not callable(optimizer):
        raise TypeError(
            "optimizer: expected a function of parameter groups, such as partial(torch.optim.SGD, lr=0.1), got "
            f"{optimizer!r}"
        )


def build_optimizer(
    optimizer: OptimizerCallable,
    groups: list[dict[str, Any]],
    schedule: Schedule,
    trainer: pl.Trainer,
    base_batch_size: int | None = None,
) -> OptimizerLRSchedulerConfig:
    """Build what ``configure_optimizers`` returns: the optimiser with scaled learning rates, and its schedule.

    Args:
        optimizer: function of parameter groups that returns an optimiser.
        groups: see :func:`~ssl_modules.optim.param_groups`; a group's ``lr_scale`` multiplies its learning rate.
        schedule: schedule of the learning rates.
        trainer: gives the length of the run and the batch size.
        base_batch_size: images per optimiser step for which the learning rates are given; None = no scaling.

    Raises:
        TypeError: if the function returns no optimiser.
        ValueError: if the schedule needs the length of the run or of an epoch, and this length is unknown; or if
            ``base_batch_size`` is given and the batch size is unknown.
    """
    built = optimizer(groups)
    check_instance(
        "optimizer", built, Optimizer, "let the function return an optimiser, such as torch.optim.SGD(groups, lr=...)"
    )
    if isinstance(built, Lars) and not any(g["weight_decay"] or g["always_adapt"] for g in built.param_groups):
        rank_zero_warn("optimizer: timm's Lars adapts no group whose weight_decay is 0, so this is plain SGD")
    for group in built.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
    if base_batch_size is not None:
        batch_size, rate = _batch_size(trainer), built.param_groups[0]["lr"]
        for group in built.param_groups:
            group["lr"] *= batch_size / base_batch_size
        scaled = built.param_groups[0]["lr"]
        rank_zero_info(f"learning rate {scaled:g} = {rate:g} x {batch_size} / {base_batch_size}")
        absolute = schedule.absolute_rates() if scaled != rate else {}
        if absolute:
            rates = ", ".join(f"{name}={value}" for name, value in absolute.items())
            rank_zero_warn(
                f"schedule: {rates} of torch's scheduler is not scaled by {batch_size} / {base_batch_size}, but the "
                "learning rate is; give the final rates, and base_batch_size=None"
            )
    return schedule.attach(built, trainer.estimated_stepping_batches, steps_per_epoch(trainer))


def steps_per_epoch(trainer: pl.Trainer) -> int | float:
    """Return the number of optimiser steps in an epoch; infinite if it is unknown."""
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    return batches if batches == math.inf else math.ceil(batches / trainer.accumulate_grad_batches)


def _batch_size(trainer: pl.Trainer) -> int:
    """Images per optimiser step, over all processes."""
    trainer.fit_loop.setup_data()
    loader = trainer.train_dataloader
    batch_size = getattr(loader, "batch_size", None)
    if batch_size is None:  # with a batch sampler, the loader's batch_size is None
        batch_size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if batch_size is None:
        raise ValueError(
            "base_batch_size: the training loader has no batch_size to scale the learning rate by; give the final "
            "learning rate and base_batch_size=None"
        )
    return batch_size * trainer.world_size * trainer.accumulate_grad_batches
