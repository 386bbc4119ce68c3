"""Out-of-distribution (OOD) detection: scores that are larger for in-distribution images, and metrics of the scores.

The Gaussian score is that of RINCE's evaluation (Hoffmann et al., AAAI 2022). The nearest-neighbour score is that of
Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022.
"""

from collections.abc import Sequence
from math import ceil, log, pi
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_count, check_features, check_labelled, check_same_dim
from ssl_modules.evaluation.knn import nearest_neighbours
from ssl_modules.utils.checks import check_number

OODScore = Literal["gaussian", "neighbours", "cosine"]


@torch.no_grad()
def gaussian_scores(bank: Tensor, bank_targets: Tensor, queries: Tensor, *, regularization: float = 1e-6) -> Tensor:
    """Return the largest log-likelihood of each query under one Gaussian per class, on L2-normalised features.

    The Gaussian of a class has the mean and the full, biased covariance of its samples, with ``regularization`` added
    to the diagonal, as in scikit-learn's ``GaussianMixture(1)``. It is computed in float64. If a class has far fewer
    samples than dimensions, its Gram matrix is used.

    Args:
        bank: ``[N, D]``, N >= 1, labelled in-distribution features.
        bank_targets: ``[N]``, class indices of the bank.
        queries: ``[Q, D]``, the features to score.
        regularization: number added to the diagonal of the covariances, positive.

    Returns:
        ``[Q]``, float64; float32 on mps.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets do not fit, or ``regularization`` is not positive.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> scores = gaussian_scores(bank, torch.tensor([0, 0, 1, 1]), torch.tensor([[2.0, 0.1], [-1.0, 0.0]]))
        >>> scores[0] > 0 > scores[1]
        tensor(True)
    """
    check_labelled("bank", bank, bank_targets)
    _check_queries(bank, queries)
    check_number("regularization", regularization, above=0)
    device = "cpu" if queries.device.type == "mps" else queries.device  # mps has no float64
    bank, queries_ = (F.normalize(x.to(device, torch.float64), dim=1) for x in (bank, queries))
    bank_targets = bank_targets.to(device)
    scores = queries_.new_full((len(queries),), -torch.inf)
    for target in bank_targets.unique():
        torch.maximum(scores, _log_likelihood(bank[bank_targets == target], queries_, regularization), out=scores)
    return scores.to(queries.device, torch.float32 if queries.device.type == "mps" else torch.float64)


def neighbour_scores(bank: Tensor, queries: Tensor, *, k: int = 50) -> Tensor:
    """Return minus the distance of each query to its k-th nearest bank sample, on L2-normalised features.

    Args:
        bank: ``[N, D]``, in-distribution features.
        queries: ``[Q, D]``, the features to score.
        k: number of the neighbour, in ``[1, N]``; the paper uses 50 for the 50,000 images of CIFAR-10.

    Returns:
        ``[Q]``, from -2 to 0, float32 or better.

    Raises:
        ValueError: if features are not finite ``[N, D]``, or k is larger than the bank.

    Example:
        >>> neighbour_scores(torch.eye(2), torch.tensor([[3.0, 4.0]]), k=1)
        tensor([-0.6325])
    """
    similarity, _ = nearest_neighbours(bank, queries, k=k)
    return -(2 - 2 * similarity[:, -1]).clamp(min=0).sqrt()


@torch.no_grad()
def cosine_scores(bank: Tensor, bank_targets: Tensor, queries: Tensor) -> Tensor:
    """Return the cosine of each query to the nearest class mean of L2-normalised features.

    Args:
        bank: ``[N, D]``, N >= 1, labelled in-distribution features.
        bank_targets: ``[N]``, class indices of the bank.
        queries: ``[Q, D]``, the features to score.

    Returns:
        ``[Q]``, from -1 to 1, float32 or better.

    Raises:
        ValueError: if features are not finite ``[N, D]``, or targets do not fit.

    Example:
        >>> cosine_scores(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[3.0, 4.0]]))
        tensor([0.8000])
    """
    check_labelled("bank", bank, bank_targets)
    _check_queries(bank, queries)
    dtype = torch.promote_types(bank.dtype, torch.float32)
    bank, queries = (F.normalize(x.to(dtype), dim=1) for x in (bank, queries))
    means = torch.stack([bank[bank_targets == target].mean(dim=0) for target in bank_targets.unique()])
    return (queries @ F.normalize(means, dim=1).T).amax(dim=1)


def detection(familiar: Tensor, unfamiliar: Tensor) -> dict[str, float]:
    """Return AUROC and FPR95 of scores that should separate in-distribution from OOD samples.

    Args:
        familiar: ``[N]``, N >= 1, the scores of in-distribution samples; larger scores mean in-distribution.
        unfamiliar: ``[M]``, M >= 1, the scores of OOD samples.

    Returns:
        ``auroc`` is the share of pairs of an in-distribution and an OOD sample in which the first has the larger score;
        a tie counts as half. ``fpr95`` is the share of OOD samples with at least the threshold score. The threshold is
        the largest score that at least 95 % of the in-distribution samples reach.

    Raises:
        ValueError: if scores hold NaN, are not ``[N]``, or are empty.

    Example:
        >>> measures = detection(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.5, 0.0]))
        >>> {name: round(value, 4) for name, value in measures.items()}
        {'auroc': 0.8333, 'fpr95': 0.5}
    """
    for name, scores in (("familiar", familiar), ("unfamiliar", unfamiliar)):
        if scores.ndim != 1 or len(scores) == 0 or scores.isnan().any():
            raise ValueError(
                f"{name}: expected at least one score [N] without NaN, got {list(scores.shape)} with "
                f"{int(scores.isnan().sum())} NaN"
            )
    ordered = familiar.sort().values
    unfamiliar = unfamiliar.to(ordered)
    below, up_to = (torch.searchsorted(ordered, unfamiliar, right=right) for right in (False, True))
    wrong = int((below + up_to).sum()) / 2
    threshold = ordered[len(ordered) - ceil(0.95 * len(ordered))]
    return {
        "auroc": 1 - wrong / (len(familiar) * len(unfamiliar)),
        "fpr95": int((unfamiliar >= threshold).sum()) / len(unfamiliar),
    }


def ood_detection(
    bank: Tensor,
    bank_targets: Tensor,
    familiar: Tensor,
    unfamiliar: Tensor,
    *,
    scores: Sequence[OODScore] = ("gaussian", "neighbours", "cosine"),
    k: int = 50,
) -> dict[str, float]:
    """Evaluate how well distance-based scores separate in-distribution from OOD samples.

    Args:
        bank: ``[N, D]``, labelled in-distribution features.
        bank_targets: ``[N]``, class indices of the bank.
        familiar: ``[Q, D]``, features of other in-distribution samples.
        unfamiliar: ``[M, D]``, features of OOD samples.
        scores: any of "gaussian" (:func:`gaussian_scores`), "neighbours" (:func:`neighbour_scores`) and "cosine"
            (:func:`cosine_scores`).
        k: number of the neighbour for the score "neighbours".

    Returns:
        For each score its metrics, such as ``gaussian_auroc`` and ``gaussian_fpr95``; see :func:`detection`.

    Raises:
        ValueError: if a score is unknown, or the features or targets do not fit the scores.

    Example:
        >>> bank = torch.eye(3)[:2]
        >>> ood_detection(bank, torch.tensor([0, 1]), bank, torch.eye(3)[2:], scores=("cosine",))
        {'cosine_auroc': 1.0, 'cosine_fpr95': 0.0}
    """
    if not scores or not set(scores) <= set(get_args(OODScore)):
        raise ValueError(f"scores: expected some of {list(get_args(OODScore))}, got {list(scores)}")
    queries = torch.cat([familiar, unfamiliar])
    results: dict[str, float] = {}
    for score in scores:
        if score == "gaussian":
            values = gaussian_scores(bank, bank_targets, queries)
        elif score == "neighbours":
            values = neighbour_scores(bank, queries, k=k)
        else:
            values = cosine_scores(bank, bank_targets, queries)
        found = detection(*values.split([len(familiar), len(unfamiliar)]))
        results |= {f"{score}_{metric}": value for metric, value in found.items()}
    return results


def _log_likelihood(samples: Tensor, queries: Tensor, regularization: float) -> Tensor:
    """The log-likelihood of queries ``[Q, D]`` under the Gaussian of samples ``[n, D]``."""
    count, dim = samples.shape
    mean = samples.mean(dim=0)
    deviations, differences = (samples - mean) / count**0.5, (queries - mean).T  # [n, D], [D, Q]
    # Choose the cheaper way: [D, D] needs D^2 operations per query, [n, n] needs (2 D + n) n.
    is_direct = dim**2 <= (2 * dim + count) * count
    gram = deviations.T @ deviations if is_direct else deviations @ deviations.T
    gram.diagonal().add_(regularization)
    factor = torch.linalg.cholesky(gram)
    log_determinant = 2 * factor.diagonal().log().sum() + (dim - len(gram)) * log(regularization)
    if is_direct:
        distances = torch.linalg.solve_triangular(factor, differences, upper=False).square().sum(dim=0)  # [Q]
    else:  # by Woodbury: the inverse of A'A + r is (1 - A' (AA' + r)^-1 A) / r
        inside = torch.linalg.solve_triangular(factor, deviations @ differences, upper=False).square().sum(dim=0)
        distances = (differences.square().sum(dim=0) - inside) / regularization
    return -0.5 * (distances + log_determinant + dim * log(2 * pi))


def _check_queries(bank: Tensor, queries: Tensor) -> None:
    check_features("queries", queries)
    check_count("bank", bank)
    check_same_dim("bank and queries", bank, queries)
