"""SCE: a query should be close to its image's key, and to other keys as far as the teacher finds them similar to it.

Denize, Rabarisoa, Orcesi, Herault, Canu: Similarity Contrastive Estimation for Self-Supervised Soft Contrastive
Learning, arXiv 2111.14585. For unit vectors, the query q of a strong view, the teacher's key k of a weak one, and a
queue of K earlier keys k_j:

    loss = mean of  - w log softmax(<q, k> / T, <q, k_j> / T)_0  -  (1 - w) sum_j t_j log softmax(...)_j
    t    = softmax over j of <k, k_j> / T_teacher
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, Queue
from ssl_modules.losses import Loss, SCELoss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class SCE(ContrastiveModule):
    """SCE.

    Below 128 pixels, the teacher's view is weak, with crop and flip, and the student's view is strong. From 128 pixels
    on, both views are strong. The projector has one hidden layer. The reference of the loss is the key of the anchor's
    own image.

    The recipe is the authors' for 200 epochs of CIFAR-10. In their code, the teacher's batch norms normalise eight
    shuffled parts of a batch separately; ``teacher_batch_norm_splits=8`` does this.

    For ImageNet they use ``Queue(hidden_dim=2048, out_dim=256, layers=3, batch_norm=True, output_norm=True, size=65536,
    symmetric=True, reference=True, predictor_dim=4096, momentum=0.99, momentum_schedule="cosine-endpoint")``,
    a teacher temperature of 0.07, and LARS with ``decay_norms=False``. Their loss is
    ``SCELoss(..., positive_target="zero")``.

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
        decay_norms: whether biases and norms have weight decay.
        view_statistics: views that batch norms normalise together. "each" = each view alone, as in the official code.
            "joint" = all views of one size together.
        settings: other arguments of :class:`~ssl_modules.ContrastiveModule`, such as image_size, in_channels and mean.

    Example:
        >>> module = SCE(loss=SCELoss(positive_weight=0.3))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "sce",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Queue(batch_norm=True, size=4096, reference=True, momentum=0.99),
        similarity: Similarity = Cosine(),
        loss: Loss = SCELoss(temperature=0.1, teacher_temperature=0.05),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.06, momentum=0.9, weight_decay=5e-4),
        schedule: Schedule = WarmupCosine(0.025, "s/(W-1)"),
        base_batch_size: int | None = 256,
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
