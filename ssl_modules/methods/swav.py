"""SwAV: each view predicts the prototypes to which another view of its image is assigned.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments, NeurIPS 2020, arXiv 2006.09882, eq. 2 and 5. z_v are the unit vectors of V views, and p_k are K prototypes.
Q_i are the assignments of the first G views. Sinkhorn's algorithm spreads them evenly over the prototypes:

    loss = mean over i < G, over v != i, and over images of  - sum_k Q_ik log softmax_k(<z_v, p_k> / T)
"""

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from timm.optim import Lars
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, Prototypes
from ssl_modules.losses import AssignmentLoss, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Dot, Similarity


class SwAV(ContrastiveModule):
    """SwAV, with or without multi-crop, and with or without a queue.

    There are two large and six small views. Large views are assigned to prototypes. Each view predicts the assignments
    of the image's large views, except its own. Views have a flip, colour jitter, grayscale and, from 64 pixels on,
    blur. The augmentation "simclr" makes two large views only. The projector has one hidden layer. Prototypes and queue
    are arguments of the extraction.

    The recipe is that of the official code for 200 epochs of ImageNet in batches of 256, with a smaller encoder:
    ResNet-18 instead of ResNet-50. For batches of 4,096, the official code uses no queue, a learning rate of 4.8 and 10
    epochs of warm-up. Linear scaling of the learning rate 0.6 would give 9.6.

    The number of prototypes should be smaller than the number of embeddings in a step and in the queue together. If the
    loss stays at ``train/chance``, which is log K, all views have the same assignment. Then try one of these changes:

    - a smaller ``epsilon``, such as 0.03
    - prototypes that are frozen for more steps
    - fewer prototypes
    - hard assignments, ``SwAV(loss=InfoNCE(0.1))``

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector, the prototypes and the queue.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        decay_norms: whether biases and norms have weight decay.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> import torch
        >>> module = SwAV("simclr", extraction=Prototypes(prototypes=300, epsilon=0.03))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "swav",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Prototypes(queue=3840, queue_after=0.075, frozen_steps=0.005),
        similarity: Similarity = Dot(),
        loss: Loss = AssignmentLoss(temperature=0.1),
        *,
        optimizer: OptimizerCallable = partial(Lars, lr=0.6, momentum=0.9, weight_decay=1e-6),
        schedule: Schedule = WarmupCosine(0, floor=0.001),
        base_batch_size: int | None = 256,
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
