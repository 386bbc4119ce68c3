"""SupCon, supervised contrastive learning: the views of all images of a class attract each other.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan: Supervised Contrastive Learning, NeurIPS 2020,
arXiv 2004.11362, eq. 2. z are the unit vectors of 2N views. The positives P(a) of anchor a are the other view of its
image and all views of other images with the same label:

    loss = mean over a of mean over p in P(a) of  -log( exp(<z_a, z_p> / T) / sum_{b != a} exp(<z_a, z_b> / T) )
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import AllViews, Extraction
from ssl_modules.losses import Loss, SupConLoss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import EpochCosine, Schedule
from ssl_modules.similarities import Cosine, Similarity


class SupCon(ContrastiveModule):
    """SupCon. It needs targets ``[N]``, the class of each image.

    Views are crops with flip, colour jitter and grayscale. The projector has one hidden layer and no batch norm. A
    label of -1 means that the class is unknown. The only positives are then the other views of the image.
    ``SupConLoss(mode="in")`` is the second loss of the paper.

    The recipe is that of the official code for CIFAR-10, which trains a ResNet-50 for 1,000 epochs in batches of 1,024.
    As in that code, the loss is multiplied by its temperature divided by 0.07.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector and the number of label levels.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        decay_norms: whether biases and norms have weight decay.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Raises:
        ValueError: in a step, if the loader gives no labels, or more than one level of labels.

    Example:
        >>> module = SupCon(loss=SupConLoss(temperature=0.1, mode="in"))
        >>> images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, -1])
        >>> module.training_step((images, labels), 0)["features"].shape
        torch.Size([4, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "supcon",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = AllViews(batch_norm=False, label_levels=1),
        similarity: Similarity = Cosine(),
        loss: Loss = SupConLoss(temperature=0.1, base_temperature=0.07),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=1e-4),
        schedule: Schedule = EpochCosine(0.01, start=0.02, floor=0.001),
        base_batch_size: int | None = 1024,
        decay_norms: bool = True,
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
            **settings,
        )
