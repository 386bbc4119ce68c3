"""Parameter groups and learning-rate schedules."""

from collections.abc import Callable, Iterable
from math import cos, pi
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def param_groups(modules: Iterable[nn.Module]) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: those that decay, and biases and norms, which never do.

    Biases and norms are known by their shape (one axis or none), as names can't be trusted. LARS adapts no group
    without weight decay, so they are excluded from its adaptation as well.

    Args:
        modules: whose parameters to take; a parameter that two share is taken once.

    Returns:
        Groups for any torch optimiser, without empty ones.

    Example:
        >>> [len(group["params"]) for group in param_groups([nn.Linear(2, 3)])]
        [1, 1]
    """
    parameters = dict.fromkeys(p for m in modules for p in m.parameters() if p.requires_grad)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(steps: int, warmup_steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each optimiser step: linear warm-up to 1, then half a cosine to 0.

    Step s of the warm-up has (s + 1) / warmup_steps; the last step is one short of 0.

    Args:
        steps: optimiser steps in all.
        warmup_steps: of which warm-up.

    Raises:
        ValueError: if there is no step.

    Returns:
        Function of the step, for :class:`torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> factor = warmup_cosine(steps=6, warmup_steps=2)
        >>> [round(factor(s), 3) for s in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    if steps < 1:
        raise ValueError(f"steps: expected a positive number, got {steps}")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return (1 + cos(pi * min(progress, 1.0))) / 2

    return factor


def scheduled(optimizer: Optimizer, steps: int | float, warmup: float) -> OptimizerLRScheduler:
    """An optimiser with its schedule of :func:`warmup_cosine`, one step each optimiser step, as Lightning takes it.

    Args:
        optimizer: with the learning rates that the warm-up leads to.
        steps: ``trainer.estimated_stepping_batches``.
        warmup: share of them, in [0, 1].

    Raises:
        ValueError: if the run has no known end.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.5)
        >>> scheduled(sgd, 10, warmup=0.2)["lr_scheduler"]["interval"], sgd.param_groups[0]["lr"]
        ('step', 0.25)
    """
    if not 0 < steps < float("inf"):  # -1 for a loader without a length
        raise ValueError(
            "max_epochs: a schedule needs an end; set Trainer(max_epochs=...), or max_steps for a loader without a "
            "length"
        )
    schedule = LambdaLR(optimizer, warmup_cosine(int(steps), round(warmup * steps)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
