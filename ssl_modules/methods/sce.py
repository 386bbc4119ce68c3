"""SCE: a query is close to its image's key, and to other keys as the teacher finds them close to that.

Denize, Rabarisoa, Orcesi, Herault, Canu: Similarity Contrastive Estimation for Self-Supervised Soft Contrastive
Learning, arXiv 2111.14585. For unit vectors, the query q of a strong view, the teacher's key k of a weak one, and a
queue of K earlier keys k_j:

    loss = mean of  - w log softmax(<q, k> / T, <q, k_j> / T)_0  -  (1 - w) sum_j t_j log softmax(...)_j
    t    = softmax over j of <k, k_j> / T_teacher
"""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.extractions import Extraction, Queue
from ssl_modules.losses import Loss, SCELoss
from ssl_modules.module import ContrastiveModule
from ssl_modules.similarities import Cosine, Similarity
from ssl_modules.teacher import Schedule


class SCE(ContrastiveModule):
    """SCE.

    | aspect       | default                                                                                  |
    |--------------|------------------------------------------------------------------------------------------|
    | augmentation | the authors' policy at 32 or 96 px: a weak view for the teacher, a strong one              |
    | encoder      | ResNet-18, and its average over the past, the teacher                                     |
    | extraction   | a projector of one hidden layer to 128 numbers; a queue of 4,096 keys                     |
    | similarity   | cosine                                                                                   |
    | loss         | SCE, temperatures 0.1 and 0.05 (teacher), half of the weight on the positive               |

    The recipe is the authors' for 200 epochs of CIFAR-10: SGD, learning rate 0.06 per 256 images, momentum 0.9, weight
    decay 5e-4 (not on biases and norms, unlike their code), 2.5 % warm-up, cosine; the teacher's momentum is 0.99. The
    batch norms of their teacher see a batch in eight shuffled parts: ``batch_norm_splits=8`` does so to both networks.

    For ImageNet, whose policy at 224 px has two strong views, they take ``Queue(hidden_dim=2048, out_dim=256, layers=3,
    batch_norm=True, size=65536, symmetric=True, reference=True, predictor_dim=4096)``, a teacher's temperature of 0.07,
    LARS, and a momentum from 0.99 to 1.

    Args:
        augmentation: None = "sce-<image_size>".
        encoder: a timm name or a module.
        extraction: None = ``Queue(batch_norm=True, size=4096, reference=True)``.
        similarity: None = :class:`~ssl_modules.similarities.Cosine`.
        loss: None = :class:`~ssl_modules.losses.SCELoss`.
        image_size: side of a view, pixels.
        in_channels: number of image channels.
        mean: per channel, of pixels in [0, 1]; None = the pretrained weights' own, else 0.
        std: per channel; None = the pretrained weights' own, else 1.
        small_stem: whether a ResNet gets the stem for small images; None = up to 64 pixels.
        pretrained: whether timm loads its pretrained weights.
        channels_last: whether the encoder's maps have their channels last in memory, which convolutions are faster
            with; None = for timm's and torchvision's convolutional networks, and AMDIM's.
        compile: whether the encoder is compiled by ``torch.compile``, at its first batch.
        batch_norm_splits: number of parts of a batch, each with statistics of its own in the encoder's batch norms, as
            if on so many devices; None = the whole batch.
        optimizer: parameter groups to optimiser; None = the recipe above.
        reference_batch_size: images per step that the optimiser's learning rate is given for; None = it is taken as
            it is, and with ``optimizer=None`` 256.
        warmup: share of all optimiser steps spent in linear warm-up, in [0, 1].
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.
        momentum: of the teacher's average, in [0, 1].
        momentum_schedule: "constant", or "cosine" to 1 over the run.

    Raises:
        ValueError: see :class:`~ssl_modules.module.ContrastiveModule`.

    Example:
        >>> module = SCE(loss=SCELoss(teacher_temperature=0.07))
        >>> module(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        augmentation: str | Augmentation | None = None,
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction | None = None,
        similarity: Similarity | None = None,
        loss: Loss | None = None,
        *,
        image_size: int = 32,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        small_stem: bool | None = None,
        pretrained: bool = False,
        channels_last: bool | None = None,
        compile: bool = False,
        batch_norm_splits: int | None = None,
        optimizer: OptimizerCallable | None = None,
        reference_batch_size: int | None = None,
        warmup: float = 0.025,
        anchor_block: int | None = None,
        momentum: float = 0.99,
        momentum_schedule: Schedule = "constant",
    ) -> None:
        if optimizer is None:
            optimizer = partial(torch.optim.SGD, lr=0.06, momentum=0.9, weight_decay=5e-4)
            reference_batch_size = 256 if reference_batch_size is None else reference_batch_size
        super().__init__(
            augmentation="sce" if augmentation is None else augmentation,
            encoder=encoder,
            extraction=Queue(batch_norm=True, size=4096, reference=True) if extraction is None else extraction,
            similarity=Cosine() if similarity is None else similarity,
            loss=SCELoss() if loss is None else loss,
            image_size=image_size,
            in_channels=in_channels,
            mean=mean,
            std=std,
            small_stem=small_stem,
            pretrained=pretrained,
            channels_last=channels_last,
            compile=compile,
            batch_norm_splits=batch_norm_splits,
            optimizer=optimizer,
            reference_batch_size=reference_batch_size,
            warmup=warmup,
            anchor_block=anchor_block,
            momentum=momentum,
            momentum_schedule=momentum_schedule,
        )
