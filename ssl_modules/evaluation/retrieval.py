"""Retrieval by cosine: recall@k and mean average precision of images of the query's class."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_labelled, check_same_dim


@torch.no_grad()
def retrieval(
    queries: Tensor,
    query_targets: Tensor,
    gallery: Tensor | None = None,
    gallery_targets: Tensor | None = None,
    *,
    k: Sequence[int] = (1, 5, 10),
    centre: bool = False,
    chunk_size: int = 256,
) -> dict[str, float]:
    """Return recall@k and mean average precision of retrieving gallery images of the query's class.

    For each query, the gallery is ranked by cosine; if cosines are equal, the gallery's order decides. ``recall@k`` is
    the share of queries with an image of their class among the first k. The average precision of a query is the mean of
    the precision at the rank of each gallery image of its class; ``map`` is its mean over queries. ``curve_ap`` is what
    the code of RINCE calls AP. It averages precision and recall over the queries at each rank. Then it sums the
    precision times the increase in recall over the ranks, without the first rank. Queries without gallery images of
    their class are left out. For hierarchical targets, call it once per level.

    Args:
        queries: ``[Q, D]``, features of the queries.
        query_targets: ``[Q]``, class indices of the queries.
        gallery: ``[N, D]``, features of the gallery; None to search, for each query, all other queries.
        gallery_targets: ``[N]``, class indices of the gallery; required with ``gallery``.
        k: values of k for recall@k, each in [1, N].
        centre: whether to subtract the mean of the queries from the queries, and that of the gallery from the gallery,
            as is usual for videos.
        chunk_size: number of queries that are compared with the gallery at once; each needs about 25 N bytes of memory.

    Returns:
        ``{"recall@1": ..., "map": ..., "curve_ap": ...}``, in [0, 1]; NaN if all queries are left out.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets don't fit, the gallery has no targets, or a k is out
            of range.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.3], [0.0, 1.0]])
        >>> measures = retrieval(features, torch.tensor([0, 1, 0, 1]), k=(1, 2))
        >>> {name: round(value, 4) for name, value in measures.items()}
        {'recall@1': 0.0, 'recall@2': 0.75, 'map': 0.4583, 'curve_ap': 0.3646}
    """
    if (gallery is None) != (gallery_targets is None):
        raise ValueError(
            "gallery and gallery_targets: expected both, or neither to look among the queries themselves, got one"
        )
    among_themselves = gallery is None or gallery_targets is None
    check_labelled("queries", queries, query_targets)
    if gallery is None or gallery_targets is None:
        gallery, gallery_targets = queries, query_targets
    check_labelled("gallery", gallery, gallery_targets)
    check_same_dim("queries and gallery", queries, gallery)
    size = len(gallery) - among_themselves
    if not k or not 1 <= min(k) <= max(k) <= size:
        raise ValueError(f"k: expected numbers in [1, {size}], of which the gallery has enough, got {list(k)}")

    dtype = torch.promote_types(queries.dtype, torch.float32)
    queries, gallery = (x.to(dtype) for x in (queries, gallery))
    if centre:
        queries, gallery = (x - x.mean(dim=0) for x in (queries, gallery))
    queries, gallery = (F.normalize(x, dim=1) for x in (queries, gallery))
    place = torch.arange(1, size + 1, device=queries.device)
    hits: dict[int, list[Tensor]] = {n: [] for n in k}
    precisions = []
    found_by, recall_by = (torch.zeros(size, dtype=torch.float64) for _ in range(2))  # on the CPU: mps has no float64
    for start in range(0, len(queries), chunk_size):
        scores = queries[start : start + chunk_size] @ gallery.T  # [q, N]
        if among_themselves:
            scores.diagonal(offset=start).fill_(-torch.inf)  # the query itself comes last
        order = _falling(scores)[:, :size]
        related = gallery_targets[order] == query_targets[start : start + chunk_size, None]
        found = related.cumsum(dim=1)
        total = found[:, -1]
        precision = torch.where(related, found / place, 0).sum(dim=1) / total
        precisions.append(precision[total > 0])
        found_by += found.sum(dim=0).cpu()
        recall_by += (found[total > 0] / total[total > 0, None]).sum(dim=0).cpu()
        for n in k:
            hits[n].append(found[total > 0, n - 1] > 0)
    result = {f"recall@{n}": torch.cat(hits[n]).float().mean().item() for n in k}
    by_query = torch.cat(precisions)
    curve = (recall_by.diff() * found_by[1:] / place[1:].cpu()).sum() / len(by_query) ** 2
    return result | {"map": by_query.mean().item(), "curve_ap": curve.item()}


def _falling(scores: Tensor) -> Tensor:
    """The columns of each row in descending order of the score; equal scores keep their order."""
    if scores.dtype != torch.float32 or scores.device.type != "cpu":
        return scores.argsort(dim=1, descending=True, stable=True)
    # Packing score and column into one integer is four times as fast: NumPy sorts integers with vector instructions.
    bits = (-scores).add_(0.0).view(torch.int32)  # adding 0.0 turns -0.0 into 0.0
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers with the order of the floats
    pairs = (rising.long() << 32) | torch.arange(scores.shape[1])
    return torch.from_numpy(np.sort(pairs.numpy(), axis=1)) & 0xFFFFFFFF
