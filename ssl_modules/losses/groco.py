"""Group ordering constraints: an anchor's positives should come last when its scores are sorted.

Shvetsova, Petersen, Kukleva, Schiele, Kuehne: Learning by Sorting: Self-supervised Learning with Group Ordering
Constraints, ICCV 2023, arXiv 2301.02009.
"""

from math import isqrt

import torch
from torch import Tensor

from ssl_modules.contrast import Contrast, SameView
from ssl_modules.losses.base import Loss, has_positive, mean, positive_pairs
from ssl_modules.losses.sorting import Distribution, Network, odd_even_cauchy, through_diffsort
from ssl_modules.similarities import Dot, Similarity
from ssl_modules.utils.checks import check_number

_WHOLE = 2**24  # up to this many scores of the same view, no blocks are needed


class GroCoLoss(Loss):
    """Cross-entropy of sorting an anchor's positives above its hardest negatives, by a soft sort.

    A differentiable sorting network sorts an anchor's K largest negative and P positive scores. Its input has
    negatives first, and each group in ascending order. With m_r the share of score r that arrives in its own group:

        mean over anchors of  -1/(K + P) sum_r log m_r

    The order within a group doesn't matter. Anchors may have different numbers of positives; anchors without a positive
    are skipped. Ranks of positives are treated alike.

    The odd-even network with the Cauchy distribution, the authors' choice, has a fast implementation; all others use
    the package diffsort. If the distribution has shorter tails, a large steepness rounds the shares of badly sorted
    scores to zero, so they get no gradient: in float32, from about 50 for the logistic and 5 for the Gaussian one. See
    :mod:`ssl_modules.losses.sorting`.

    Args:
        negatives: K, number of hardest negatives per anchor.
        steepness: steepness of the comparators, > 0; the larger, the closer to hard sorting.
        network: "odd_even" or "bitonic".
        distribution: its distribution function makes a comparator soft: "cauchy", "logistic", "logistic_phi",
            "gaussian", "reciprocal" or "optimal".

    Raises:
        ValueError: if an argument is outside its range; when called for an anchor with a positive and fewer than
            ``negatives`` negatives.

    Example:
        >>> loss, relation = GroCoLoss(negatives=2), torch.tensor([[0, 0, 0, 1]], dtype=torch.int8)
        >>> loss(torch.tensor([[0.1, -0.7, 0.0, 0.9]]), relation)
        tensor(0.2070)
        >>> loss(torch.tensor([[0.1, -0.7, 0.9, 0.0]]), relation)
        tensor(0.6872)
    """

    def __init__(
        self,
        negatives: int = 10,
        steepness: float = 1.0,
        network: Network = "odd_even",
        distribution: Distribution = "cauchy",
    ) -> None:
        super().__init__()
        check_number("negatives", negatives, least=1)
        check_number("steepness", steepness, above=0)
        self.negatives = negatives
        self.min_images = negatives + 1
        self.steepness = steepness
        self.network = network
        self.distribution = distribution

    def counts(self, relation: Tensor) -> Tensor:
        """The number of anchors with a positive: int64 ``[1]``."""
        with_positive = has_positive(relation)
        negatives = relation.shape[1] - relation.bool().sum(dim=1, dtype=torch.int32)  # [A]
        lacking = with_positive & (negatives < self.negatives)
        if lacking.any():
            raise ValueError(
                f"negatives: expected at most the {int(negatives[lacking].min())} that an anchor of this batch has, "
                f"got {self.negatives}; use larger batches, with drop_last=True for the last one, or a smaller "
                "GroCoLoss(negatives=...)"
            )
        return with_positive.sum()[None]

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        rows = self._rows(scores.detach(), relation)
        losses = [self._row_losses(scores[anchors[:, None], columns]) for anchors, columns in rows]
        return mean(torch.cat(losses).sum() if losses else scores[:0].sum(), counts[0])

    def fused(self, contrast: Contrast, similarity: Similarity) -> Tensor | None:
        """Each anchor's loss ``[A]``; doesn't compute ignored scores, which are most: other views of other images."""
        c, relation = contrast, contrast.relation
        if not isinstance(relation, SameView) or type(similarity) is not Dot:
            return None
        if not 0 < len(c.anchors) * relation.images <= _WHOLE:
            return None
        scores, compact = relation.inner_products(c.anchors, c.candidates)
        self.counts(compact)
        [(_, columns)] = self._rows(scores.detach(), compact)  # all anchors have equally many positives
        return self._row_losses(scores.gather(1, columns))

    def _rows(self, scores: Tensor, relation: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each number of positives P: anchors ``[R]``, and their columns ``[R, K + P]`` in input order."""
        anchor, column = positive_pairs(relation)
        if not len(anchor):
            return []
        positives = anchor.bincount(minlength=len(scores))  # [A], P of each anchor
        hardest = _largest(scores.masked_fill(relation.bool(), -torch.inf), self.negatives).flip(1)  # [A, K]
        rows = []
        for number in positives.unique().tolist():
            if number:
                anchors = (positives == number).nonzero()[:, 0]
                own = column[positives[anchor] == number].view(-1, number)  # [R, P]
                order = scores[anchors[:, None], own].argsort(dim=1)
                rows.append((anchors, torch.cat([hardest[anchors], own.gather(1, order)], dim=1)))
        return rows

    def _row_losses(self, rows: Tensor) -> Tensor:
        if (self.network, self.distribution) == ("odd_even", "cauchy"):
            return odd_even_cauchy(rows, self.negatives, self.steepness)
        return through_diffsort(rows, self.negatives, self.steepness, self.network, self.distribution)


def _largest(scores: Tensor, k: int) -> Tensor:
    """The columns of the k largest scores of each row ``[A, C]``, in descending order: ``[A, k]``."""
    rows, columns = scores.shape
    size = isqrt(columns // k)
    if scores.device.type != "cpu" or size < 2:
        return scores.topk(k).indices
    # They are in the k groups of columns (of C / size) with the largest maxima, or in the remaining columns.
    groups = columns // size
    best = scores[:, : size * groups].unflatten(1, (size, groups)).amax(1).topk(k, sorted=False).indices
    inside = best[:, None] + torch.arange(0, size * groups, groups)[:, None]  # [A, size, k]
    left = torch.arange(size * groups, columns).expand(rows, -1)
    candidates = torch.cat([inside.flatten(1), left], dim=1)
    return candidates.gather(1, scores.gather(1, candidates).topk(k).indices)
