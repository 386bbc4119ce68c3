"""Few labels: balanced draws of labelled images, and linear SVMs on k of each class.

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
    """A random choice of samples that is even over the classes.

    Give one of ``share`` (0.01 and 0.1 are the usual ones) and ``per_class``. A larger choice of the same seed holds
    the smaller ones. For targets of several labels, each class in turn adds as many samples that have it, so that there
    may be more of a class, and a sample that several classes choose comes once.

    Args:
        targets: ``[N]``, class indices, or ``[N, classes]`` of 0 and 1.
        share: of each class, in (0, 1], rounded, but at least one sample.
        per_class: number of samples of each class, at least 1.
        seed: of the choice.

    Returns:
        Rows of the samples, in rising order.

    Raises:
        ValueError: if not exactly one of the two is given, or a class has too few samples.

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
    member = F.one_hot(targets.long()).bool() if targets.ndim == 1 else targets.bool()  # [N, classes]
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    for index, column in enumerate(member.T.cpu()):
        rows = column.nonzero()[:, 0]
        if len(rows) == 0:
            continue
        count = per_class or max(1, round((share or 0) * len(rows)))
        if count > len(rows):
            raise ValueError(f"per_class: expected at most {len(rows)}, the samples of class {index}, got {count}")
        chosen[rows[torch.randperm(len(rows), generator=derive_generator(seed, "few", index))[:count]]] = True
    return chosen.nonzero()[:, 0].to(targets.device)


def svm_scores(features: Tensor, targets: Tensor, queries: Tensor, *, cost: float = 0.5) -> Tensor:
    """Scores of queries by one linear support vector machine for each class.

    L2-normalised features, squared hinge loss, a positive counting twice: scikit-learn's ``LinearSVC`` with
    ``C=cost, class_weight={1: 2}, max_iter=2000``. Protocols choose the cost by cross-validation, or fix it at 0.5.

    Args:
        features: ``[N, D]``.
        targets: ``[N, classes]`` of 0 and 1; a class that none has, or all have, scores 0.
        queries: ``[Q, D]``.
        cost: of a violated margin, positive.

    Returns:
        ``[Q, classes]``, float64 on the CPU.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, targets that are not 0 and 1 or don't fit, or a cost
            not positive.

    Example:
        >>> svm_scores(torch.eye(2), torch.eye(2), torch.tensor([[2.0, 0.1]])) > 0
        tensor([[ True, False]])
    """
    from sklearn.svm import LinearSVC  # noqa: PLC0415  (a second to import)

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
