"""Learning-rate schedules."""

import math
from abc import ABC, abstractmethod

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssl_modules.utils.configurable import Configurable, described


class Schedule(Configurable, ABC):
    """The learning rate over a run, as a factor of the optimiser's learning rate."""

    __repr__ = described

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float:
        """The factor of one step.

        Args:
            step: number of the optimiser's step, from 0.
            steps: number of steps in the run.
        """


class WarmupCosine(Schedule):
    """Linear warm-up to 1, then half a cosine to 0.

    Step s of W warm-up steps has the factor (s + 1) / W. The factor would be 0 one step after the end of the run.

    Args:
        warmup: length of the warm-up: a float in [0, 1] is a share of all steps, an int a number of steps.

    Raises:
        ValueError: if ``warmup`` is negative, or a float above 1.

    Example:
        >>> schedule = WarmupCosine(warmup=2)
        >>> [round(schedule(step, steps=6), 3) for step in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, warmup: int | float = 0.1) -> None:
        if not 0 <= warmup <= (1 if isinstance(warmup, float) else math.inf):
            raise ValueError(
                f"warmup: expected a share of all steps (float, 0 to 1) or a number of steps (int), got {warmup!r}"
            )
        self.warmup = warmup

    def __call__(self, step: int, steps: int) -> float:
        warmup_steps = round(self.warmup * steps) if isinstance(self.warmup, float) else self.warmup
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def scheduled(optimizer: Optimizer, steps: int | float, schedule: Schedule) -> OptimizerLRSchedulerConfig:
    """An optimiser with its schedule, updated at each optimiser step, in Lightning's format.

    Args:
        optimizer: has the learning rates that the schedule's factors multiply.
        steps: ``trainer.estimated_stepping_batches``.
        schedule: schedule of the learning rates.

    Raises:
        ValueError: if the run has no known end.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> sgd = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.5)
        >>> scheduled(sgd, 10, WarmupCosine(0.2))["lr_scheduler"]["interval"], sgd.param_groups[0]["lr"]
        ('step', 0.25)
    """
    if not 0 < steps < float("inf"):  # -1 for a loader without a length
        raise ValueError(
            "max_epochs: a schedule needs an end; set Trainer(max_epochs=...), or max_steps for a loader without a "
            "length"
        )
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, int(steps)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
