"""Aspect 5, loss: (scores [A, C], relation [A, C], reference scores [A, C] | None) -> scalar."""

from ssl_modules.losses.base import Loss, masked_logsumexp, mean
from ssl_modules.losses.info_nce import InfoNCE

__all__ = ["InfoNCE", "Loss", "masked_logsumexp", "mean"]
