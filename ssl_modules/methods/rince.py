"""RINCE: positives have ranks, so that more related images get more similar embeddings.

Hoffmann, Behrmann, Gall, Brox, Noroozi: Ranking Info Noise Contrastive Estimation: Boosting Contrastive Learning via
Ranked Positives, AAAI 2022, arXiv 2201.11736. For unit vectors, the query q of one view, the teacher's key of the
other, and a queue of K earlier keys, each with a rank r = 1 .. R or a negative (0):

    loss   = 1/R sum_r loss_r
    loss_r = mean of  -log( exp(<q, p> / T_r) / (exp(<q, p> / T_r) + sum over n of exp(<q, n> / T_r)) )

over pairs of a query and a key p of rank r ("out"), or with the sum of exp over p instead of exp ("in"). The keys n are
farther than rank r. The query's own key has rank 1. Not to be confused with robust InfoNCE, also called RINCE.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, LabelRanks, Queue
from ssl_modules.losses import Loss, RINCELoss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import EpochCosine, Schedule
from ssl_modules.similarities import Cosine, Similarity


class RINCE(ContrastiveModule):
    """RINCE; its default ranks need targets ``[N, 2]``: class and superclass of each image, as in CIFAR-100.

    Views are crops with flip, colour jitter and grayscale. The projector has one hidden layer and no batch norm. The
    queue stores keys with their labels: the same class has rank 1, the same superclass has rank 2.

    For classes without superclasses, use ``Queue(ranks=RankTable(...))`` or ``SimilarityRanks``. ``NeighbourRanks`` and
    ``Queue(view_ranks=...)`` need no labels. ``view_ranks`` ranks the views of an image, or of several clips of a
    video. ``NeighbourRanks`` and ``view_ranks`` are not from the paper.

    The recipe is the authors' for CIFAR-100, where they train a ResNet-50 for 1,000 epochs. Their commands for
    CIFAR-100 use the cumulative form, ``LabelRanks(cumulative=True)`` with ``RINCELoss((0.1, 0.225),
    cumulative=True)``. For ImageNet-100 they use ``SimilarityRanks(..., thresholds=[0.4])``, 8,192 keys and a learning
    rate of 0.3 for 768 images per step.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector, the queue, its ranks and the teacher's momentum.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        decay_norms: whether biases and norms have weight decay.
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in the official code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Raises:
        ValueError: in a step, if the loader doesn't give the labels that the ranks need.

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
        extraction: Extraction = Queue(size=4096, ranks=LabelRanks(), momentum=0.99, teacher_update="before"),
        similarity: Similarity = Cosine(),
        loss: Loss = RINCELoss(temperatures=(0.1, 0.225), modes="out-in"),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=1e-4),
        schedule: Schedule = EpochCosine(0.01, start=0.02, floor=0.001),
        base_batch_size: int | None = 512,
        decay_norms: bool = True,
        view_statistics: ViewStatistics = "each",
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
            decay_norms=decay_norms,
            view_statistics=view_statistics,
            **settings,
        )
