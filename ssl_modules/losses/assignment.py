"""Cross-entropy with the targets of an extraction, which is the loss of SwAV and of ReSSL.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments, NeurIPS 2020, arXiv 2006.09882, eq. 2. Zheng, You, Wang, Qian, Zhang, Wang, Xu: ReSSL: Relational
Self-Supervised Learning with Weak Augmentation, NeurIPS 2021, arXiv 2107.09282.
"""

from typing import Literal

import torch
from torch import Tensor

from ssl_modules.losses.base import Loss, masked_logsumexp, mean
from ssl_modules.utils.checks import check_number


class AssignmentLoss(Loss):
    """Cross-entropy of the softmax of an anchor's scores, with the softmax of reference scores as target.

    s = scores / temperature, and t = reference scores / target_temperature. Both softmaxes are over the candidates C(a)
    of anchor a:

        mean over anchors a of  - sum_{c in C(a)} softmax(t_a)_c log softmax(s_a)_c

    The targets have no gradient. Their entropy is a lower bound of the loss. If all candidates have equal scores, the
    loss is the logarithm of their number. Anchors without candidates are skipped.

    With :class:`~ssl_modules.extractions.Prototypes`, the targets are the assignments of SwAV. Their reference scores
    are already divided by ``epsilon``, so ``target_temperature`` is 1. With ``Queue(reference=True)``, the targets are
    the teacher's similarities to the keys in the queue. ReSSL leaves out the anchor's own key by
    ``candidates="negatives"``.

    Args:
        temperature: divisor of the scores, > 0.
        target_temperature: divisor of the reference scores, > 0.
        candidates: which candidates are in C(a). "all" = all that are not ignored. "negatives" = only the negatives.

    Raises:
        ValueError: if an argument is out of range. When called, if there are no reference scores.

    Example:
        The target puts almost all probability on the first candidate. The loss is small if the softmax of the scores
        does the same.

        >>> relation, target = torch.tensor([[1, 0, 0]], dtype=torch.int8), torch.tensor([[20.0, 0.0, 0.0]])
        >>> AssignmentLoss()(torch.tensor([[1.0, 0.1, 0.1]]), relation, target)
        tensor(0.0002)
        >>> AssignmentLoss()(torch.tensor([[0.1, 0.1, 1.0]]), relation, target)
        tensor(9.0002)
    """

    def __init__(
        self,
        temperature: float = 0.1,
        target_temperature: float = 1.0,
        candidates: Literal["all", "negatives"] = "all",
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        check_number("target_temperature", target_temperature, above=0)
        self.temperature = temperature
        self.target_temperature = target_temperature
        self.candidates = candidates

    def _candidates(self, relation: Tensor) -> Tensor:
        """Return which pairs are used, bool ``[A, C]``."""
        return relation == 0 if self.candidates == "negatives" else relation >= 0

    def counts(self, relation: Tensor) -> Tensor:
        """Return the number of anchors with candidates, int64 ``[1]``."""
        return self._candidates(relation).any(dim=1).sum()[None]

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        if reference_scores is None:
            raise ValueError(
                f"reference_scores: expected {list(scores.shape)} for the targets, got None; use an extraction whose "
                "contrasts have a reference, such as Prototypes() or Queue(reference=True)"
            )
        taken = self._candidates(relation)
        rows = taken.any(dim=1)
        s, taken = scores[rows] / self.temperature, taken[rows]
        t = (reference_scores[rows].detach() / self.target_temperature).masked_fill(~taken, -torch.inf)
        # The targets sum to one, so the cross-entropy is log sum exp(s) - sum_c t_c s_c.
        expected = torch.linalg.vecdot(t.softmax(dim=1), s.masked_fill(~taken, 0))
        return mean((masked_logsumexp(s, taken) - expected).sum(), counts[0])
