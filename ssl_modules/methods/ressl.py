"""ReSSL: the student learns to give a strong view the similarities that the teacher gives a weak view.

The similarities are those to earlier images in a queue. Zheng, You, Wang, Qian, Zhang, Wang, Xu: ReSSL: Relational
Self-Supervised Learning with Weak Augmentation, NeurIPS 2021, arXiv 2107.09282. q is the student's query of the strong
view, k is the teacher's key of the weak view, and k_j are the K earlier keys in the queue, all unit vectors:

    loss = mean of  - sum_j t_j log softmax_j(<q, k_j> / T),   t = softmax_j(<k, k_j> / T_teacher)

Neither softmax contains the image's own key.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, Queue
from ssl_modules.losses import AssignmentLoss, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class ReSSL(ContrastiveModule):
    """ReSSL, which compares similarities to earlier images instead of the two views themselves.

    The teacher encodes a weak view, with crop and flip. The student encodes a strong view, which also has colour
    jitter, grayscale and, from 64 pixels on, blur. With the policy "ressl-multicrop", the student encodes five strong
    views. The projector has one hidden layer and no batch norm. Unlike in :class:`SCE`, the target does not include the
    positive.

    The recipe is that of the official code for 200 epochs of ImageNet, with a smaller encoder: ResNet-18 instead of
    ResNet-50. If the queue is at least as large as the data set, it contains earlier keys of the anchor's own image. At
    32 pixels, 4,096 keys are common. The ``target_temperature`` of the loss is the temperature of the teacher. It
    should be lower than the ``temperature`` of the student.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            the projector, the queue and the teacher's momentum.
        similarity: function that computes the scores of anchors and candidates.
        loss: function from scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: number of images per step for which the learning rate is given. None = no scaling.
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in the official code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> module = ReSSL(extraction=Queue(size=4096, reference=True, momentum=0.99))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "ressl",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Queue(hidden_dim=4096, out_dim=512, size=131072, reference=True, momentum=0.999),
        similarity: Similarity = Cosine(),
        loss: Loss = AssignmentLoss(temperature=0.1, target_temperature=0.04, candidates="negatives"),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4),
        schedule: Schedule = WarmupCosine(0.025),
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
