"""Similarity contrastive estimation: InfoNCE whose target includes a teacher's similarities to the negatives.

Denize, Rabarisoa, Orcesi, Hérault, Canu: Similarity Contrastive Estimation for Self-Supervised Soft Contrastive
Learning, arXiv 2111.14585.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.contrast import Contrast, Paired
from ssl_modules.losses.base import Loss, count_pairs, first_derivative, mean, negatives_and_positives
from ssl_modules.similarities import Dot, Similarity
from ssl_modules.utils.checks import check_number

# Scores per chunk: few enough for a CPU's cache; on an accelerator, enough to make a kernel launch worthwhile.
_CACHED, _LAUNCHED = 2**19, 2**24
_FEWEST = 256  # least keys per chunk; fewer are slow


class SCELoss(Loss):
    """Cross-entropy of a student's similarities with a target that mixes the positive and a teacher's similarities.

    With s = scores / temperature, t = reference scores / teacher_temperature, λ = positive_weight, and both softmaxes
    over the positive p and the negatives of anchor a:

        mean over pairs (a, p) of  - sum_c w_ac log softmax(s_a)_c,    w_a = λ onehot(p) + (1 - λ) softmax(t_a)

    In the teacher's softmax the positive is masked, t_ap = -inf. The target has no gradient; its entropy is a lower
    bound of the loss. Each positive of an anchor is contrasted without the others, as in
    :class:`~ssl_modules.losses.InfoNCE`, which equals this loss for λ = 1. With λ = 0 the positive is pushed away, as
    it stays in the student's softmax.

    Args:
        temperature: divisor of the student's scores, > 0.
        teacher_temperature: divisor of the teacher's scores, > 0; should be below ``temperature``, so that the target
            is sharper than the student's distribution.
        positive_weight: λ, in [0, 1].
        positive_target: "masked" as in the paper, or "zero" as in the authors' code, t_ap = 0. Both are close for
            thousands of negatives.

    Raises:
        ValueError: if an argument is outside its range; when called without reference scores.

    Example:
        The teacher finds the first negative more similar than the second, and so should the student.

        >>> relation = torch.tensor([[1, 0, 0]], dtype=torch.int8)
        >>> teacher = torch.tensor([[1.0, 0.5, 0.1]])
        >>> SCELoss()(torch.tensor([[1.0, 0.9, 0.1]]), relation, teacher)
        tensor(0.8147)
        >>> SCELoss()(torch.tensor([[1.0, 0.1, 0.9]]), relation, teacher)
        tensor(4.8120)
    """

    def __init__(
        self,
        temperature: float = 0.1,
        teacher_temperature: float = 0.05,
        positive_weight: float = 0.5,
        positive_target: Literal["masked", "zero"] = "masked",
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        check_number("teacher_temperature", teacher_temperature, above=0)
        check_number("positive_weight", positive_weight, least=0, most=1)
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.positive_weight = positive_weight
        self.positive_target = positive_target

    def counts(self, relation: Tensor) -> Tensor:
        """The number of pairs of an anchor and a positive: int64 ``[1]``."""
        return count_pairs(relation)

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        if reference_scores is None:
            raise ValueError(
                f"reference_scores: expected {list(scores.shape)}, the scores of a teacher's anchors, got None; use an "
                "extraction that gives its contrasts a reference, such as Queue(reference=True)"
            )
        teacher, positive_share = self._teacher(reference_scores, relation)
        expected = torch.linalg.vecdot(teacher, scores) / self.temperature  # [A]
        negatives, positives, anchor = negatives_and_positives(scores, relation, 1 / self.temperature)
        # The weights, including that of p, sum to one, so the cross-entropy is log sum exp(s) - sum_c w_c s_c.
        info_nce = F.softplus(negatives[anchor] - positives)
        others = (1 - self.positive_weight) * (1 - positive_share[anchor])
        return mean((info_nce + others * (positives - expected[anchor])).sum(), counts[0])

    def fused(self, contrast: Contrast, similarity: Similarity) -> Tensor | None:
        """Each anchor's loss ``[A]`` for a queue of candidates without gradient, which are read in chunks.

        The target's weights sum to one, so with w the target and c the candidates

            loss = log sum exp(s) - <q, sum_c w_c c> / temperature

        This needs only two means of the candidates, weighted by the student's and by the teacher's softmax. The weights
        of a chunk are freed after it.
        """
        relation, reference = contrast.relation, contrast.reference
        if not isinstance(relation, Paired) or relation.ranks is not None:
            return None
        if relation.candidates < relation.ignored + 2:  # there may be no negatives
            return None
        if type(similarity) is not Dot or not isinstance(reference, Tensor) or contrast.candidates.requires_grad:
            return None
        values, gradients = self._read(contrast.anchors.detach(), contrast.candidates, reference, relation)
        return _WithGradient.apply(contrast.anchors, values, gradients)

    @torch.no_grad()
    def _read(self, anchors: Tensor, candidates: Tensor, reference: Tensor, relation: Paired) -> tuple[Tensor, Tensor]:
        """Each anchor's loss ``[A]`` and its gradient ``[A, D]``, computed from the two means."""
        own, first = relation.own, relation.ignored
        positives = candidates[own]  # [A, D]
        student, student_mean = _attention(anchors / self.temperature, candidates, first, own)
        of_anchor: slice | Tensor = slice(None)
        if torch.equal(reference, positives):  # then the views of an image share one reference: compute it once
            own, of_anchor = own.unique(return_inverse=True)
            reference = candidates[own]
        teacher, teacher_mean = (
            x[of_anchor] for x in _attention(reference / self.teacher_temperature, candidates, first, own)
        )
        weight = torch.full_like(teacher, self.positive_weight)
        if self.positive_target == "zero":
            weight += (1 - weight) * torch.sigmoid(-teacher)  # e^0 / (e^0 + the sum over the negatives)
        target = teacher_mean.lerp(positives, weight[:, None])
        score = torch.linalg.vecdot(anchors, positives) / self.temperature
        log_sum = torch.logaddexp(student, score)
        expected = student_mean.lerp(positives, (score - log_sum).exp()[:, None])
        values = log_sum - torch.linalg.vecdot(anchors, target) / self.temperature
        return values, (expected - target) / self.temperature

    @torch.no_grad()
    def _teacher(self, reference_scores: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax over the negatives ``[A, C]``, and the positive's share of a softmax that includes it ``[A]``."""
        lowest = torch.finfo(reference_scores.dtype).min
        logits = (reference_scores / self.teacher_temperature).masked_fill_(relation.bool(), lowest)
        top, share = logits.amax(dim=1), logits.softmax(dim=1)
        if self.positive_target == "masked":
            return share, (top == lowest).to(share.dtype)  # 1 if there are no negatives
        return share, torch.sigmoid(share.amax(dim=1).log() - top)  # e^0 / (e^0 + the sum over the negatives)


class _WithGradient(torch.autograd.Function):
    """Returns known values ``[A]`` of vectors ``[A, D]``, with known gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, gradients: Tensor) -> Tensor:
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[:, None] * ctx.saved_tensors[0], None, None


def _attention(queries: Tensor, keys: Tensor, first: int, own: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of the queries ``[R, D]`` over the keys from ``first`` on, except each query's own key, in chunks.

    Returns:
        ``log sum exp`` of the scores ``[R]``, and the keys' mean ``[R, D]``, weighted by the softmax of the scores.
    """
    top = queries.new_full((len(queries), 1), torch.finfo(queries.dtype).min)  # largest score so far
    total, weighted = torch.zeros_like(top), torch.zeros_like(queries)
    size = _CACHED if keys.device.type == "cpu" else _LAUNCHED
    chunk = max(_FEWEST, size // max(len(queries), 1))
    for start in range(first, len(keys), chunk):
        some = keys[start : start + chunk]
        scores = queries @ some.T
        inside = ((own >= start) & (own < start + len(some))).nonzero().squeeze(1)
        scores[inside, own[inside] - start] = -torch.inf
        higher = torch.maximum(top, scores.amax(dim=1, keepdim=True))
        scores.sub_(higher).exp_()
        rescale = (top - higher).exp_()
        total.mul_(rescale).add_(scores.sum(dim=1, keepdim=True))
        weighted.mul_(rescale).addmm_(scores, some)
        top = higher
    return (top + total.log()).squeeze(1), weighted / total
