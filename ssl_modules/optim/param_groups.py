"""Parameter groups."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def param_groups(modules: Iterable[nn.Module], decay_norms: bool = False) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: one with weight decay, and one of biases and norms without.

    Biases and norms are recognised by their shape (at most one axis), as names vary. LARS adapts no group without
    weight decay, so biases and norms are also excluded from its adaptation.

    Args:
        modules: modules with the parameters; shared parameters are included once.
        decay_norms: whether weight decay applies to biases and norms too; if True, all parameters form one group.

    Returns:
        Groups for any torch optimiser; empty groups are left out.

    Example:
        >>> [len(group["params"]) for group in param_groups([nn.Linear(2, 3)])]
        [1, 1]
    """
    parameters = dict.fromkeys(p for m in modules for p in m.parameters() if p.requires_grad)
    if decay_norms:
        return [{"params": [*parameters]}]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
