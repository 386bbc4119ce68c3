"""Learning-rate schedules: formulas that depend on the step of a run, and torch's schedulers."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ssl_modules.utils.checks import check_number, check_numbers
from ssl_modules.utils.configurable import Configurable, described

Ramp = Literal["s/W", "s/(W-1)", "(s+1)/W"]
RAMPS: dict[Ramp, Callable[[int, int], float]] = {
    "s/W": lambda s, warmup: s / warmup,
    "s/(W-1)": lambda s, warmup: s / max(1, warmup - 1),
    "(s+1)/W": lambda s, warmup: (s + 1) / warmup,
}
ABSOLUTE = ("eta_min", "max_lr", "base_lr")  # arguments of torch's schedulers that are learning rates


class Schedule(Configurable, ABC):
    """Base class of learning-rate schedules: of formulas, and of the wrapper for torch's schedulers."""

    __repr__ = described

    @abstractmethod
    def attach(
        self, optimizer: Optimizer, steps: int | float, steps_per_epoch: int | float
    ) -> OptimizerLRSchedulerConfig:
        """Return the optimiser with its scheduler, in Lightning's format.

        Args:
            optimizer: optimiser whose learning rates the schedule changes.
            steps: number of optimiser steps in the run; -1 or infinite if unknown.
            steps_per_epoch: number of optimiser steps in an epoch; infinite if unknown.
        """

    def absolute_rates(self) -> dict[str, Any]:
        """Return the schedule's arguments that are learning rates, by name; they are not scaled to the batch size."""
        return {}


class FactorSchedule(Schedule):
    """Base class of formulas: at each step, a formula gives the factor that multiplies the optimiser's learning rate.

    Subclasses implement ``__call__``.

    Example:
        >>> class Linear(FactorSchedule):
        ...     def __call__(self, step, steps, steps_per_epoch):
        ...         return 1 - step / steps
        >>> import torch
        >>> sgd = torch.optim.SGD(torch.nn.Linear(2, 3).parameters(), lr=0.5)
        >>> scheduler = Linear().attach(sgd, steps=10, steps_per_epoch=5)["lr_scheduler"]["scheduler"]
        >>> sgd.step()
        >>> scheduler.step()
        >>> sgd.param_groups[0]["lr"]
        0.45
    """

    @abstractmethod
    def __call__(self, step: int, steps: int, steps_per_epoch: int | float) -> float:
        """Return the factor of one step.

        Args:
            step: number of the optimiser's step, from 0.
            steps: number of steps in the run.
            steps_per_epoch: number of steps in an epoch; infinite if unknown.
        """

    def attach(
        self, optimizer: Optimizer, steps: int | float, steps_per_epoch: int | float
    ) -> OptimizerLRSchedulerConfig:
        """Return the optimiser with a scheduler that updates the learning rate at each optimiser step.

        Raises:
            ValueError: if the length of the run is unknown, or if the formula needs an unknown length of an epoch.
        """
        if not 0 < steps < math.inf:  # -1 for a loader without a length
            raise ValueError(
                "max_epochs: a schedule needs an end; set Trainer(max_epochs=...), or max_steps for a loader without a "
                "length"
            )
        scheduler = _OwnGroups(optimizer, lambda step: self(step, int(steps), steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _OwnGroups(LambdaLR):
    """Keeps the learning rates of groups that are added later, because ``BackboneFinetuning`` sets these itself."""

    def get_lr(self) -> list[Any]:
        own = super().get_lr()
        return [*own, *(group["lr"] for group in self.optimizer.param_groups[len(own) :])]


class WarmupSchedule(FactorSchedule):
    """Base class of schedules with a linear warm-up, followed by another formula. Subclasses implement :meth:`after`.

    ``ramp`` is the formula for the factor at step s of W warm-up steps. The official code of SimCLR, BYOL, GroCo and
    bolts uses "s/W", that of SCE uses "s/(W-1)", and that of AMDIM uses "(s+1)/W".

    Args:
        warmup: length of the warm-up: a float in [0, 1] is a share of all steps, an int a number of steps.
        ramp: formula of the warm-up.

    Raises:
        ValueError: if ``warmup`` is negative, or a float above 1.
    """

    def __init__(self, warmup: int | float = 0, ramp: Ramp = "s/W") -> None:
        _check_amounts("warmup", [warmup], "steps")
        self.warmup = warmup
        self.ramp = ramp

    @abstractmethod
    def after(self, step: int, warmup_steps: int, steps: int, steps_per_epoch: int | float) -> float:
        """Return the factor of a step after the warm-up; the arguments are those of ``__call__``."""

    def __call__(self, step: int, steps: int, steps_per_epoch: int | float) -> float:
        warmup_steps = self.warmup_steps(steps, steps_per_epoch)
        if step < warmup_steps:
            return RAMPS[self.ramp](step, warmup_steps)
        return self.after(step, warmup_steps, steps, steps_per_epoch)

    def warmup_steps(self, steps: int, steps_per_epoch: int | float) -> int:
        """Return the number of warm-up steps; the arguments are those of ``__call__``."""
        return amount_of(self.warmup, steps)


class WarmupCosine(WarmupSchedule):
    """Linear warm-up to 1, then half a cosine to ``floor``.

    The cosine would reach ``floor`` one step after the end of the run, or one epoch after it if ``per`` is "epoch".

    Args:
        warmup: length of the warm-up. A float in [0, 1] is a share of all steps. An int is a number of steps, or of
            epochs if ``per`` is "epoch".
        ramp: formula of the warm-up; see :class:`WarmupSchedule`.
        floor: factor at the end of the cosine, in [0, 1].
        per: "step" if the cosine changes at each step; "epoch" if it changes after each epoch, as in MoCo's code.

    Raises:
        ValueError: if ``warmup`` is negative or a float above 1, or if ``floor`` is outside [0, 1].

    Example:
        >>> schedule = WarmupCosine(warmup=2)
        >>> [round(schedule(step, steps=6, steps_per_epoch=3), 3) for step in range(7)]
        [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
        >>> [WarmupCosine(0, per="epoch")(step, steps=6, steps_per_epoch=3) for step in range(6)]
        [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    """

    def __init__(
        self,
        warmup: int | float = 0.1,
        ramp: Ramp = "s/W",
        *,
        floor: float = 0.0,
        per: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__(warmup, ramp)
        check_number("floor", floor, least=0, most=1)
        self.floor = floor
        self.per = per

    def warmup_steps(self, steps: int, steps_per_epoch: int | float) -> int:
        """Return the number of warm-up steps."""
        if self.per == "epoch" and isinstance(self.warmup, int):
            return self.warmup * length_of_epoch(steps_per_epoch)
        return super().warmup_steps(steps, steps_per_epoch)

    def after(self, step: int, warmup_steps: int, steps: int, steps_per_epoch: int | float) -> float:
        """Return the factor of the cosine."""
        if self.per == "epoch":
            length = length_of_epoch(steps_per_epoch)
            step = max(warmup_steps, step // length * length)
        return cosine((step - warmup_steps) / max(1, steps - warmup_steps), self.floor)


class EpochCosine(FactorSchedule):
    """The schedule of SupContrast's code, which RINCE uses: after the warm-up, it changes once per epoch.

    Epoch e of E, counted from 1, has the factor ``floor + (1 - floor) (1 + cos(pi e / E)) / 2``. During the warm-up,
    the factor rises linearly from ``start`` to the factor of the last warm-up epoch. Step s of W warm-up steps has the
    factor ``start + (factor - start) s / W``.

    Args:
        warmup: length of the warm-up: a float in [0, 1] is a share of all epochs, an int a number of epochs.
        start: factor of the first warm-up step, not negative.
        floor: factor of the last epoch, in [0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> schedule = EpochCosine(warmup=2, start=0.02, floor=0.001)
        >>> [round(schedule(step, steps=8, steps_per_epoch=2), 3) for step in range(8)]
        [0.02, 0.14, 0.26, 0.38, 0.147, 0.147, 0.001, 0.001]
    """

    def __init__(self, warmup: int | float = 0, *, start: float = 0.0, floor: float = 0.0) -> None:
        _check_amounts("warmup", [warmup], "epochs")
        check_number("start", start, least=0)
        check_number("floor", floor, least=0, most=1)
        self.warmup = warmup
        self.start = start
        self.floor = floor

    def __call__(self, step: int, steps: int, steps_per_epoch: int | float) -> float:
        length = length_of_epoch(steps_per_epoch)
        epoch, epochs = step // length, steps / length
        warmup = amount_of(self.warmup, epochs)
        if epoch < warmup:
            rise = step / (warmup * length)
            return self.start + (cosine(warmup / epochs, self.floor) - self.start) * rise
        return cosine((epoch + 1) / epochs, self.floor)


class Constant(WarmupSchedule):
    """A constant learning rate, after an optional warm-up.

    Args:
        warmup: length of the warm-up: a float in [0, 1] is a share of all steps, an int a number of steps.
        ramp: formula of the warm-up; see :class:`WarmupSchedule`.

    Example:
        >>> [Constant(warmup=2)(step, steps=4, steps_per_epoch=2) for step in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """

    def after(self, step: int, warmup_steps: int, steps: int, steps_per_epoch: int | float) -> float:
        """Return 1."""
        return 1.0


class MultiStep(WarmupSchedule):
    """A learning rate that drops by a factor after certain epochs, after an optional warm-up.

    Args:
        milestones: when the rate drops: floats in [0, 1] are shares of the run, ints are numbers of epochs.
        gamma: factor of each drop, in (0, 1].
        warmup: length of the warm-up: a float in [0, 1] is a share of all steps, an int a number of steps.
        ramp: formula of the warm-up; see :class:`WarmupSchedule`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> schedule = MultiStep(milestones=(1, 2), gamma=0.2)
        >>> [round(schedule(step, steps=6, steps_per_epoch=2), 3) for step in range(6)]
        [1.0, 1.0, 0.2, 0.2, 0.04, 0.04]
    """

    def __init__(
        self,
        milestones: Sequence[int | float],
        gamma: float = 0.1,
        warmup: int | float = 0,
        ramp: Ramp = "s/W",
    ) -> None:
        super().__init__(warmup, ramp)
        check_numbers("milestones", milestones, least=0)
        _check_amounts("milestones", milestones, "epochs")
        check_number("gamma", gamma, above=0, most=1)
        self.milestones = tuple(milestones)
        self.gamma = gamma

    def after(self, step: int, warmup_steps: int, steps: int, steps_per_epoch: int | float) -> float:
        """Return the product of the factors of all drops so far."""
        passed = [
            step >= amount_of(milestone, steps)
            if isinstance(milestone, float)
            else step >= milestone * length_of_epoch(steps_per_epoch)
            for milestone in self.milestones
        ]
        return self.gamma ** sum(passed)


class TorchSchedule(Schedule):
    """One of torch's learning-rate schedulers.

    Args:
        scheduler: function of an optimiser that returns a scheduler, such as
            ``functools.partial(StepLR, step_size=30)``. Arguments that are learning rates, such as ``eta_min``, are not
            scaled by the batch size.
        interval: "epoch" calls the scheduler after each epoch, "step" after each step of the optimiser.

    Raises:
        ValueError: for ``ReduceLROnPlateau``, which needs a metric.

    Example:
        >>> from functools import partial
        >>> from torch.optim.lr_scheduler import StepLR
        >>> TorchSchedule(partial(StepLR, step_size=30)).interval
        'epoch'
    """

    def __init__(self, scheduler: LRSchedulerCallable, interval: Literal["epoch", "step"] = "epoch") -> None:
        if isinstance(scheduler, LRScheduler) or not callable(scheduler):
            raise TypeError(
                "scheduler: expected a function of an optimiser, such as functools.partial(StepLR, step_size=30), got "
                f"{scheduler!r}"
            )
        _check_metric(getattr(scheduler, "func", scheduler))
        self.scheduler = scheduler
        self.interval = interval

    def attach(
        self, optimizer: Optimizer, steps: int | float, steps_per_epoch: int | float
    ) -> OptimizerLRSchedulerConfig:
        """Return the optimiser with torch's scheduler."""
        scheduler = self.scheduler(optimizer)
        _check_metric(type(scheduler))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}

    def absolute_rates(self) -> dict[str, Any]:
        """Return the scheduler's arguments that are learning rates, except 0."""
        given = self.scheduler.keywords if isinstance(self.scheduler, functools.partial) else {}
        return {name: given[name] for name in ABSOLUTE if given.get(name)}


def amount_of(amount: int | float, total: int | float) -> int:
    """Convert ``amount`` to a number of steps or epochs: a float is a share of ``total``, an int is the number itself.

    Example:
        >>> amount_of(0.25, 10), amount_of(3, 10)
        (2, 3)
    """
    return round(amount * total) if isinstance(amount, float) else amount


def cosine(progress: float, floor: float = 0.0) -> float:
    """Return half a cosine, which falls from 1 to ``floor`` as ``progress`` goes from 0 to 1, and then stays there.

    Example:
        >>> cosine(0.0), cosine(0.5, floor=0.5), cosine(2.0)
        (1.0, 0.75, 0.0)
    """
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def length_of_epoch(steps_per_epoch: int | float) -> int:
    """Return the number of steps in an epoch.

    Raises:
        ValueError: if it is unknown.

    Example:
        >>> length_of_epoch(3)
        3
    """
    if not math.isfinite(steps_per_epoch):
        raise ValueError(
            "schedule: needs the length of an epoch, but the training loader has no length; set "
            "Trainer(limit_train_batches=...) to a number of batches, or use a schedule by steps: WarmupCosine()"
        )
    return int(steps_per_epoch)


def _check_amounts(name: str, amounts: Sequence[int | float], unit: str) -> None:
    for amount in amounts:
        if not 0 <= amount <= (1 if isinstance(amount, float) else math.inf):
            raise ValueError(
                f"{name}: expected a share of the run (float, 0 to 1), or a number of {unit} (int), got {amount!r}"
            )


def _check_metric(cls: Any) -> None:
    if isinstance(cls, type) and issubclass(cls, ReduceLROnPlateau):
        raise ValueError(
            "scheduler: ReduceLROnPlateau needs a metric, but a contrastive loss doesn't show when to reduce the rate; "
            "use WarmupCosine, or override configure_optimizers"
        )
