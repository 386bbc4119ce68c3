"""SimSiam: the encoder predicts its own embedding of another view of an image, without negatives or a teacher.

Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566, eq. 1 to 4. p_v is the
prediction from view v, and z_v is the embedding of view v, which has no gradient:

    loss = mean of  -1/2 cos(p_1, z_2) - 1/2 cos(p_2, z_1)
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders.views import ViewStatistics
from ssl_modules.extractions import Extraction, Predictor
from ssl_modules.losses import Alignment, Loss
from ssl_modules.module import ContrastiveModule
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Cosine, Similarity


class SimSiam(ContrastiveModule):
    """SimSiam, which needs neither negatives nor a teacher.

    The views are those of MoCo v2: crops with flip, colour jitter, grayscale and, from 64 pixels on, blur. The
    projector has three linear layers and ends in a batch norm. The predictor has a hidden layer that is narrower than
    its input and output. Encoder and projector run once per view. Their outputs are both the inputs of the predictor
    and its targets. The value of the loss is that of the paper plus 1.

    The recipe is that of the paper for 100 epochs of ImageNet, with a smaller encoder: ResNet-18 instead of ResNet-50.
    With a ResNet-50, the projector has a hidden width of 2,048. The official command keeps the learning rate of the
    predictor constant (``--fix-pred-lr``). Here, the predictor has the same schedule as all other layers.
    ``Predictor(momentum=None, stop_gradient=False)`` shows the collapse that the paper explains.

    Args:
        augmentation: the name of a policy, or an augmentation.
        encoder: a name, or a module.
        extraction: module that computes anchors, candidates and their relations from the maps of all views. It includes
            projector and predictor.
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
        >>> module = SimSiam(extraction=Predictor(None, 512, 128, layers=3, output_norm=True, momentum=None))
        >>> module.teacher is None, module(torch.rand(2, 3, 32, 32)).shape
        (True, torch.Size([2, 512]))
    """

    def __init__(
        self,
        augmentation: str | Augmentation = "simsiam",
        encoder: str | nn.Module = "resnet18",
        extraction: Extraction = Predictor(
            hidden_dim=None,
            out_dim=2048,
            predictor_dim=512,
            layers=3,
            output_norm=True,
            momentum=None,
            stop_gradient=True,
        ),
        similarity: Similarity = Cosine(),
        loss: Loss = Alignment(scale=0.25),
        *,
        optimizer: OptimizerCallable = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4),
        schedule: Schedule = WarmupCosine(0, per="epoch"),
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
