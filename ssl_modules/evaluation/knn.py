"""Weighted k-nearest-neighbour classification, the evaluation protocol of instance discrimination.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_features, check_labelled, check_same_dim, class_count
from ssl_modules.utils.checks import check_number

_PART = 16_384  # bank samples compared at once, so that their similarities to a chunk fit in a CPU's cache
_BLOCK = 64  # bank samples per block; the search compares the blocks by their maxima first


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
    """Return class scores of queries, from the votes of their k most similar bank samples.

    The similarity s is the cosine. A neighbour votes for its class with weight ``exp(s / temperature)``, and the votes
    of a query are scaled to sum to one. The search is exact, in float32 or better. It compares chunks of queries with
    parts of the bank, so that memory beyond features and result is at most ``16,384 * (chunk_size + D)`` numbers for a
    bank of any size, about 60 MiB for 512 dimensions. If several bank samples tie at the k-th place, any of them may
    vote, but the same ones in each run. If classes tie, :func:`top_k_accuracy` prefers the lower index. A zero vector
    has cosine 0 to all vectors.

    Args:
        bank: ``[N, D]``, the labelled features.
        bank_targets: ``[N]``, class indices of the bank.
        queries: ``[Q, D]``, the features to classify.
        num_classes: number of columns of the result; None for the largest bank target plus one.
        k: number of neighbours, in ``[1, N]``.
        temperature: temperature of the votes, positive; None gives all neighbours the same weight.
        chunk_size: number of queries compared with a part of the bank at once.

    Returns:
        ``[Q, num_classes]``, non-negative; each row sums to one.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets do not fit, or k is larger than the bank.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> knn_scores(bank, torch.tensor([0, 0, 1]), torch.tensor([[2.0, 0.1]]), k=3, temperature=None)
        tensor([[0.6667, 0.3333]])
    """
    check_labelled("bank", bank, bank_targets)
    if temperature is not None:
        check_number("temperature", temperature, above=0)
    similarity, neighbours = nearest_neighbours(bank, queries, k=k, chunk_size=chunk_size)
    num_classes = class_count(bank_targets, num_classes)
    labels = bank_targets.long()[neighbours]  # [Q, k]

    # The softmax equals the scaled exp(s / T), but does not overflow for a small T.
    votes = torch.full_like(similarity, 1 / k) if temperature is None else (similarity / temperature).softmax(1)
    scores = votes.new_zeros(len(queries), num_classes)
    for vote, label in zip(votes.split(1, dim=1), labels.split(1, dim=1), strict=True):
        scores.scatter_add_(1, label, vote)  # one neighbour at a time, for the same order of addition on all devices
    return scores


@torch.no_grad()
def nearest_neighbours(bank: Tensor, queries: Tensor, *, k: int = 20, chunk_size: int = 256) -> tuple[Tensor, Tensor]:
    """Find the k bank samples with the largest cosine to each query, in descending order.

    The search is exact, in float32 or better. Its memory is bounded as for :func:`knn_scores`.

    Args:
        bank: ``[N, D]``, the features to search.
        queries: ``[Q, D]``, the features to find neighbours of.
        k: number of neighbours, in ``[1, N]``.
        chunk_size: number of queries compared with a part of the bank at once.

    Returns:
        Cosines, and row indices of the bank, both ``[Q, k]``.

    Raises:
        ValueError: if features are not finite ``[N, D]``, their dimensions D differ, or k is larger than the bank.

    Example:
        >>> nearest_neighbours(torch.eye(3), torch.tensor([[1.0, 0.0, 2.0]]), k=2)[1]
        tensor([[2, 0]])
    """
    check_features("bank", bank)
    check_features("queries", queries)
    check_same_dim("bank and queries", bank, queries)
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"k: expected a number from 1 to {len(bank)}, the bank's size, got {k}; lower k or take more samples"
        )
    check_number("chunk_size", chunk_size, least=1)

    dtype = torch.promote_types(bank.dtype, torch.float32)
    similarity = torch.full((len(queries), k), -torch.inf, dtype=dtype, device=queries.device)  # the best ones so far
    rows = torch.zeros(len(queries), k, dtype=torch.long, device=queries.device)
    chunks = [tensor.split(chunk_size) for tensor in (queries, similarity, rows)]
    for start in range(0, len(bank), _PART):
        candidates = _normalize(bank[start : start + _PART]).T  # [D, n]
        for chunk, best, best_rows in zip(*chunks, strict=True):  # [q, D], [q, k], [q, k]
            values, columns = _largest(_normalize(chunk).to(dtype) @ candidates, k)  # [q, up to k]
            values, order = torch.cat([best, values], dim=1).topk(k, dim=1)
            best.copy_(values)
            best_rows.copy_(torch.cat([best_rows, columns + start], dim=1).gather(1, order))
    return similarity, rows


def _largest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row, or all if there are fewer, and their columns.

    Only the k blocks with the largest maxima are searched: at least k values are as large as any value outside them.
    """
    blocks = similarity.shape[1] // _BLOCK
    if blocks <= 4 * k:  # too few blocks would be skipped
        return similarity.topk(min(k, similarity.shape[1]), dim=1)
    whole = blocks * _BLOCK
    maxima = similarity[:, :whole].unflatten(1, (blocks, _BLOCK)).amax(dim=2)  # [q, blocks]
    first = maxima.topk(k, dim=1).indices[:, :, None] * _BLOCK  # [q, k, 1]
    columns = (first + torch.arange(_BLOCK, device=first.device)).flatten(1)  # [q, k * block]
    rest = torch.arange(whole, similarity.shape[1], device=first.device)
    columns = torch.cat([columns, rest.expand(len(columns), -1)], dim=1)
    values, best = similarity.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, best)


def _normalize(features: Tensor) -> Tensor:
    # In half precision, the minimum norm of F.normalize would underflow, and zero vectors would become NaN.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
