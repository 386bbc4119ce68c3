"""Optimisation for pretraining and fine-tuning: parameter groups and learning-rate schedules."""

from ssl_modules.optim.build import build_optimizer, check_optimizer
from ssl_modules.optim.param_groups import param_groups
from ssl_modules.optim.schedules import Schedule, WarmupCosine, scheduled

__all__ = ["Schedule", "WarmupCosine", "build_optimizer", "check_optimizer", "param_groups", "scheduled"]
