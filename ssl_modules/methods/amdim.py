"""AMDIM: global and local features of one view predict local features of the image's other view.

Bachman, Hjelm, Buchwalter: Learning Representations by Maximizing Mutual Information Across Views, arXiv 1906.00910.
For a source vector a_i of each image in one view, a target map b_jl of each image with locations l in the other, and
u = <a_i, b_jl> / sqrt(D), softly clipped to s = c tanh(u / c):

    loss(a, b) = mean over i, l of  -log( exp(s_iil) / (exp(s_iil) + sum over j != i, m of exp(s_ijm)) )
                 + 0.05 mean over i, j, l of u_ijl^2

The objective is the sum over three pairs of maps, each averaged over both directions: from the 1 x 1 map to the 5 x 5
map, from 1 x 1 to 7 x 7, and from one random location of 5 x 5 to 5 x 5.
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


class AMDIM(ContrastiveModule):
    """AMDIM.

    The two views share one flip; shift or crop, colour jitter and grayscale are drawn separately. The encoder is the
    authors' network without padding, of width 128; "amdim" fits certain sizes, such as 8, 16, 28, 32, 48, 64, 96, 128
    and 224 pixels. The deepest map is compared with the two maps before it. A random location of the map before the
    deepest is compared with all locations of that map. For any other encoder, the deepest map also has a head with a
    norm, which keeps scores of order 1.

    The recipe is the authors' for 300 epochs of CIFAR-10: the learning rate drops after 250 and 280 epochs.

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
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in the official code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> module = AMDIM(loss=InfoNCE(clip=10.0, l2=0.05))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "amdim",
        encoder: str | nn.Module = "amdim",
        extraction: Extraction = LocalMaps("multi-pair"),
        similarity: Similarity = ScaledDot(),
        loss: Loss = InfoNCE(clip=20.0, l2=0.05),
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
