"""CPC v2: what a patch of an image looks like is predicted from the patches above it.

van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748; Henaff et al.:
Data-Efficient Image Recognition with Contrastive Predictive Coding, ICML 2020, arXiv 1905.09272. For the vectors z of a
grid of patches, their targets t = V z, the context c_rk of the patches in rows up to r around column k, a linear
predictor W_d for each distance d, and s_d(t) = 0.1 <W_d c_rk, t>:

    loss = sum over d of mean over r, k of  -log( exp(s_d(t_r+d,k)) / sum over t of exp(s_d(t)) )

where the last sum is over the targets of all patches of all images of the batch.
"""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation, policy
from ssl_modules.encoders import CPCEncoder
from ssl_modules.extractions import Extraction, PatchContext
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Dot, Similarity


class CPC(ContrastiveModule):
    """CPC v2.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | one view at 32, 64 or 128 px as of AMDIM, cut into 7 x 7 patches that overlap by half      |
    | encoder      | a ResNet with layer norm and a wide third stage, on each patch by itself                   |
    | extraction   | a context network of masked convolutions, a predictor for each distance from 2 to 6 rows   |
    | similarity   | inner product                                                                            |
    | loss         | InfoNCE                                                                                  |

    The representation of an image is the mean over its patches. An encoder with batch norm lets patches tell of each
    other; layer norm doesn't. Predictions in all four directions are ``PatchContext(directions=("down", "up", "right",
    "left"))``.

    The recipe is that of lightning-bolts for CIFAR-10: Adam, learning rate 4e-5, betas 0.8 and 0.999, weight decay 1e-5
    (not on biases and norms, unlike there); the cosine is ours.

    Args:
        augmentation: None = "cpc-<image_size>".
        encoder: a timm name or a module, for patches; None = :class:`~ssl_modules.encoders.CPCEncoder`, with
            layers (3, 4, 6, 3) rather than the paper's (3, 4, 46, 3).
        extraction: None = :class:`~ssl_modules.extractions.PatchContext`.
        similarity: None = :class:`~ssl_modules.similarities.Dot`.
        loss: None = ``InfoNCE()``.
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
        >>> from ssl_modules.augmentations import CPCViews
        >>> encoder = CPCEncoder(image_size=8, layers=(1, 1, 1, 1), width=16)
        >>> module = CPC(CPCViews(32, patches=(8, 4), shift=4, per_patch=True), encoder)
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
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
            optimizer = partial(torch.optim.Adam, lr=4e-5, betas=(0.8, 0.999), weight_decay=1e-5, eps=1e-7)
        if augmentation is None:
            augmentation = "cpc"
        if isinstance(augmentation, str):
            augmentation = policy(augmentation, image_size, in_channels)
        if encoder is None:
            if augmentation.patches is None:
                raise ValueError("augmentation: cuts no patches for the encoder; let PatchGrid be its last operation")
            encoder = CPCEncoder(augmentation.patches[0], in_channels, layers=(3, 4, 6, 3))
        super().__init__(
            augmentation=augmentation,
            encoder=encoder,
            extraction=PatchContext() if extraction is None else extraction,
            similarity=Dot() if similarity is None else similarity,
            loss=InfoNCE() if loss is None else loss,
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
