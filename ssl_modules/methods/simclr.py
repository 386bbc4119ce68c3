"""SimCLR: two views of an image should be closer to each other than to any view of another image.

Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
arXiv 2002.05709. Eq. 1, for unit vectors z and the positive p(a) of anchor a among 2N views:

    loss = mean over a of  -log( exp(<z_a, z_p(a)> / T) / sum_{b != a} exp(<z_a, z_b> / T) )
"""

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import InfoNCE, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class SimCLR(ContrastiveModule):
    """SimCLR, with two or more views.

    Views are crops with flip, colour jitter, grayscale and, from 64 pixels on, blur. The projector has one hidden
    layer. All views are anchors and candidates.

    The recipe is the paper's for ImageNet (appendix B.6), with a smaller encoder: ResNet-18 instead of ResNet-50. With
    more than two views, ``InfoNCE(mode="out")`` takes the mean over all pairs of views of an image, and ``mode="in"``
    sums an anchor's positives inside the logarithm; for two views they are equal.

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
        >>> module = SimCLR(loss=InfoNCE(temperature=0.2), image_size=40)
        >>> module(torch.rand(2, 3, 40, 40)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "simclr",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = AllViews(),
        similarity: Similarity = Cosine(),
        loss: Loss = InfoNCE(temperature=0.1),
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
