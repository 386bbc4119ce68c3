"""Similarity contrastive estimation: InfoNCE whose target also says how similar a teacher finds the negatives.

Denize, Rabarisoa, Orcesi, Hérault, Canu: Similarity Contrastive Estimation for Self-Supervised Soft Contrastive
Learning, arXiv 2111.14585.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.losses.base import Loss, count_pairs, mean, negatives_and_positives


class SCELoss(Loss):
    """Cross-entropy of a student's similarities with a target that is part positive, part a teacher's similarities.

    With s = scores / temperature, t = reference scores / teacher_temperature, λ = positive_weight, and both softmaxes
    over the positive p and the negatives of anchor a:

        mean over pairs (a, p) of  - sum_c w_ac log softmax(s_a)_c,    w_a = λ onehot(p) + (1 - λ) softmax(t_a)

    In the teacher's softmax the positive is masked, t_ap = -inf. The target has no gradient, and its entropy is the
    least that the loss can be. Several positives of an anchor don't see each other, as in
    :class:`~ssl_modules.losses.InfoNCE`, which this is for λ = 1. With λ = 0 the positive is pushed away: it stays in
    the student's softmax.

    Args:
        temperature: divisor of the student's scores, > 0.
        teacher_temperature: divisor of the teacher's scores, > 0; below ``temperature``, or else the target is flatter
            than what it is the target of.
        positive_weight: λ, in [0, 1].
        positive_target: "masked" as in the paper, or "zero" as in the authors' code, t_ap = 0. The two come close for
            thousands of negatives.

    Raises:
        ValueError: if an argument is outside its range; when called without reference scores.

    Example:
        The teacher finds the first negative the more similar one, and so should the student.

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
        for name, value in (("temperature", temperature), ("teacher_temperature", teacher_temperature)):
            if value <= 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        if not 0 <= positive_weight <= 1:
            raise ValueError(f"positive_weight: expected a number in [0, 1], got {positive_weight}")
        if positive_target not in ("masked", "zero"):
            raise ValueError(f'positive_target: expected "masked" or "zero", got {positive_target!r}')
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.positive_weight = positive_weight
        self.positive_target = positive_target

    def counts(self, relation: Tensor) -> Tensor:
        """Pairs of an anchor and a positive: int64 ``[1]``."""
        return count_pairs(relation)

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        if reference_scores is None:
            raise ValueError(
                f"reference_scores: expected {list(scores.shape)}, the scores of a teacher's anchors, got None; use an "
                "extraction that gives its contrasts a reference"
            )
        teacher, positive_share = self._teacher(reference_scores, relation)
        expected = torch.linalg.vecdot(teacher, scores) / self.temperature  # [A]
        negatives, positives, anchor = negatives_and_positives(scores, relation, 1 / self.temperature)
        # The weights sum to one: with p among the columns, the cross-entropy is log sum exp(s) - sum_c w_c s_c.
        info_nce = F.softplus(negatives[anchor] - positives)
        others = (1 - self.positive_weight) * (1 - positive_share[anchor])
        return mean((info_nce + others * (positives - expected[anchor])).sum(), counts[0])

    @torch.no_grad()
    def _teacher(self, reference_scores: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax over the negatives ``[A, C]``, and what the positive would have of a softmax with it ``[A]``."""
        lowest = torch.finfo(reference_scores.dtype).min
        logits = (reference_scores / self.teacher_temperature).masked_fill_(relation.bool(), lowest)
        top, share = logits.amax(dim=1), logits.softmax(dim=1)
        if self.positive_target == "masked":
            return share, (top == lowest).to(share.dtype)  # all, if there is nobody else
        return share, torch.sigmoid(share.amax(dim=1).log() - top)  # e^0 beside the sum over the negatives
