"""SupCon, supervised contrastive learning: all images of a class are positives of each other.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan: Supervised Contrastive Learning, NeurIPS 2020,
arXiv 2004.11362.
"""

from typing import Literal

from torch import Tensor

from ssl_modules.losses.base import Loss, has_positive, is_positive, masked_logsumexp, mean
from ssl_modules.utils.checks import check_number


class SupConLoss(Loss):
    """Cross-entropy of picking an anchor's positives among all its candidates.

    With s = scores / temperature, P(a) the positives of anchor a, and C(a) its positives and negatives:

        out (eq. 2): mean over anchors a of mean over p in P(a) of -log( e^s_ap / sum_{c in C(a)} e^s_ac )
        in  (eq. 3): mean over anchors a of -log( mean over p in P(a) of e^s_ap / sum_{c in C(a)} e^s_ac )

    These modes differ from those of :class:`~ssl_modules.losses.InfoNCE` with the same names. In InfoNCE's "out", the
    denominator of a pair has no other positives of its anchor, and the mean is over pairs. InfoNCE's "in" takes the sum
    over the positives instead of the mean. If every anchor has one positive, all these modes are equal. ``SupConLoss``
    skips anchors without a positive. The paper finds "out" better. The official code computes "out" and multiplies it
    by ``temperature / base_temperature``.

    Args:
        temperature: divisor of the scores, > 0; 0.1 in the paper, 0.07 by default in the official code.
        mode: "out" or "in".
        base_temperature: the loss is multiplied by ``temperature / base_temperature``. This argument must be above 0.
            The official code uses 0.07. None = the loss is not multiplied.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        With two positives and equal scores, the loss is the logarithm of the number of candidates, log 3.

        >>> import torch
        >>> relation = torch.tensor([[1, 1, 0]], dtype=torch.int8)
        >>> SupConLoss(temperature=0.1)(torch.zeros(1, 3), relation)
        tensor(1.0986)
    """

    def __init__(
        self, temperature: float = 0.1, mode: Literal["out", "in"] = "out", base_temperature: float | None = None
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        if base_temperature is not None:
            check_number("base_temperature", base_temperature, above=0)
        self.temperature = temperature
        self.mode = mode
        self.base_temperature = base_temperature

    def counts(self, relation: Tensor) -> Tensor:
        """Return the number of anchors with a positive, int64 ``[1]``."""
        return has_positive(relation).sum()[None]

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        rows = has_positive(relation)
        s, positive, candidate = scores[rows] / self.temperature, is_positive(relation[rows]), relation[rows] >= 0
        all_candidates, number = masked_logsumexp(s, candidate), positive.sum(dim=1)
        if self.mode == "out":
            positives = s.masked_fill(~positive, 0).sum(dim=1) / number
        else:
            positives = masked_logsumexp(s, positive) - number.to(s.dtype).log()
        factor = 1.0 if self.base_temperature is None else self.temperature / self.base_temperature
        return factor * mean((all_candidates - positives).sum(), counts[0])
