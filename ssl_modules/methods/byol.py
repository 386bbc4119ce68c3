"""BYOL: a prediction of the teacher's embedding of an image's other view, without any negatives.

Grill et al.: Bootstrap Your Own Latent, NeurIPS 2020, arXiv 2006.07733, eq. 2. For the prediction p of one view and the
teacher's embedding t of the other, both views in both roles:

    loss = mean of  (2 - 2 cos(p_1, t_2)) + (2 - 2 cos(p_2, t_1))
"""

from collections.abc import Sequence
from functools import partial

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, Predictor
from ssl_modules.losses import Alignment, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity
from ssl_modules.teacher import Schedule


class BYOL(ContrastiveModule):
    """BYOL.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the paper's two unlike policies: crop, flip, colour jitter, grayscale, blur, solarise      |
    | encoder      | ResNet-18, and its average over the past, the teacher                                     |
    | extraction   | a projector of one hidden layer of 4,096 to 256 numbers, and a predictor like it           |
    | similarity   | cosine                                                                                   |
    | loss         | alignment, 2 - 2 cos                                                                     |

    The recipe is the paper's for 1,000 epochs of ImageNet: LARS, learning rate 0.2 per 256 images, momentum 0.9, weight
    decay 1.5e-6, 1 % warm-up, cosine; the teacher's momentum rises from 0.996 to 1. Short runs want a lower one, 0.99.

    Args:
        augmentation: None = "byol-<image_size>".
        encoder: a timm name or a module.
        extraction: None = :class:`~ssl_modules.extractions.Predictor`.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = :class:`~ssl_modules.losses.Alignment`.
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
            it is, and with ``optimizer=None`` 256.
        warmup: share of all optimiser steps spent in linear warm-up, in [0, 1].
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.
        momentum: of the teacher's average, in [0, 1].
        momentum_schedule: "constant", or "cosine" to 1 over the run.

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`.

    Example:
        >>> import torch
        >>> module = BYOL(extraction=Predictor(hidden_dim=1024, predictor_dim=1024), momentum=0.99)
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
        momentum: float = 0.996,
        momentum_schedule: Schedule = "cosine",
    ) -> None:
        if optimizer is None:
            optimizer = partial(Lars, lr=0.2, momentum=0.9, weight_decay=1.5e-6)
            reference_batch_size = 256 if reference_batch_size is None else reference_batch_size
        super().__init__(
            augmentation="byol" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=Predictor() if extraction is None else extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=Alignment() if loss is None else loss,
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
