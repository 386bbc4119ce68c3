"""Aspect 5, loss: (scores [A, C], relation [A, C], reference scores [A, C] | None) -> scalar."""

from ssl_modules.losses.base import Loss, logsumexp_by_anchor, masked_logsumexp, mean, negatives_and_positives
from ssl_modules.losses.info_nce import InfoNCE

__all__ = ["InfoNCE", "Loss", "logsumexp_by_anchor", "masked_logsumexp", "mean", "negatives_and_positives"]
