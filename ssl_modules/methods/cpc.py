"""CPC v2: the vector of a patch is predicted from the patches above it.

van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748; Henaff et al.:
Data-Efficient Image Recognition with Contrastive Predictive Coding, ICML 2020, arXiv 1905.09272. For the vectors z of a
grid of patches, their targets t = V z, the context c_rk of the patches in rows up to r around column k, a linear
predictor W_d for each distance d, and s_d(t) = 0.1 <W_d c_rk, t>:

    loss = sum over d of mean over r, k of  -log( exp(s_d(t_r+d,k)) / sum over t of exp(s_d(t)) )

where the last sum is over the targets of all patches of all images of the batch.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, PatchContext
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Constant, Schedule
from ssl_modules.similarities import Dot, Similarity


class CPC(ContrastiveModule):
    """CPC v2.

    The single view has a flip, a shift or crop, colour jitter and grayscale. It is cut into 7 x 7 overlapping patches.
    The encoder, a ResNet with layer norm and a wide third stage, encodes each patch separately; "cpc" has layers (3, 4,
    6, 3), the paper's network (3, 4, 46, 3). The representation of an image is the mean over its patches. Batch norm
    would let patches see each other through its statistics; layer norm doesn't.

    A context network of masked convolutions predicts the patches 2 to 6 rows below. To predict in all four directions,
    use ``PatchContext(directions=("down", "up", "right", "left"))``.

    The recipe is that of lightning-bolts for CIFAR-10, with one change: biases and norms have no weight decay.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the context network.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> from ssl_modules.augmentations import CPCViews
        >>> from ssl_modules.encoders import CPCEncoder
        >>> encoder = CPCEncoder(image_size=8, layers=(1, 1, 1, 1), width=16)
        >>> module = CPC(CPCViews(32, patches=(8, 4), shift=4, per_patch=True), encoder)
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "cpc",
        encoder: str | nn.Module = "cpc",
        extraction: Extraction = PatchContext(),
        similarity: Similarity = Dot(),
        loss: Loss = InfoNCE(),
        *,
        optimizer: OptimizerCallable = partial(
            torch.optim.Adam, lr=4e-5, betas=(0.8, 0.999), weight_decay=1e-5, eps=1e-7
        ),
        schedule: Schedule = Constant(),
        base_batch_size: int | None = None,
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
