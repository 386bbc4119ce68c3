"""MoCo v2: a query is closer to the key of its image's other view than to the keys of earlier images.

Chen, Fan, Girshick, He: Improved Baselines with Momentum Contrastive Learning, arXiv 2003.04297; He et al.: Momentum
Contrast for Unsupervised Visual Representation Learning, CVPR 2020, arXiv 1911.05722, eq. 1. For unit vectors, the
query q of one view, the key k+ of the other by the teacher, and a queue of K earlier keys:

    loss = mean of  -log( exp(<q, k+> / T) / (exp(<q, k+> / T) + sum_j exp(<q, k_j> / T)) )
"""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, Queue
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity
from ssl_modules.teacher import Schedule


class MoCo(ContrastiveModule):
    """MoCo v2.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the paper's policy at 32, 96 or 224 px: crop, flip, colour jitter, grayscale, blur         |
    | encoder      | ResNet-18, and its average over the past, the teacher                                     |
    | extraction   | a projector of one hidden layer to 128 numbers, without batch norm; a queue of 65,536 keys |
    | similarity   | cosine                                                                                   |
    | loss         | InfoNCE, temperature 0.2                                                                 |

    The recipe is the paper's for ImageNet: SGD, learning rate 0.03 per 256 images, momentum 0.9, weight decay 1e-4 (not
    on biases and norms, unlike the paper's code), cosine without warm-up; the teacher's momentum is 0.999. A queue much
    larger than the data set holds the anchors' own earlier keys as negatives: 4,096 is common at 32 px.

    A batch's statistics can give away which key is the anchor's: that of the same batch. The paper shuffles batches
    between devices before the teacher sees them; ``batch_norm_splits=8`` does the like, on one device too. With
    ``Trainer(sync_batchnorm=True)`` statistics are of so many images that they tell little.

    Args:
        augmentation: None = "moco-<image_size>".
        encoder: a timm name or a module.
        extraction: None = :class:`~ssl_modules.extractions.Queue`.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = ``InfoNCE(temperature=0.2)``.
        image_size: side of a view, pixels.
        in_channels: number of image channels.
        mean: per channel, of pixels in [0, 1]; None = the pretrained weights' own, else 0.
        std: per channel; None = the pretrained weights' own, else 1.
        small_stem: whether a ResNet gets the stem for small images; None = up to 64 pixels.
        pretrained: whether timm loads its pretrained weights.
        channels_last: whether the encoder's maps have their channels last in memory, which convolutions are faster
            with; None = for timm's and torchvision's convolutional networks, and AMDIM's.
        compile: whether the encoder is compiled by ``torch.compile``, at its first batch.
        batch_norm_splits: number of parts of a batch, each with statistics of its own in the encoder's batch norms, as
            if on so many devices; None = the whole batch.
        optimizer: parameter groups to optimiser; None = the recipe above.
        reference_batch_size: images per step that the optimiser's learning rate is given for; None = it is taken as
            it is, and with ``optimizer=None`` 256.
        warmup: share of all optimiser steps spent in linear warm-up, in [0, 1].
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.
        momentum: of the teacher's average, in [0, 1].
        momentum_schedule: "constant", or "cosine" to 1 over the run.

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`.

    Example:
        >>> module = MoCo(extraction=Queue(size=4096), momentum=0.99)
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
        batch_norm_splits: int | None = None,
        optimizer: OptimizerCallable | None = None,
        reference_batch_size: int | None = None,
        warmup: float = 0.0,
        anchor_block: int | None = None,
        momentum: float = 0.999,
        momentum_schedule: Schedule = "constant",
    ) -> None:
        if optimizer is None:
            optimizer = partial(torch.optim.SGD, lr=0.03, momentum=0.9, weight_decay=1e-4)
            reference_batch_size = 256 if reference_batch_size is None else reference_batch_size
        super().__init__(
            augmentation="moco" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=Queue() if extraction is None else extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=InfoNCE(temperature=0.2) if loss is None else loss,
            image_size=image_size,
            in_channels=in_channels,
            mean=mean,
            std=std,
            small_stem=small_stem,
            pretrained=pretrained,
            channels_last=channels_last,
            compile=compile,
            batch_norm_splits=batch_norm_splits,
            optimizer=optimizer,
            reference_batch_size=reference_batch_size,
            warmup=warmup,
            anchor_block=anchor_block,
            momentum=momentum,
            momentum_schedule=momentum_schedule,
        )
