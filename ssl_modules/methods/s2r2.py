"""S2R2: every view is a query, and the other views of its image should rank first among all views of the batch.

Varamesh, Diba, Tuytelaars, Van Gool: Self-supervised Ranking for Representation Learning, arXiv 2010.07258. With P the
other views of query q's image, O all views but q, and s_j the cosine of q and view j:

    loss = 1 - mean over q of  1/|P| sum_{i in P} (1 + #{j in P: s_j > s_i}) / (1 + #{j in O: s_j > s_i})

where # is a soft count. This follows the paper's abstract: many random views per image, each of them a query, and a
loss that maximises average precision over the whole batch. All else is inferred: the soft count and its temperature,
number and size of the views, projector, and recipe.
"""

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import AveragePrecisionLoss, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class S2R2(ContrastiveModule):
    """S2R2, after its paper's abstract; choices marked * are inferred.

    There are four views with SimCLR's augmentation*, and all are anchors and candidates. The projector has one hidden
    layer*. The loss is one minus the average precision, smooth with temperature 0.01*. The recipe* is SimCLR's.

    One minus ``train/loss`` is the soft average precision; validation logs the exact one as ``val/contrast_ap``. For
    multi-crop use ``augmentation="s2r2-multicrop"``*: two large and six small crops, all of them queries.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> import torch
        >>> module = S2R2(loss=AveragePrecisionLoss("binned"))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "s2r2",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = AllViews(hidden_dim=2048),
        similarity: Similarity = Cosine(),
        loss: Loss = AveragePrecisionLoss("smooth", temperature=0.01),
        *,
        optimizer: OptimizerCallable = partial(Lars, lr=0.3, momentum=0.9, weight_decay=1e-6),
        schedule: Schedule = WarmupCosine(0.1),
        base_batch_size: int | None = 256,
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
            **settings,
        )
