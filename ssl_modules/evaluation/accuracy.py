"""Metrics of class scores: top-k accuracy and mean average precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_multilabel
from ssl_modules.utils.checks import check_number


def top_k_accuracy(scores: Tensor, targets: Tensor, k: int = 1) -> float:
    """Return the share of samples whose class has one of the k largest scores.

    If scores are equal, the class of lower index comes first, on every device.

    Args:
        scores: ``[N, classes]``, larger is better.
        targets: ``[N]``, class indices in ``[0, classes)``.
        k: number of classes that count as predicted, ``>= 1``; with ``k >= classes`` the accuracy is 1.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if there are no samples, shapes do not fit, or a target is not in ``[0, classes)``.

    Example:
        >>> scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
        >>> targets = torch.tensor([1, 2])
        >>> top_k_accuracy(scores, targets), top_k_accuracy(scores, targets, k=2)
        (0.5, 1.0)
    """
    check_number("k", k, least=1)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or len(targets) == 0:
        raise ValueError(
            f"scores and targets: expected [N, classes] and [N], N >= 1, "
            f"got {list(scores.shape)} and {list(targets.shape)}"
        )
    if targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise ValueError(
            f"targets: expected columns of scores, from 0 to {scores.shape[1] - 1}, "
            f"got {targets.min().item()} to {targets.max().item()}"
        )
    own = scores.gather(1, targets[:, None])  # [N, 1]
    before = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(dim=1)
    return (rank < k).double().mean().item()


def accuracies(scores: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the top-1 accuracy, and for more than 5 classes also the top-5 accuracy, by name.

    Args:
        scores: ``[N, classes]``, larger is better.
        targets: ``[N]``, class indices; a class without a column in ``scores`` is never predicted.

    Example:
        >>> accuracies(torch.tensor([[0.2, 0.8], [0.7, 0.3]]), torch.tensor([1, 2]))
        {'top1': 0.5}
    """
    missing = int(targets.max()) + 1 - scores.shape[1]
    scores = F.pad(scores, (0, max(missing, 0)), value=-torch.inf)
    guesses = (1, 5) if scores.shape[1] > 5 else (1,)
    return {f"top{k}": top_k_accuracy(scores, targets, k) for k in guesses}


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Return the mean average precision (mAP) over classes.

    For each class, the samples are ranked by the score of that class. The average precision is the mean, over the
    positive samples, of the share of positives among the samples with at least the same score. It equals
    scikit-learn's ``average_precision_score``. Classes without positive samples are left out.

    Args:
        scores: ``[N, classes]``, larger is better.
        targets: ``[N, classes]`` of 0 and 1.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if shapes do not fit, targets are not 0 and 1, or no sample has any class.

    Example:
        >>> round(mean_average_precision(torch.tensor([[0.9], [0.5], [0.1]]), torch.tensor([[1], [0], [1]])), 4)
        0.8333
    """
    check_multilabel("scores", scores, targets)
    if scores.shape != targets.shape or not targets.any():
        raise ValueError(
            f"scores and targets: expected one shape, and at least one 1 in targets, got {list(scores.shape)} and "
            f"{list(targets.shape)} with {int(targets.sum())}"
        )
    precisions = []
    for column, own in zip(scores.T, targets.T.bool(), strict=True):
        if own.any():
            ordered, positives = column.sort().values, column[own].sort().values
            at_least = len(ordered) - torch.searchsorted(ordered, positives)  # samples with at least the same score
            found = len(positives) - torch.searchsorted(positives, positives)
            precisions.append((found / at_least.double()).mean())
    return torch.stack(precisions).mean().item()
