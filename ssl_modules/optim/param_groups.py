"""Parameter groups."""

from collections.abc import Iterable
from typing import Any

from torch import nn


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
