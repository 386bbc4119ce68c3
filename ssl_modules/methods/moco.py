"""MoCo v2: a query should be closer to the key of its image's other view than to the keys of earlier images.

Chen, Fan, Girshick, He: Improved Baselines with Momentum Contrastive Learning, arXiv 2003.04297; He et al.: Momentum
Contrast for Unsupervised Visual Representation Learning, CVPR 2020, arXiv 1911.05722, eq. 1. For unit vectors, the
query q of one view, the teacher's key k+ of the other, and a queue of K earlier keys:

    loss = mean of  -log( exp(<q, k+> / T) / (exp(<q, k+> / T) + sum_j exp(<q, k_j> / T)) )
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, Queue
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class MoCo(ContrastiveModule):
    """MoCo v2.

    Views are crops with flip, colour jitter, grayscale and, from 64 pixels on, blur. The projector has one hidden layer
    and no batch norm. The teacher's momentum is an argument of the extraction, the queue.

    The recipe is the paper's for ImageNet, with a smaller encoder, ResNet-18 instead of ResNet-50. As in the
    official code, weight decay applies to biases and norms, and the learning rate changes after each epoch. If the
    queue is at least as large as the data set, it contains earlier keys of the anchor's own image, which count as
    negatives. At 32 pixels, 4,096 keys are common.

    Batch-norm statistics can reveal the anchor's key, because it is from the same batch. The paper shuffles batches
    between devices before the teacher encodes them. ``batch_norm_splits=8`` imitates this on a single device. With
    ``Trainer(sync_batchnorm=True)``, statistics are over so many images that they reveal little.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector, the queue and the teacher's momentum.
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
        >>> module = MoCo(extraction=Queue(size=4096, momentum=0.99))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "moco",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Queue(momentum=0.999),
        similarity: Similarity = Cosine(),
        loss: Loss = InfoNCE(temperature=0.2),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.03, momentum=0.9, weight_decay=1e-4),
        schedule: Schedule = WarmupCosine(0, per="epoch"),
        base_batch_size: int | None = 256,
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
