"""GroCo: sorted by similarity, an anchor's positives come after its hardest negatives.

Shvetsova, Petersen, Kukleva, Schiele, Kuehne: Learning by Sorting: Self-supervised Learning with Group Ordering
Constraints, ICCV 2023, arXiv 2301.02009. For the cosines of an anchor with its K hardest negatives and then with its P
positives, each group in ascending order, and the soft permutation matrix Q of a differentiable sorting network:

    loss = mean over anchors of  -1/(K + P) ( sum_{r <= K} log sum_{c <= K} Q_rc + sum_{r > K} log sum_{c > K} Q_rc )
"""

from collections.abc import Sequence
from functools import partial
from itertools import takewhile

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation, policy
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import GroCoLoss, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity


class GroCo(ContrastiveModule):
    """GroCo, with two or more views, or multi-crop.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the authors' two unlike policies: crop, flip, colour jitter, grayscale, blur, solarise     |
    | encoder      | ResNet-18                                                                                |
    | extraction   | a projector of two hidden layers of 2,048 to 2,048 numbers, batch norm last; an anchor's   |
    |              | negatives are the same view of other images; candidates have no gradient                  |
    | similarity   | cosine                                                                                   |
    | loss         | GroCo, 10 negatives, steepness 1, the odd-even network with the Cauchy distribution        |

    The recipe is the authors' for 100 epochs of ImageNet: SGD, learning rate 24 per 1,024 images, momentum 0.9, weight
    decay 1e-6 (not on biases and norms, unlike their code), 1 % warm-up, cosine. For 200 and 400 epochs they halve the
    learning rate and warm up for 10 epochs. It is this large because the gradient is this small: with a steepness of 1
    the network is so soft that the whole way from equal cosines to the best ones takes about a quarter off the loss.

    For multi-crop they take ``augmentation="groco-multicrop"`` and 10 epochs of warm-up. Of views of unlike sizes
    the large ones, which have to come first, are positives.

    Args:
        augmentation: None = "groco-<image_size>".
        encoder: a timm name or a module.
        extraction: None = ``AllViews(hidden_dim=2048, out_dim=2048, layers=3, output_norm=True,
            same_view_negatives=True, stop_gradient=True)``, for multi-crop with ``positive_count`` large crops.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = :class:`~ssl_modules.losses.GroCoLoss`.
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
            it is, and with ``optimizer=None`` 1,024.
        warmup: share of all optimiser steps spent in linear warm-up, in [0, 1].
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`.

    Example:
        >>> module = GroCo(loss=GroCoLoss(steepness=4.0))
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
            optimizer = partial(torch.optim.SGD, lr=24.0, momentum=0.9, weight_decay=1e-6)
            reference_batch_size = 1024 if reference_batch_size is None else reference_batch_size
        if augmentation is None:
            augmentation = "groco"
        if isinstance(augmentation, str):
            augmentation = policy(augmentation, image_size, in_channels)
        if extraction is None:
            sizes = tuple(getattr(augmentation, "sizes", ()))  # of no augmentation, which the base refuses
            large = _large_views(sizes)
            extraction = AllViews(
                hidden_dim=2048,
                out_dim=2048,
                layers=3,
                output_norm=True,
                same_view_negatives=True,
                positive_count=large if large < len(sizes) else None,
                stop_gradient=True,
            )
        super().__init__(
            augmentation=augmentation,
            encoder=encoder,
            extraction=extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=GroCoLoss() if loss is None else loss,
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


def _large_views(sizes: tuple[int | None, ...]) -> int:
    """How many views are large crops: the first ones, up to the first smaller one."""
    if any(size is not None and sizes[0] is not None and size > sizes[0] for size in sizes):
        raise ValueError(
            f"augmentation: makes views of {list(sizes)} pixels; let the large ones come first, which are the positives"
        )
    return len(list(takewhile(lambda size: size == sizes[0], sizes)))
