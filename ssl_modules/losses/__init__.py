"""Aspect 5, loss: (scores [A, C], relation [A, C], reference scores [A, C] | None) -> scalar."""

from ssl_modules.losses.alignment import Alignment
from ssl_modules.losses.assignment import AssignmentLoss
from ssl_modules.losses.average_precision import AveragePrecisionLoss
from ssl_modules.losses.base import Loss, logsumexp_by_anchor, masked_logsumexp, mean, negatives_and_positives
from ssl_modules.losses.groco import GroCoLoss
from ssl_modules.losses.info_nce import InfoNCE
from ssl_modules.losses.rince import RINCELoss
from ssl_modules.losses.sce import SCELoss
from ssl_modules.losses.sup_con import SupConLoss

__all__ = [
    "Alignment",
    "AssignmentLoss",
    "AveragePrecisionLoss",
    "GroCoLoss",
    "InfoNCE",
    "Loss",
    "RINCELoss",
    "SCELoss",
    "SupConLoss",
    "logsumexp_by_anchor",
    "masked_logsumexp",
    "mean",
    "negatives_and_positives",
]
