"""Evaluation with few labels: class-balanced random subsets, and linear SVMs on k images of each class.

The SVM protocol is that of Goyal et al., Scaling and Benchmarking Self-Supervised Visual Representation Learning,
ICCV 2019, as later papers use it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_features, check_multilabel
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator


def balanced_rows(
    targets: Tensor, *, share: float | None = None, per_class: int | None = None, seed: int = 0
) -> Tensor:
    """Draw a random subset of samples that is balanced over the classes.

    Give either ``share`` (usually 0.01 or 0.1) or ``per_class``. For the same seed, a larger subset contains the
    smaller ones. For multi-label targets, that number of positive samples is drawn for each class. The result is the
    union, so a class may have more samples than that.

    Args:
        targets: ``[N]``, class indices, or ``[N, classes]`` of 0 and 1.
        share: share of the samples of each class, in (0, 1]; the number is rounded, and at least 1.
        per_class: number of samples of each class, at least 1.
        seed: seed of the random draw.

    Returns:
        Row indices of the samples, in ascending order.

    Raises:
        ValueError: if not exactly one of ``share`` and ``per_class`` is given, or a class has too few samples.

    Example:
        >>> balanced_rows(torch.tensor([0, 0, 0, 1, 1, 1]), per_class=2).tolist()
        [0, 2, 3, 5]
    """
    if (share is None) == (per_class is None):
        raise ValueError(f"share and per_class: expected one of the two, got {share} and {per_class}")
    if share is not None:
        check_number("share", share, above=0, most=1)
    if per_class is not None:
        check_number("per_class", per_class, least=1)
    targets_ = targets.cpu()
    classes = targets_.unique().tolist() if targets.ndim == 1 else range(targets.shape[1])
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    for index in classes:
        rows = (targets_ == index if targets.ndim == 1 else targets_[:, index] > 0).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        count = per_class or max(1, round((share or 0) * len(rows)))
        if count > len(rows):
            raise ValueError(f"per_class: expected at most {len(rows)}, the samples of class {index}, got {count}")
        chosen[rows[torch.randperm(len(rows), generator=derive_generator(seed, "few", index))[:count]]] = True
    return chosen.nonzero()[:, 0].to(targets.device)


def svm_scores(features: Tensor, targets: Tensor, queries: Tensor, *, cost: float = 0.5) -> Tensor:
    """Train one linear support vector machine per class and return its scores for the queries.

    The features are L2-normalised. The loss is the squared hinge loss, with weight 2 for positives: scikit-learn's
    ``LinearSVC`` with ``C=cost, class_weight={1: 2}, max_iter=2000``. Papers choose the cost by cross-validation, or
    use 0.5.

    Args:
        features: ``[N, D]``, the training features.
        targets: ``[N, classes]`` of 0 and 1; the scores of a class are 0 if no sample has it, or all samples have it.
        queries: ``[Q, D]``, the features to score.
        cost: cost of a violated margin, positive.

    Returns:
        ``[Q, classes]``, float64 on the CPU.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets are not 0 and 1 or don't fit, or the cost is not
            positive.

    Example:
        >>> svm_scores(torch.eye(2), torch.eye(2), torch.tensor([[2.0, 0.1]])) > 0
        tensor([[ True, False]])
    """
    from sklearn.svm import LinearSVC  # noqa: PLC0415  (the import takes a second)

    check_features("features", features)
    check_features("queries", queries)
    check_multilabel("features", features, targets)
    check_number("cost", cost, above=0)
    x, q = (F.normalize(f.double(), dim=1).cpu().numpy() for f in (features, queries))
    scores = torch.zeros(len(queries), targets.shape[1], dtype=torch.float64)
    for index, labels in enumerate(targets.T.cpu().numpy()):
        if labels.min() < labels.max():
            machine = LinearSVC(C=cost, class_weight={1: 2}, max_iter=2000, random_state=0).fit(x, labels)
            scores[:, index] = torch.from_numpy(machine.decision_function(q))
    return scores
