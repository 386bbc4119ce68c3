"""Weighted k-nearest-neighbour classification, the protocol of instance discrimination.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_features, check_labelled, class_count


@torch.no_grad()
def knn_scores(
    bank: Tensor,
    bank_targets: Tensor,
    queries: Tensor,
    num_classes: int | None = None,
    *,
    k: int = 20,
    temperature: float | None = 0.07,
    chunk_size: int = 256,
) -> Tensor:
    """Class scores of queries by the votes of their k most similar bank samples.

    The similarity s is the cosine, the vote of a neighbour for its class ``exp(s / temperature)``, and the votes of a
    query are scaled to sum to one. The search is exact. It runs in chunks of queries in float32 or better, so that
    memory is bounded by ``chunk_size * N`` similarities. Of bank samples that are exactly as similar at the k-th place
    the ones that ``torch.topk`` picks vote. Classes with equal votes are told apart by :func:`top_k_accuracy`, which
    prefers the lower index. A zero vector has cosine 0 to everything.

    Args:
        bank: ``[N, D]``, the labelled features.
        bank_targets: ``[N]``, their class indices.
        queries: ``[Q, D]``, the features to classify.
        num_classes: number of columns of the result; None for the largest bank target plus one.
        k: number of neighbours, in ``[1, N]``.
        temperature: of the votes, positive; None counts every neighbour alike (majority).
        chunk_size: number of queries compared with the bank at once.

    Returns:
        ``[Q, num_classes]``, non-negative, each row summing to one.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, targets that do not fit, or k larger than the bank.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> knn_scores(bank, torch.tensor([0, 0, 1]), torch.tensor([[2.0, 0.1]]), k=3, temperature=None)
        tensor([[0.6667, 0.3333]])
    """
    check_labelled("bank", bank, bank_targets)
    check_features("queries", queries)
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(f"bank and queries must have one dimension D, but got {bank.shape[1]} and {queries.shape[1]}")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be in [1, {len(bank)}], the bank's size, but got {k}; lower k or take more samples")
    if temperature is not None and temperature <= 0:
        raise ValueError(f"temperature must be positive, or None for equal votes, but got {temperature}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, but got {chunk_size}")
    num_classes = class_count(bank_targets, num_classes)

    bank = _normalize(bank).T  # [D, N]
    scores = []
    for chunk in _normalize(queries).to(bank.dtype).split(chunk_size):
        similarity, neighbours = (chunk @ bank).topk(k, dim=1)  # [q, k]
        # The softmax is exp(s / T), scaled so that a small T does not overflow.
        votes = torch.full_like(similarity, 1 / k) if temperature is None else (similarity / temperature).softmax(1)
        ballots = F.one_hot(bank_targets[neighbours].long(), num_classes)  # [q, k, classes]
        scores.append((votes[:, None] @ ballots.to(votes.dtype))[:, 0])  # [q, classes]
    return torch.cat(scores)


def _normalize(features: Tensor) -> Tensor:
    # In half precision the smallest norm allowed would underflow, and zero vectors become NaN.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
