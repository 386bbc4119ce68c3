"""Keeps the configured options of the optimiser in a resumed run."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from ssl_modules.utils.lightning import reads_a_search


def options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the options of each parameter group, such as weight decay and the initial learning rate."""
    groups = []
    for group in optimizer.param_groups:
        kept = {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
        groups.append({"lr": group.get("initial_lr", group["lr"]), **kept})
    return groups


def keep_options(trainer: pl.Trainer, configured: list[dict[str, Any]]) -> None:
    """Set the optimiser's options to the configured ones; torch has replaced them by those of the checkpoint.

    A warning names each option that differs in the checkpoint, with both values.

    If the fit does not continue from a checkpoint, nothing changes.

    Args:
        trainer: a Trainer that has restored its optimiser and schedule.
        configured: the result of :func:`options` before the checkpoint was restored.
    """
    if trainer.ckpt_path is None or reads_a_search(trainer):
        return
    (optimizer,) = trainer.optimizers
    changed = {}
    # The lengths may differ, because a callback may have added groups after the configured ones.
    for i, (restored, wanted) in enumerate(zip(options(optimizer), configured, strict=False)):
        group: dict[str, Any] = optimizer.param_groups[i]
        for name in wanted:
            if restored.get(name) == wanted[name]:
                continue
            changed[name] = (wanted[name], restored.get(name))
            if name != "lr":
                group[name] = wanted[name]
                continue
            factor = group["lr"] / restored["lr"] if restored["lr"] else 0.0  # the schedule's factor
            group["lr"], group["initial_lr"] = wanted["lr"] * factor, wanted["lr"]
            for config in trainer.lr_scheduler_configs:
                config.scheduler.base_lrs[i] = wanted["lr"]
    for name, (new, old) in changed.items():
        rank_zero_warn(f"optimizer: continues with {name}={new}, as configured; the checkpoint has {name}={old}")
