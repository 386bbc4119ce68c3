"""Top-k accuracy of class scores."""

import torch
from torch import Tensor


def top_k_accuracy(scores: Tensor, targets: Tensor, k: int = 1) -> float:
    """The share of samples whose class is among the k best scores.

    Of classes with equal scores the one of lower index comes first, on every device.

    Args:
        scores: ``[N, classes]``, larger is better.
        targets: ``[N]``, class indices in ``[0, classes)``.
        k: number of guesses, ``>= 1``; with ``k >= classes`` the accuracy is 1.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if there are no samples, shapes do not fit, or a target has no column.

    Example:
        >>> scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
        >>> targets = torch.tensor([1, 2])
        >>> top_k_accuracy(scores, targets), top_k_accuracy(scores, targets, k=2)
        (0.5, 1.0)
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, but got {k}")
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or len(targets) == 0:
        raise ValueError(
            f"scores must be [N, classes] and targets [N], N >= 1, "
            f"but got {list(scores.shape)} and {list(targets.shape)}"
        )
    if targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise ValueError(
            f"targets must be in [0, {scores.shape[1]}), the columns of scores, "
            f"but got {targets.min().item()} to {targets.max().item()}"
        )
    own = scores.gather(1, targets[:, None])  # [N, 1]
    before = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(dim=1)
    return (rank < k).double().mean().item()
