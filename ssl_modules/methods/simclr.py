"""SimCLR: two views of an image are closer to each other than to any view of any other image.

Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
arXiv 2002.05709. Eq. 1, for unit vectors z and the positive p(a) of anchor a among 2N views:

    loss = mean over a of  -log( exp(<z_a, z_p(a)> / T) / sum_{b != a} exp(<z_a, z_b> / T) )
"""

from collections.abc import Sequence
from functools import partial

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity


class SimCLR(ContrastiveModule):
    """SimCLR, with two or more views.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the paper's policy at 32, 96 or 224 px: crop, flip, colour jitter, grayscale, blur         |
    | encoder      | ResNet-18                                                                                |
    | extraction   | a projector of one hidden layer to 128 numbers; all views are anchors and candidates       |
    | similarity   | cosine                                                                                   |
    | loss         | InfoNCE, temperature 0.1                                                                 |

    The recipe is the paper's for ImageNet: LARS, learning rate 0.3 per 256 images, momentum 0.9, weight decay 1e-6,
    10 % warm-up, cosine.

    With more than two views ``InfoNCE(mode="out")`` (default) takes the mean over all pairs of views of an image,
    ``mode="in"`` sums an anchor's positives inside the logarithm; for two views they are equal.

    Args:
        augmentation: None = "simclr-<image_size>".
        encoder: a timm name or a module.
        extraction: None = :class:`~ssl_modules.extractions.AllViews`.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = ``InfoNCE(temperature=0.1)``.
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

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`.

    Example:
        >>> import torch
        >>> module = SimCLR(loss=InfoNCE(temperature=0.2))
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
        warmup: float = 0.1,
        anchor_block: int | None = None,
    ) -> None:
        if optimizer is None:
            optimizer = partial(Lars, lr=0.3, momentum=0.9, weight_decay=1e-6)
            reference_batch_size = 256 if reference_batch_size is None else reference_batch_size
        super().__init__(
            augmentation="simclr" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=AllViews() if extraction is None else extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=InfoNCE(temperature=0.1) if loss is None else loss,
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
        )
