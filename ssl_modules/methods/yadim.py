"""YADIM, a reconstruction: compares the deepest map of one view with that of the image's other view.

Falcon, Cho: A Framework For Contrastive Self-Supervised Learning And Designing A New Approach, arXiv 2009.00104. Its
code was never published: this is a reconstruction from the paper's abstract and the authors' code base. For a vector
a_i of each image in one view (at a random location if the map has several), the map b_jl of each image in the other,
and u = <a_i, b_jl> / sqrt(D), softly clipped to s = c tanh(u / c):

    loss(a, b) = mean over i, l of  -log( exp(s_iil) / (exp(s_iil) + sum over j != i, m of exp(s_ijm)) )
                 + 0.05 mean over i, j, l of u_ijl^2

and the objective is the mean of the two directions.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, LocalMaps
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import MultiStep, Schedule
from ssl_modules.similarities import ScaledDot, Similarity


class YADIM(ContrastiveModule):
    """YADIM, a reconstruction from the paper's abstract and the authors' code base.

    The views are AMDIM's; ``YADIMViews(..., patches=(8, 4))`` cuts them into CPC's patches, which the encoder encodes
    separately. The deepest map is compared with the deepest map of the other view. Other strategies are
    ``LocalMaps("multi-pair")``, ``LocalMaps("same-map")`` and ``LocalMaps("random")``.

    The recipe is AMDIM's.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the heads.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        decay_norms: whether biases and norms have weight decay.
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in AMDIM's code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> module = YADIM(extraction=LocalMaps("same-map", out_dim=128))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "yadim",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = LocalMaps("last", out_dim=512),
        similarity: Similarity = ScaledDot(),
        loss: Loss = InfoNCE(clip=10.0, l2=0.05),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.Adam, lr=2e-4, betas=(0.8, 0.999), weight_decay=1e-5),
        schedule: Schedule = MultiStep((5 / 6, 14 / 15), gamma=0.2, warmup=500, ramp="(s+1)/W"),
        base_batch_size: int | None = None,
        decay_norms: bool = True,
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
            decay_norms=decay_norms,
            view_statistics=view_statistics,
            **settings,
        )
