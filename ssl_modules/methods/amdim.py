"""AMDIM: what one view shows as a whole, or at one place, is told by every place of the image's other view.

Bachman, Hjelm, Buchwalter: Learning Representations by Maximizing Mutual Information Across Views, arXiv 1906.00910.
For a source vector a_i of each image in one view, a target map b_jl of each image with locations l in the other, and
u = <a_i, b_jl> / sqrt(D), softly clipped to s = c tanh(u / c):

    loss(a, b) = mean over i, l of  -log( exp(s_iil) / (exp(s_iil) + sum over j != i, m of exp(s_ijm)) )
                 + 0.05 mean over i, j, l of u_ijl^2

The objective is the sum of three, each the mean of its two directions: from the 1 x 1 map to the 5 x 5 map, from 1 x 1
to 7 x 7, and from one random place of 5 x 5 to 5 x 5.
"""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders import AMDIMEncoder
from ssl_modules.extractions import Extraction, LocalMaps
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import ScaledDot, Similarity


class AMDIM(ContrastiveModule):
    """AMDIM.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the authors' policy at 32, 64 or 128 px: one flip that both views share, then for each a   |
    |              | shift or crop, colour jitter, grayscale                                                  |
    | encoder      | the authors' network without padding, of width 128; maps of 7 x 7, 5 x 5 and 1 x 1         |
    | extraction   | the deepest map against the two before it, a random place of 5 x 5 against 5 x 5           |
    | similarity   | inner product over the root of the dimension                                             |
    | loss         | InfoNCE, clip 20, penalty 0.05 on squared scores                                         |

    The recipe is the authors': Adam, learning rate 2e-4, betas 0.8 and 0.999, weight decay 1e-5 (not on biases and
    norms, unlike their code), a short warm-up; a cosine takes the place of their two steps of the learning rate.

    Any other encoder has a head for the deepest map as well, whose norm keeps scores of order 1.

    Args:
        augmentation: None = "amdim-<image_size>".
        encoder: a timm name or a module with at least three maps; None = :class:`~ssl_modules.encoders.AMDIMEncoder`.
        extraction: None = :class:`~ssl_modules.extractions.LocalMaps`.
        similarity: None = :class:`~ssl_modules.similarities.ScaledDot`.
        loss: None = ``InfoNCE(clip=20.0, l2=0.05)``.
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
            it is.
        warmup: share of all optimiser steps spent in linear warm-up, in [0, 1].
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`.

    Example:
        >>> module = AMDIM(loss=InfoNCE(clip=10.0, l2=0.05))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    def __init__(
        self,
        augmentation: str | Augmentation | None = None,
        encoder: str | nn.Module | None = None,
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
    ) -> None:
        if optimizer is None:
            optimizer = partial(torch.optim.Adam, lr=2e-4, betas=(0.8, 0.999), weight_decay=1e-5)
        if encoder is None:
            encoder = AMDIMEncoder(image_size, in_channels)
        if extraction is None:
            extraction = LocalMaps("multi-pair", out_dim=None if isinstance(encoder, AMDIMEncoder) else 512)
        super().__init__(
            augmentation="amdim" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=extraction,
            similarity=ScaledDot() if similarity is None else similarity,
            loss=InfoNCE(clip=20.0, l2=0.05) if loss is None else loss,
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
