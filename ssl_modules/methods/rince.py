"""RINCE: positives of several ranks, so that what is more related comes out closer.

Hoffmann, Behrmann, Gall, Brox, Noroozi: Ranking Info Noise Contrastive Estimation: Boosting Contrastive Learning via
Ranked Positives, AAAI 2022, arXiv 2201.11736. For unit vectors, the query q of one view, the teacher's key of the
other, and a queue of K earlier keys, each of a rank r = 1 .. R or a negative (0):

    loss   = 1/R sum_r loss_r
    loss_r = mean of  -log( exp(<q, p> / T_r) / (exp(<q, p> / T_r) + sum over n of exp(<q, n> / T_r)) )

over pairs of a query and a key p of rank r ("out"), or with the sum of exp over p in place of exp ("in"); n are the
keys farther than r. The query's own key has rank 1. Not to be confused with robust InfoNCE, called RINCE as well.
"""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, LabelRanks, Queue
from ssl_modules.losses import Loss, RINCELoss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity
from ssl_modules.teacher import Schedule


class RINCE(ContrastiveModule):
    """RINCE.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the authors' policy at 32 or 224 px: crop, flip, colour jitter, grayscale                  |
    | encoder      | ResNet-18, and its average over the past, the teacher                                     |
    | extraction   | a projector of one hidden layer to 128 numbers, without batch norm; a queue of 4,096 keys  |
    |              | and their labels: rank 1 for the same class, rank 2 for the same superclass               |
    | similarity   | cosine                                                                                   |
    | loss         | RINCE "out-in", temperatures 0.1 and 0.225                                               |

    The ranks need labels: by default targets ``[N, 2]`` of class and superclass from the loader, as of CIFAR-100. For
    classes without superclasses there are :class:`~ssl_modules.extractions.RankTable` and
    :class:`~ssl_modules.extractions.SimilarityRanks`; :class:`~ssl_modules.extractions.NeighbourRanks` need no labels,
    and are not the paper's.

    The recipe is the authors' for CIFAR-100, where they take a ResNet-50 and 1,000 epochs: SGD, learning rate 0.5 per
    512 images, momentum 0.9, weight decay 1e-4 (not on biases and norms, unlike their code), 1 % warm-up, cosine; the
    teacher's momentum is 0.99. Their commands for it use the cumulative form, ``LabelRanks(cumulative=True)`` with
    ``RINCELoss((0.1, 0.225), cumulative=True)``. For ImageNet-100 they take ``SimilarityRanks(..., thresholds=[0.4])``,
    8,192 keys and a learning rate of 0.3 per 768 images.

    Args:
        augmentation: None = "rince-<image_size>".
        encoder: a timm name or a module.
        extraction: None = ``Queue(size=4096, ranks=LabelRanks())``.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = ``RINCELoss((0.1, 0.225), modes="out-in")``.
        image_size: side of a view, pixels.
        in_channels: number of image channels.
        mean: per channel, of pixels in [0, 1]; None = the pretrained weights' own, else 0.
        std: per channel; None = the pretrained weights' own, else 1.
        small_stem: whether a ResNet gets the stem for small images; None = up to 64 pixels.
        pretrained: whether timm loads its pretrained weights.
        channels_last: whether the encoder's maps have their channels last in memory, which convolutions are faster
            with; None = for timm's and torchvision's convolutional networks, and AMDIM's.
        compile: whether the encoder is compiled by ``torch.compile``, at its first batch.
        optimizer: parameter groups to optimiser; None = the recipe above.
        reference_batch_size: images per step that the optimiser's learning rate is given for; None = it is taken as
            it is, and with ``optimizer=None`` 512.
        warmup: share of all optimiser steps spent in linear warm-up, in [0, 1].
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.
        momentum: of the teacher's average, in [0, 1].
        momentum_schedule: "constant", or "cosine" to 1 over the run.

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`; in a step, for missing labels.

    Example:
        Without labels:

        >>> from ssl_modules.extractions import NeighbourRanks
        >>> module = RINCE(extraction=Queue(size=4096, ranks=NeighbourRanks((5,))))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation | None = None,
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction | None = None,
        similarity: Similarity | None = None,
        loss: Loss | None = None,
        *,
        image_size: int = 32,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        small_stem: bool | None = None,
        pretrained: bool = False,
        channels_last: bool | None = None,
        compile: bool = False,
        optimizer: OptimizerCallable | None = None,
        reference_batch_size: int | None = None,
        warmup: float = 0.01,
        anchor_block: int | None = None,
        momentum: float = 0.99,
        momentum_schedule: Schedule = "constant",
    ) -> None:
        if optimizer is None:
            optimizer = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=1e-4)
            reference_batch_size = 512 if reference_batch_size is None else reference_batch_size
        super().__init__(
            augmentation="rince" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=Queue(size=4096, ranks=LabelRanks()) if extraction is None else extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=RINCELoss((0.1, 0.225), modes="out-in") if loss is None else loss,
            image_size=image_size,
            in_channels=in_channels,
            mean=mean,
            std=std,
            small_stem=small_stem,
            pretrained=pretrained,
            channels_last=channels_last,
            compile=compile,
            optimizer=optimizer,
            reference_batch_size=reference_batch_size,
            warmup=warmup,
            anchor_block=anchor_block,
            momentum=momentum,
            momentum_schedule=momentum_schedule,
        )
