"""ReSSL: a strong view should be as similar to earlier images as the teacher finds a weak view of the same image.

Zheng, You, Wang, Qian, Zhang, Wang, Xu: ReSSL: Relational Self-Supervised Learning with Weak Augmentation, NeurIPS
2021, arXiv 2107.09282. For unit vectors, the query q of the strong view, the teacher's key k of the weak view, and a
queue of K earlier keys k_j:

    loss = mean of  - sum_j t_j log softmax_j(<q, k_j> / T),   t = softmax_j(<k, k_j> / T_teacher)

The image's own key is in neither softmax.
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
    """ReSSL.

    The teacher sees a weak view, a crop and a flip. The student sees a strong one, which also has colour jitter,
    grayscale and, from 64 pixels on, blur; with the policy "ressl-multicrop", it sees five. The projector has one
    hidden layer and no batch norm. Compared with :class:`SCE`, the target contains no positive.

    The recipe is the official code's for 200 epochs of ImageNet, with a smaller encoder: ResNet-18 instead of
    ResNet-50. A queue much larger than the data set contains the anchors' own earlier keys; at 32 pixels, 4,096 keys
    are common. The teacher should be sharper than the student: its temperature is ``target_temperature``.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: makes contrasts of all views' maps; includes the projector, the queue and the teacher's
            momentum.
        similarity: computes the scores of anchors and candidates.
        loss: maps scores and relations to a scalar.
        optimizer: function of parameter groups that returns an optimiser.
        schedule: schedule of the learning rate over the run.
        base_batch_size: images per step for which the learning rate is given; None = no scaling.
        view_statistics: "each": batch norms normalise each view alone, as in the official code; "joint": together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`: image_size, in_channels, mean, std, ...

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
