"""Fine-tuning: supervised training of an encoder and a linear classifier on its representation."""

import copy
import math
import warnings
from typing import Any, Literal, Self

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from ssl_modules.augmentations import Augmentation, RandomHorizontalFlip, RandomResizedCrop, Views, not_an_augmentation
from ssl_modules.batch import Batch, read_batch
from ssl_modules.encoders import Encoder
from ssl_modules.encoders.pooling import of_clips, pool
from ssl_modules.evaluation import mean_average_precision
from ssl_modules.last_batch import check_last_batch
from ssl_modules.losses.base import full_precision
from ssl_modules.optim import Schedule, WarmupCosine, build_optimizer, check_optimizer, param_groups
from ssl_modules.optim.resumed import keep_options, options
from ssl_modules.optim.tuning import Tunable
from ssl_modules.utils.checks import check_instance, check_number
from ssl_modules.utils.configurable import Configurable, storable
from ssl_modules.utils.distributed import rank
from ssl_modules.utils.finite import FiniteLoss
from ssl_modules.utils.lightning import prunes
from ssl_modules.utils.memory import keep_freed_memory
from ssl_modules.utils.pixels import read_bounds
from ssl_modules.utils.plain_checkpoint import PlainModule
from ssl_modules.utils.seeds import derive_generator
from ssl_modules.utils.strategies import check_strategy

TargetType = Literal["single", "hierarchical", "multilabel"]


class FineTuning(FiniteLoss, Tunable, PlainModule, Configurable, pl.LightningModule):
    """Supervised training of an encoder with a linear classifier, or of the classifier alone.

    ``module(images)`` returns the scores ``[N, num_classes]`` of raw pixels, uint8 or float in [0, 1]. The loss is the
    cross-entropy; for multi-label targets, the binary cross-entropy of each class. The module logs ``train/loss``,
    ``val/loss`` and ``test/loss``. It also logs ``val/top1``, ``val/top5``, ``test/top1`` and ``test/top5``; for
    multi-label targets, ``val/map`` and ``test/map``, see :func:`~ssl_modules.evaluation.mean_average_precision`. Only
    training images are augmented. To train on few labels, give a loader of that subset. With several processes,
    Lightning's samplers repeat some images so that all processes have the same number; these images count twice.
    For videos of several clips, training uses the first clip, and evaluation uses the mean of the probabilities of all
    clips.

    SimCLR's recipe for 1 % or 10 % of ImageNet's labels (Chen et al. 2020, arXiv 2002.05709, appendix B.5) is SGD with
    Nesterov momentum 0.9 and a learning rate of 0.05 per 256 images, without weight decay or warm-up, for 60 or 30
    epochs. For a linear classifier on CIFAR-10 (``freeze=True``), the code of SimCLR's authors uses a learning rate of
    0.1 per 256 images, batches of 512 and 100 epochs. :data:`ssl_modules.evaluation.SGD_RECIPES` holds the recipes of
    other methods for linear classifiers.

    Args:
        encoder: the pretrained encoder: ``Encoder("resnet50", ..., pretrained=True)``, ``load_encoder(path)`` or a
            method's ``encoder``. It is copied, so that several runs can start from it; the copy is not compiled.
        num_classes: number of classes, at least 2; for hierarchical targets, that of ``level``.
        target_type: type of targets, as in a data module: "single" for ``[N]``, "hierarchical" for ``[N, levels]``,
            "multilabel" for ``[N, num_classes]`` of 0 and 1.
        level: the column of hierarchical targets to learn; 0 is the finest.
        augmentation: makes one view of a training image; None = random resized crop to the encoder's ``image_size``,
            and horizontal flip.
        freeze: whether to train only the classifier; the encoder then always stays in evaluation mode.
        optimizer: function from parameter groups to an optimiser, such as
            ``functools.partial(torch.optim.SGD, lr=0.1)``. Its learning rate is that of the classifier.
        backbone_lr_scale: the encoder's learning rate divided by that of the classifier, positive.
        schedule: schedule of the learning rate over the run.
        seed: seed of the augmentation.

    Raises:
        TypeError: if the encoder is not an :class:`~ssl_modules.encoders.Encoder`, or the optimiser can't be called.
        ValueError: if an argument is out of range, or targets do not have the ``target_type``.

    Example:
        >>> from functools import partial
        >>> encoder = Encoder("resnet18", image_size=32, in_channels=3)
        >>> module = FineTuning(encoder, num_classes=10, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
        >>> module(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 10])
    """

    accepts_uint8 = True
    replaceable = ("optimizer", "schedule")

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        target_type: TargetType = "single",
        level: int = 0,
        augmentation: Augmentation | None = None,
        freeze: bool = False,
        optimizer: OptimizerCallable,
        backbone_lr_scale: float = 1.0,
        schedule: Schedule = WarmupCosine(warmup=0.0),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(storable(self.arguments))
        check_instance("encoder", encoder, Encoder, "give Encoder(name, ...), load_encoder(path) or a method's encoder")
        check_number("num_classes", num_classes, least=2)
        check_number(
            "backbone_lr_scale", backbone_lr_scale, above=0, fix="to keep the encoder as it is, give freeze=True"
        )
        check_instance("schedule", schedule, Schedule, "give one such as WarmupCosine(warmup=0.1)")
        check_optimizer(optimizer)
        self.encoder = copy.deepcopy(encoder)
        self.head = nn.Linear(encoder.out_channels[-1], num_classes)
        if augmentation is None:
            augmentation = Views([RandomResizedCrop(encoder.image_size), RandomHorizontalFlip()], views=1)
        if not isinstance(augmentation, Augmentation):
            raise not_an_augmentation(augmentation, encoder.image_size)
        if len(augmentation.sizes) != 1:
            raise ValueError(
                f"augmentation: fine-tuning takes one view of an image, got {len(augmentation.sizes)}; make one"
            )
        augmentation.check_channels(encoder.in_channels)
        encoder.shapes_of(augmentation.sizes[0] or encoder.image_size)
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.target_type = target_type
        self.level = level
        self.freeze_encoder = freeze
        self.optimizer = optimizer
        self.backbone_lr_scale = backbone_lr_scale
        self.schedule = copy.deepcopy(schedule)
        self.seed = seed
        self.metrics: Any = nn.ModuleDict({stage: self._metrics(stage) for stage in ("val", "test")})
        if freeze:
            self.encoder.requires_grad_(False)
            warnings.filterwarnings("ignore", ".* in eval mode at the start of training")  # intended
        self.train()

    def _metrics(self, stage: str) -> MetricCollection:
        if self.target_type == "multilabel":
            return MetricCollection({"map": _MeanAveragePrecision(self.num_classes)}, prefix=f"{stage}/")
        return MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(self.num_classes, top_k=min(k, self.num_classes), average="micro")
                for k in (1, 5)
            },
            prefix=f"{stage}/",
            compute_groups=False,  # torchmetrics would merge the two if their states were equal after the first batch
        )

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen encoder always stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    @property
    def backbone(self) -> Encoder:
        """The encoder, under the name that Lightning's ``BackboneFinetuning`` reads."""
        return self.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores ``[N, num_classes]`` of raw pixels ``[N, ch, ...]``, uint8 or float in [0, 1].

        For videos ``[N, k, ch, T, H, W]``, scores are the logarithms of the mean probabilities of the k clips.
        """
        if self.encoder.spatial_dims != 3 or images.ndim != 6:
            return self.head(pool(self.encoder(images)))
        scores = full_precision(of_clips(self.forward, images))  # [N, k, classes]
        if self.target_type == "multilabel":
            return scores.sigmoid().mean(1).logit(eps=1e-6)
        return scores.log_softmax(2).logsumexp(1) - math.log(images.shape[1])

    # ---- steps -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch of images, or of one ready-made view of each image, with targets."""
        read = read_batch(batch, self.encoder.in_channels)
        generator = derive_generator(self.seed, "finetuning", self.current_epoch, batch_idx, rank(), device=read.device)
        images = read.images
        if images is not None and images.ndim == 6:
            images = images[:, 0]  # one clip is enough, because clips are sampled at random
        views = self.augmentation(images, generator) if read.views is None else read.views
        if len(views) != 1:
            raise ValueError(f"augmentation: fine-tuning takes one view of an image, got {len(views)}; make one")
        loss = self._loss(self(views[0]), self._targets(read))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(read))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Any) -> None:
        read = read_batch(batch, self.encoder.in_channels)
        if read.images is None:
            raise ValueError("batch: evaluation takes images, but the loader gives views")
        scores, targets = self(read.images), self._targets(read)
        self.log(f"{stage}/loss", self._loss(scores, targets), batch_size=len(read), sync_dist=True)
        metrics = self.metrics[stage]
        # torchmetrics would decide batch by batch whether they are probabilities already.
        metrics.update(scores.double().sigmoid() if self.target_type == "multilabel" else scores, targets.long())
        self.log_dict(metrics, batch_size=len(read))

    def _loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        scores = full_precision(scores)
        if self.target_type == "multilabel":
            return F.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))
        return F.cross_entropy(scores, targets)

    def _targets(self, batch: Batch) -> Tensor:
        """Return the checked targets of a batch: classes ``[N]``, or ``[N, num_classes]`` of 0 and 1."""
        targets = batch.targets
        if targets is None:
            raise ValueError("targets: got none; fine-tuning needs a loader of (images, targets)")
        several = self.target_type == "multilabel"
        shapes = {
            "single": targets.ndim == 1,
            "hierarchical": targets.ndim == 2 and -targets.shape[1] <= self.level < targets.shape[1],
            "multilabel": targets.ndim == 2 and targets.shape[1] == self.num_classes,
        }
        if not shapes[self.target_type] or len(targets) != len(batch) or (targets.is_floating_point() and not several):
            raise ValueError(
                f"targets: {targets.dtype} {list(targets.shape)} of {len(batch)} images don't fit target_type="
                f"{self.target_type!r}, level={self.level} and num_classes={self.num_classes}; give what the data has"
            )
        if self.target_type == "hierarchical":
            targets = targets[:, self.level]
        most = 1 if several else self.num_classes - 1
        low, high = read_bounds(targets, self) or (0, most)
        if not (low >= 0 and high <= most):  # negated, so that NaN fails too
            fix = "leave out unlabelled images"
            if low >= 0 and high > most and not several:
                fix = f"give num_classes={int(high) + 1}, or number the classes from 0"
            raise ValueError(
                f"targets: go from {low} to {high}, but num_classes={self.num_classes} and target_type="
                f"{self.target_type!r} allow 0 to {most}; {fix}"
            )
        return targets

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            check_strategy(self)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if prunes(self.trainer):
            self.to(memory_format=torch.contiguous_format)  # activations stay channels-last
        if self.device.type == "cpu":
            keep_freed_memory()

    def on_train_start(self) -> None:
        classes = getattr(self.trainer.datamodule, "num_classes", None)  # type: ignore[attr-defined]
        if self.target_type == "single" and isinstance(classes, int) and classes > self.num_classes:
            raise ValueError(
                f"num_classes: expected at least the {classes} classes of the data, got {self.num_classes}; give "
                f"num_classes={classes}"
            )
        check_last_batch(self, _rehearse)
        if self._configured is not None:
            keep_options(self.trainer, self._configured)

    # ---- optimisation ----------------------------------------------------------------------------------------------

    def param_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters of classifier and encoder, those of biases and norms apart and without weight decay.

        A group's learning rate is ``lr_scale`` times the optimiser's.
        """
        scales = ((self.head, 1.0), (self.encoder, self.backbone_lr_scale))
        return [{**group, "lr_scale": scale} for part, scale in scales for group in param_groups([part])]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        built = build_optimizer(self.optimizer, self.param_groups(), self.schedule, self.trainer)
        self._configured = options(built["optimizer"])
        return built


def _rehearse(module: FineTuning, images: int) -> None:
    encoder = module.encoder
    if encoder.spatial_dims == 2:
        size = module.augmentation.sizes[0] or encoder.image_size
        module(torch.zeros(images, encoder.in_channels, size, size, dtype=torch.uint8, device=module.device))


class _MeanAveragePrecision(MultilabelAveragePrecision):
    """Leaves out a class that no image has, as the protocols do; torchmetrics counts it as 0. NaN without any."""

    def compute(self) -> Tensor:  # type: ignore[override]
        scores, targets = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        value = mean_average_precision(scores, targets) if targets.any() else torch.nan
        return torch.tensor(value, device=self.device)
