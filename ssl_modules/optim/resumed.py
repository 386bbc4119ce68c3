"""Options of an optimiser in a resumed run."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer


def options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group, such as weight decay and the learning rate before its schedule."""
    groups = []
    for group in optimizer.param_groups:
        kept = {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
        groups.append({"lr": group.get("initial_lr", group["lr"]), **kept})
    return groups


def keep_options(trainer: pl.Trainer, configured: list[dict[str, Any]]) -> None:
    """Continue with the configured options; torch restores those of the checkpoint, and ignores the module's.

    A warning names each option that the checkpoint has otherwise.

    Args:
        trainer: a Trainer that has restored its optimiser and schedule.
        configured: :func:`options` before the checkpoint was read.
    """
    (optimizer,) = trainer.optimizers
    changed = {}
    for i, (restored, wanted) in enumerate(zip(options(optimizer), configured, strict=True)):
        group: dict[str, Any] = optimizer.param_groups[i]
        for name in wanted:
            if restored.get(name) == wanted[name]:
                continue
            changed[name] = (wanted[name], restored.get(name))
            if name != "lr":
                group[name] = wanted[name]
                continue
            factor = group["lr"] / restored["lr"] if restored["lr"] else 0.0  # of the schedule
            group["lr"], group["initial_lr"] = wanted["lr"] * factor, wanted["lr"]
            for config in trainer.lr_scheduler_configs:
                config.scheduler.base_lrs[i] = wanted["lr"]
    for name, (new, old) in changed.items():
        rank_zero_warn(f"optimizer: continues with {name}={new}, as configured; the checkpoint has {name}={old}")
