"""RINCE: positives of several ranks, so that what is more related comes out closer.

Hoffmann, Behrmann, Gall, Brox, Noroozi: Ranking Info Noise Contrastive Estimation: Boosting Contrastive Learning via
Ranked Positives, AAAI 2022, arXiv 2201.11736. For unit vectors, the query q of one view, the teacher's key of the
other, and a queue of K earlier keys, each of a rank r = 1 .. R or a negative (0):

    loss   = 1/R sum_r loss_r
    loss_r = mean of  -log( exp(<q, p> / T_r) / (exp(<q, p> / T_r) + sum over n of exp(<q, n> / T_r)) )

over pairs of a query and a key p of rank r ("out"), or with the sum of exp over p in place of exp ("in"); n are the
keys farther than r. The query's own key has rank 1. Not to be confused with robust InfoNCE, called RINCE as well.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, LabelRanks, Queue
from ssl_modules.losses import Loss, RINCELoss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class RINCE(ContrastiveModule):
    """RINCE; its default ranks need targets ``[N, 2]``: class and superclass of each image, as CIFAR-100 has them.

    Views are crops with flip, colour jitter and grayscale. The projector has one hidden layer and no batch norm. The
    queue holds keys with their labels: rank 1 is the same class, rank 2 the same superclass.

    For classes without superclasses take ``Queue(ranks=RankTable(...))`` or ``SimilarityRanks``. ``NeighbourRanks``
    need no labels; they are ours, not the paper's.

    The recipe is the authors' for CIFAR-100, where they take a ResNet-50 and 1,000 epochs, without weight decay on
    biases and norms, which their code decays. Their commands for it use the cumulative form,
    ``LabelRanks(cumulative=True)`` with ``RINCELoss((0.1, 0.225), cumulative=True)``. For ImageNet-100 they take
    ``SimilarityRanks(..., thresholds=[0.4])``, 8,192 keys and a learning rate of 0.3 per 768 images.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: maps of all views to contrasts; the projector, the queue, its ranks and the teacher's momentum are
            parts of it.
        similarity: scores of anchors and candidates.
        loss: scores and relations to a scalar.
        optimizer: parameter groups to optimiser.
        schedule: of the learning rate over the run.
        base_batch_size: images per step that the learning rate is given for; None = it is taken as it is.
        settings: of :class:`~ssl_modules.ContrastiveModule`: image_size, in_channels, mean, std, ...

    Raises:
        ValueError: in a step, if the loader gives no labels as the ranks need them.

    Example:
        Without labels:

        >>> from ssl_modules.extractions import NeighbourRanks
        >>> module = RINCE(extraction=Queue(size=4096, ranks=NeighbourRanks((5,)), momentum=0.99))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "rince",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Queue(size=4096, ranks=LabelRanks(), momentum=0.99),
        similarity: Similarity = Cosine(),
        loss: Loss = RINCELoss(temperatures=(0.1, 0.225), modes="out-in"),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=1e-4),
        schedule: Schedule = WarmupCosine(warmup=0.01),
        base_batch_size: int | None = 512,
        **settings: Any,
    ) -> None:
        super().__init__(
            augmentation,
            encoder,
            extraction,
            similarity,
            loss,
            optimizer=optimizer,
            schedule=schedule,
            base_batch_size=base_batch_size,
            **settings,
        )
