"""S2R2: every view is a query, and the other views of its image shall come first among all views of the batch.

Varamesh, Diba, Tuytelaars, Van Gool: Self-supervised Ranking for Representation Learning, arXiv 2010.07258. With P the
other views of query q's image, O all views but q, and s_j the cosine of q and view j:

    loss = 1 - mean over q of  1/|P| sum_{i in P} (1 + #{j in P: s_j > s_i}) / (1 + #{j in O: s_j > s_i})

where # counts softly. This is written after the paper's abstract: many random views per image, each of them a query,
and a loss that maximises average precision over the whole batch. All else is inferred: which soft count, its
temperature, number and size of the views, projector, and recipe.
"""

from collections.abc import Sequence
from functools import partial

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import AveragePrecisionLoss, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity


class S2R2(ContrastiveModule):
    """S2R2, after its paper's abstract; what is marked * is inferred.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | four views of SimCLR's kind* at 32, 96 or 224 px                                           |
    | encoder      | ResNet-18*                                                                               |
    | extraction   | a projector of one hidden layer of 2048 to 128 numbers*; all views are anchors and         |
    |              | candidates                                                                               |
    | similarity   | cosine*                                                                                  |
    | loss         | one minus the average precision, smooth with temperature 0.01*                            |

    The recipe* is SimCLR's: LARS, learning rate 0.3 per 256 images, momentum 0.9, weight decay 1e-6, 10 % warm-up,
    cosine.

    One minus ``train/loss`` is the soft average precision; validation logs the exact one as ``val/contrast_ap``. For
    multi-crop take the policy "s2r2-multicrop"*, two large crops and six small ones, all of them queries.

    Args:
        augmentation: None = "s2r2-<image_size>".
        encoder: a timm name or a module.
        extraction: None = ``AllViews(hidden_dim=2048)``.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = :class:`~ssl_modules.losses.AveragePrecisionLoss`.
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
        >>> module = S2R2(loss=AveragePrecisionLoss("binned"))
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
            augmentation="s2r2" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=AllViews(hidden_dim=2048) if extraction is None else extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=AveragePrecisionLoss() if loss is None else loss,
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
