"""GroCo: sorted by similarity, an anchor's positives should come after its hardest negatives.

Shvetsova, Petersen, Kukleva, Schiele, Kuehne: Learning by Sorting: Self-supervised Learning with Group Ordering
Constraints, ICCV 2023, arXiv 2301.02009. For the cosines of an anchor with its K hardest negatives and then with its P
positives, each group in ascending order, and the soft permutation matrix Q of a differentiable sorting network:

    loss = mean over anchors of  -1/(K + P) ( sum_{r <= K} log sum_{c <= K} Q_rc + sum_{r > K} log sum_{c > K} Q_rc )
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import GroCoLoss, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class GroCo(ContrastiveModule):
    """GroCo, with two or more views, or multi-crop.

    The two views are drawn differently: crop, flip, colour jitter, grayscale, blur from 64 pixels on, solarisation. The
    projector has two hidden layers and ends in a batch norm. An anchor's negatives are the same view of other images;
    candidates have no gradient.

    The recipe is the authors' for 100 epochs of ImageNet, with a smaller encoder, ResNet-18 instead of ResNet-50. For
    200 and 400 epochs, the authors halve the learning rate and warm up for 10 epochs. The learning rate is large
    because the gradient is small: with a steepness of 1 the sort is so soft that the loss falls only by about a quarter
    from equal cosines to the best ones.

    For multi-crop use ``augmentation="groco-multicrop"`` and 10 epochs of warm-up. The large views come first; only
    they are positives (``positive_count="large"``).

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        decay_norms: whether biases and norms have weight decay.
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in the official code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> module = GroCo(loss=GroCoLoss(negatives=20))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "groco",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = AllViews(
            hidden_dim=2048,
            out_dim=2048,
            layers=3,
            output_norm=True,
            same_view_negatives=True,
            positive_count="large",
            stop_gradient=True,
        ),
        similarity: Similarity = Cosine(),
        loss: Loss = GroCoLoss(negatives=10),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=24.0, momentum=0.9, weight_decay=1e-6),
        schedule: Schedule = WarmupCosine(0.01),
        base_batch_size: int | None = 1024,
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
