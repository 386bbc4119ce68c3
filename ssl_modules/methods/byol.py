"""BYOL: the student predicts the teacher's embedding of an image's other view, without negatives.

Grill et al.: Bootstrap Your Own Latent, NeurIPS 2020, arXiv 2006.07733, eq. 2. For the prediction p of one view and the
teacher's embedding t of the other, for both assignments of the views:

    loss = mean of  (2 - 2 cos(p_1, t_2)) + (2 - 2 cos(p_2, t_1))
"""

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, Predictor
from ssl_modules.losses import Alignment, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class BYOL(ContrastiveModule):
    """BYOL.

    The two views are drawn differently: crop, flip, colour jitter, grayscale, blur from 64 pixels on, solarisation.
    Projector and predictor have one hidden layer. The teacher's momentum is an argument of the extraction.

    The recipe is the paper's for 1,000 epochs of ImageNet, with a smaller encoder: ResNet-18 instead of ResNet-50.
    Short runs need a lower momentum, 0.99.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            projector, predictor and the teacher's momentum.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in the official code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> import torch
        >>> module = BYOL(extraction=Predictor(hidden_dim=1024, predictor_dim=1024, momentum=0.99))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "byol",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Predictor(momentum=0.996, momentum_schedule="cosine"),
        similarity: Similarity = Cosine(),
        loss: Loss = Alignment(),
        *,
        optimizer: OptimizerCallable = partial(Lars, lr=0.2, momentum=0.9, weight_decay=1.5e-6),
        schedule: Schedule = WarmupCosine(0.01),
        base_batch_size: int | None = 256,
        view_statistics: ViewStatistics = "each",
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
            view_statistics=view_statistics,
            **settings,
        )
