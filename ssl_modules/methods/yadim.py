"""YADIM, a reconstruction: the deepest map of one view against that of the image's other view.

Falcon, Cho: A Framework For Contrastive Self-Supervised Learning And Designing A New Approach, arXiv 2009.00104. No
code of it was ever published: this is a reconstruction from the paper's abstract and the authors' code base. For a
vector a_i of each image in one view (one random place, where the map has several), the map b_jl of each image in the
other, and u = <a_i, b_jl> / sqrt(D), softly clipped to s = c tanh(u / c):

    loss(a, b) = mean over i, l of  -log( exp(s_iil) / (exp(s_iil) + sum over j != i, m of exp(s_ijm)) )
                 + 0.05 mean over i, j, l of u_ijl^2

and the objective is the mean of the two directions.
"""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, LocalMaps
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import ScaledDot, Similarity


class YADIM(ContrastiveModule):
    """YADIM, a reconstruction from the paper's abstract and the authors' code base.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the policy of AMDIM, whose views may be cut into the patches of CPC                        |
    | encoder      | ResNet-18                                                                                |
    | extraction   | the deepest map against the deepest map of the other view                                |
    | similarity   | inner product over the root of the dimension                                             |
    | loss         | InfoNCE, clip 10, penalty 0.05 on squared scores                                         |

    Other strategies are ``LocalMaps("multi-pair")``, ``LocalMaps("same-map")`` and ``LocalMaps("random")``: see
    :class:`~ssl_modules.extractions.LocalMaps`. Where the augmentation cuts patches, the encoder sees one at a time,
    and a map is their grid.

    The recipe is that of AMDIM: Adam, learning rate 2e-4, betas 0.8 and 0.999, weight decay 1e-5, a short warm-up,
    cosine.

    Args:
        augmentation: None = "yadim-<image_size>"; ``YADIMViews(..., patches=(8, 4))`` cuts its views into patches.
        encoder: a timm name or a module.
        extraction: None = ``LocalMaps("last")``.
        similarity: None = :class:`~ssl_modules.similarities.ScaledDot`.
        loss: None = ``InfoNCE(clip=10.0, l2=0.05)``.
        image_size: side of a view, pixels, before it is cut.
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
        >>> module = YADIM(extraction=LocalMaps("same-map"))
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
    ) -> None:
        if optimizer is None:
            optimizer = partial(torch.optim.Adam, lr=2e-4, betas=(0.8, 0.999), weight_decay=1e-5)
        super().__init__(
            augmentation="yadim" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=LocalMaps("last") if extraction is None else extraction,
            similarity=ScaledDot() if similarity is None else similarity,
            loss=InfoNCE(clip=10.0, l2=0.05) if loss is None else loss,
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
