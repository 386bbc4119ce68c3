"""Optimisation for pretraining and fine-tuning: parameter groups and learning-rate schedules."""

from ssl_modules.optim.build import build_optimizer, check_optimizer
from ssl_modules.optim.param_groups import param_groups
from ssl_modules.optim.schedules import (
    Constant,
    EpochCosine,
    FactorSchedule,
    MultiStep,
    Schedule,
    TorchSchedule,
    WarmupCosine,
    WarmupSchedule,
)

__all__ = [
    "Constant",
    "EpochCosine",
    "FactorSchedule",
    "MultiStep",
    "Schedule",
    "TorchSchedule",
    "WarmupCosine",
    "WarmupSchedule",
    "build_optimizer",
    "check_optimizer",
    "param_groups",
]
