"""InfoNCE, the loss of SimCLR, MoCo, AMDIM, YADIM and CPC, and of each rank in RINCE.

[1] van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748, eq. 4.
[2] Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning, arXiv 2002.05709, eq. 1.
[3] Bachman, Hjelm, Buchwalter: Learning Representations by Maximizing Mutual Information Across Views,
    arXiv 1906.00910 (the soft clipping and the penalty on large scores).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.losses.base import (
    Loss,
    is_positive,
    logsumexp_by_anchor,
    mean,
    negatives_and_positives,
)
from ssl_modules.utils.checks import check_number


class InfoNCE(Loss):
    """Cross-entropy of picking an anchor's positive among its negatives, with any number of positives per anchor.

    With s = scores / temperature, softly clipped, and N(a) the negatives of anchor a:

        out: mean over pairs (a, p) of -log( e^s_ap / (e^s_ap + sum_{n in N(a)} e^s_an) )
        in:  mean over anchors a of -log( sum_p e^s_ap / (sum_p e^s_ap + sum_{n in N(a)} e^s_an) )

    In "out" the denominator of a pair has no other positives of its anchor. The modes are equal if every anchor has one
    positive. Both skip anchors without a positive. SupCon's losses "out" and "in" differ from these
    modes; :class:`~ssl_modules.losses.SupConLoss` computes them.

    Args:
        temperature: divisor of the scores, > 0.
        clip: c in the soft clipping s = c tanh(s / c), which keeps scores in [-c, c] (AMDIM [3]); None = no clipping.
        l2: weight of the mean squared score before clipping, over all pairs that are not ignored (AMDIM [3]).
        mode: "out" or "in".

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        With one positive and one negative per anchor, and equal scores, the loss is log 2.

        >>> relation = torch.tensor([[1, 0], [0, 1]], dtype=torch.int8)
        >>> InfoNCE(temperature=0.1)(torch.zeros(2, 2), relation)
        tensor(0.6931)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        clip: float | None = None,
        l2: float = 0.0,
        mode: Literal["out", "in"] = "out",
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        if clip is not None:
            check_number("clip", clip, above=0)
        check_number("l2", l2, least=0)
        self.temperature = temperature
        self.clip = clip
        self.l2 = l2
        self.mode = mode

    def counts(self, relation: Tensor) -> Tensor:
        """Numbers of positive pairs, of anchors with a positive, and of pairs penalised by ``l2``: int64 ``[3]``."""
        positives = is_positive(relation).sum(dim=1, dtype=torch.int32)
        entries = (relation >= 0).sum() if self.l2 else torch.zeros_like(positives.sum())
        return torch.stack((positives.sum(), (positives > 0).sum(), entries))

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        pairs, anchors, entries = counts
        scale, penalty = 1 / self.temperature, scores.new_zeros(())
        if self.l2:
            ignored = relation < 0
            kept = (scores.masked_fill(ignored, 0) if ignored.any() else scores).flatten()
            penalty = self.l2 * scale**2 * mean(kept @ kept, entries)
        if self.clip is not None:
            scores, scale = torch.tanh(scores * (scale / self.clip)), self.clip
        negatives, positives, anchor = negatives_and_positives(scores, relation, scale)
        # -log(e^s / (e^s + e^n)) = softplus(n - s), which neither overflows nor cancels
        if self.mode == "out":
            return mean(F.softplus(negatives[anchor] - positives).sum(), pairs) + penalty
        with_positive, group = anchor.unique(return_inverse=True)
        summed = logsumexp_by_anchor(positives, group, len(with_positive))
        return mean(F.softplus(negatives[with_positive] - summed).sum(), anchors) + penalty
