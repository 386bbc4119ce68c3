"""Alignment, the loss of methods without negatives.

Grill et al.: Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, arXiv 2006.07733, eq. 2.
"""

from torch import Tensor

from ssl_modules.losses.base import Loss, count_pairs, is_positive, mean
from ssl_modules.utils.checks import check_number


class Alignment(Loss):
    """Squared distance of an anchor and its positive as unit vectors, computed from their cosine s.

        mean over pairs (a, p) of scale (2 - 2 s_ap)

    The loss uses no negatives. A predictor, and either a teacher (BYOL) or a stop-gradient (SimSiam), must prevent the
    collapse to one vector.

    Args:
        scale: factor of the loss, > 0. BYOL uses 1. With 0.25 and the two views of SimSiam, the objective of
            :class:`~ssl_modules.extractions.Predictor` is SimSiam's loss plus 1. SimSiam's loss is the negative mean of
            two cosines.

    Raises:
        ValueError: if ``scale`` is not positive.

    Example:
        >>> import torch
        >>> Alignment()(torch.tensor([[0.5, 0.9]]), torch.tensor([[1, -1]], dtype=torch.int8))
        tensor(1.)
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        check_number("scale", scale, above=0)
        self.scale = scale

    def counts(self, relation: Tensor) -> Tensor:
        """The number of pairs of an anchor and a positive: int64 ``[1]``."""
        return count_pairs(relation)

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        return self.scale * mean((2 - 2 * scores[is_positive(relation)]).sum(), counts[0])
