"""The training step that all methods share; a method is a choice for each of five aspects.

    views     = augmentation(images)                          aspect 1
    maps      = encoder(views)                                aspect 2
    contrasts = extraction(heads(maps), teacher's, ids)       aspect 3
    loss      = objective(contrasts, similarity, loss)        aspects 4 and 5

After Falcon and Cho: A Framework For Contrastive Self-Supervised Learning And Designing A New Approach,
arXiv 2009.00104.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_modules.augmentations import Augmentation
from ssl_modules.augmentations.build import build_augmentation
from ssl_modules.batch import Batch, read_batch
from ssl_modules.contrast import Contrast
from ssl_modules.encoders import Encoder
from ssl_modules.encoders.export import export_encoder
from ssl_modules.encoders.pooling import pool, represent
from ssl_modules.encoders.views import ViewStatistics, encode, over_views
from ssl_modules.extractions import Extraction
from ssl_modules.extractions.build import build_extraction
from ssl_modules.hooks import TrainerHooks
from ssl_modules.losses import Loss
from ssl_modules.micro_batch import check_micro_batch, in_parts, recomputed_in_parts
from ssl_modules.objective import chance_level, objective
from ssl_modules.optim import Schedule, WarmupCosine, check_optimizer
from ssl_modules.plan import Embedded, ViewPlan
from ssl_modules.rehearsal import rehearse
from ssl_modules.similarities import Similarity
from ssl_modules.summary import summary
from ssl_modules.teacher import build_teacher
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.configurable import Configurable, copy_of, storable
from ssl_modules.utils.lightning import attached_trainer
from ssl_modules.utils.plain_checkpoint import PlainModule


class ContrastiveModule(TrainerHooks, PlainModule, Configurable, pl.LightningModule):
    """Contrastive self-supervised learning as a choice for each of five aspects.

    ``module(images)`` returns the representation ``[N, D]`` of raw pixels, uint8 or float in [0, 1]: the mean of the
    encoder's deepest map. If the augmentation cuts patches, that map is a grid of patches. Training takes ``images``,
    ``(images, ...)``, ``([view1, view2, ...], ...)``, or a mapping such as ``{"image": images}`` from any loader;
    :func:`~ssl_modules.batch.fields` lists the keys. Training makes the views on the device. It logs ``train/loss``,
    and ``train/chance``, the loss if all candidates had the same score. Validation and test log the loss,
    ``contrast_top1``, the share of anchors whose best candidate is a positive, and ``contrast_ap``, the average
    precision of an anchor's positives among its candidates. On a CPU, fitting keeps freed memory, see
    :func:`~ssl_modules.utils.memory.keep_freed_memory`.

    A subclass may override :meth:`views`, :meth:`contrasts`, :meth:`objective` and :meth:`extra_loss`. A module copies
    its augmentation, extraction, similarity, loss and schedule, so that several modules can share one object.

    Args:
        augmentation: aspect 1, ``(images [N, ch, H, W], generator) -> list of views``, or the name of a policy, see
            :func:`~ssl_modules.augmentations.policy`.
        encoder: aspect 2, a name or a module; see :class:`~ssl_modules.encoders.Encoder`.
        extraction: aspect 3, maps of all views to contrasts; it holds the teacher's options.
        similarity: aspect 4, ``(x [A, D], y [C, D]) -> [A, C]``.
        loss: aspect 5, ``(scores [A, C], relation [A, C], reference scores | None) -> scalar``.
        image_size: side of a view, pixels.
        in_channels: number of image channels.
        mean: mean of each channel, for pixels in [0, 1]. None = the mean of the pretrained weights, or 0 without them.
        std: standard deviation of each channel. None = that of the pretrained weights, or 1 without them.
        small_stem: whether a ResNet gets the stem for small images. None = True for images up to 64 pixels, unless the
            weights are pretrained.
        pretrained: whether to load pretrained weights of timm or torchvision.
        channels_last: whether the encoder uses the channels-last memory format, which speeds up convolutions. None =
            True for the convolutional image networks of timm and torchvision, for "amdim" and for "r3d_small".
        compile: whether to compile the encoder by ``torch.compile``, at its first batch.
        batch_norm_splits: number of parts of a batch that the encoder's batch norms normalise separately, as if each
            were on its own device; see :class:`~ssl_modules.encoders.SplitBatchNorm2d`. None = the whole batch.
        teacher_batch_norm_splits: number of parts for the batch norms of the teacher's encoder; None = as
            ``batch_norm_splits``.
        view_statistics: "joint" passes all views of one size together through encoder, heads and predictor, so that
            batch norms normalise them together; "each" passes one view after the other, so that batch norms normalise
            each view alone. ``batch_norm_splits`` splits the images of one pass.
        optimizer: function of parameter groups that returns an optimiser, such as
            ``functools.partial(torch.optim.SGD, lr=0.1)``.
        schedule: schedule of the learning rate over the run.
        base_batch_size: images per optimiser step, over all processes, for which the learning rate is given; the rate
            is scaled linearly to the actual number. None = no scaling.
        decay_norms: whether biases and norms have the same weight decay as all other weights; False = none.
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = no blocks.
        micro_batch: number of images that encoder and heads process at a time, for batches that don't fit in memory;
            2 or more, and a multiple of ``batch_norm_splits``. None = the whole batch. The backward pass computes
            the activations again. Batch norms normalise each part separately. The loss compares the whole batch.

    Raises:
        TypeError: if an aspect has the wrong type.
        ValueError: if an aspect doesn't fit the others, or an argument is outside its range.

    Example:
        A custom method is one call:

        >>> from functools import partial
        >>> from ssl_modules.extractions import AllViews
        >>> from ssl_modules.losses import InfoNCE
        >>> from ssl_modules.similarities import ScaledDot
        >>> module = ContrastiveModule(
        ...     "simclr", "resnet18", AllViews(out_dim=64), ScaledDot(), InfoNCE(mode="in"),
        ...     optimizer=partial(torch.optim.AdamW, lr=1e-3),
        ... )
        >>> module(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 512])
    """

    accepts_uint8 = True
    replaceable = ("augmentation", "extraction", "similarity", "loss", "optimizer", "schedule", "base_batch_size")

    def __init__(
        self,
        augmentation: str | Augmentation,
        encoder: str | nn.Module,
        extraction: Extraction,
        similarity: Similarity,
        loss: Loss,
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
        teacher_batch_norm_splits: int | None = None,
        view_statistics: ViewStatistics = "joint",
        optimizer: OptimizerCallable,
        schedule: Schedule = WarmupCosine(0.1),
        base_batch_size: int | None = None,
        decay_norms: bool = False,
        anchor_block: int | None = None,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(storable(self.arguments))
        check_optimizer(optimizer)
        check_number("image_size", image_size, least=1)
        check_number("in_channels", in_channels, least=1)
        if base_batch_size is not None:
            check_number("base_batch_size", base_batch_size, least=1)
        if anchor_block is not None:
            check_number("anchor_block", anchor_block, least=0)
        self.augmentation = build_augmentation(augmentation, image_size, in_channels)
        self.encoder = Encoder(
            encoder,
            image_size=image_size,
            in_channels=in_channels,
            mean=mean,
            std=std,
            small_stem=small_stem,
            pretrained=pretrained,
            channels_last=channels_last,
            compile=compile,
            patches=self.augmentation.patches,
            batch_norm_splits=batch_norm_splits,
        )
        self.extraction = build_extraction(extraction, self.encoder, self.augmentation.sizes, view_statistics)
        self.view_statistics = view_statistics
        patches = self.augmentation.patches is not None
        self.plan = ViewPlan(self.augmentation.sizes, self.extraction, self.encoder.spatial_dims, patches)
        self.teacher = None
        if self.plan.teacher:
            self.teacher = build_teacher(self.encoder, self.extraction, compile, teacher_batch_norm_splits)
        elif teacher_batch_norm_splits is not None:
            raise ValueError(
                f"teacher_batch_norm_splits: got {teacher_batch_norm_splits}, but {type(extraction).__name__} has no "
                "teacher; pass None, or batch_norm_splits for the encoder"
            )
        if micro_batch is not None:
            check_micro_batch(
                micro_batch,
                batch_norm_splits=batch_norm_splits,
                teacher_batch_norm_splits=teacher_batch_norm_splits,
            )
        # DDP reads this attribute of the module; it must not broadcast these buffers.
        self._ddp_params_and_buffers_to_ignore = [f"extraction.{name}" for name in self.extraction.replicated_buffers]
        self.similarity = copy_of("similarity", similarity, Similarity, "give an object, such as Cosine()")
        self.loss = copy_of("loss", loss, Loss, "give an object, such as InfoNCE(), or a subclass of Loss")
        self.optimizer = optimizer
        self.schedule = copy_of("schedule", schedule, Schedule, "give an object, such as WarmupCosine() or Constant()")
        self.base_batch_size = base_batch_size
        self.decay_norms = decay_norms
        self.anchor_block = anchor_block
        self.micro_batch = micro_batch
        rehearse(self)

    def __repr__(self) -> str:
        """Return the five aspects and the recipe, one line each. ``print(module.encoder)`` shows the network."""
        return summary(self)

    # ---- the five aspects ------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Return the representation ``[N, D]`` of raw pixels ``[N, ch, ...]``, uint8 or float in [0, 1].

        For videos ``[N, k, ch, T, H, W]`` and an encoder of clips, it is the mean over the k clips.
        """
        return represent(self.encoder, images)

    def views(self, batch: Batch, generator: torch.Generator) -> list[Tensor]:
        """Return the views of a batch, each ``[N, ch, h, w]``, from the loader or else from the augmentation."""
        if batch.views is not None:
            return batch.views
        with torch.autocast(batch.device.type, enabled=False):
            return self.augmentation(batch.images, generator)

    def embed(self, views: Sequence[Tensor]) -> Embedded:
        """Embed the views with the student's encoder and heads and, if there is a teacher, with the teacher's."""
        self.plan.check(views)

        def student(view: Tensor) -> tuple[Tensor, Any]:
            maps = encode(self.encoder, view, self.encoder.spatial_dims)
            return pool(maps), self.extraction.heads(maps)

        networks = self.encoder, self.extraction.heads
        apply = partial(over_views, student, statistics=self.view_statistics)
        outputs = recomputed_in_parts(apply, networks, [views[i] for i in self.plan.student], self.micro_batch)
        features, embeddings = zip(*outputs, strict=True)
        teacher = None
        if self.teacher is not None:
            apply = partial(over_views, self.teacher, statistics=self.view_statistics)
            teacher = in_parts(apply, [views[i] for i in self.plan.teacher], self.micro_batch)
        return Embedded(features[0], list(embeddings), teacher)

    def contrasts(self, batch: Batch, embedded: Embedded, generator: torch.Generator) -> list[Contrast]:
        """Return the contrasts that the extraction makes of a batch."""
        trainer = attached_trainer(self)
        step = trainer.fit_loop.total_batch_idx if trainer is not None and trainer.training else 0
        in_training = trainer is None or trainer.training  # in other parts of the data, the same row is another video
        ids = batch.ids(step, self.extraction.levels, by_index=self.extraction.recurring_ids and in_training)
        return self.extraction(embedded.student, embedded.teacher, ids, generator)

    def objective(self, contrasts: Sequence[Contrast]) -> Tensor:
        """Return the scalar loss of the contrasts, computed by similarity and loss."""
        return objective(contrasts, self.similarity, self.loss, self.anchor_block)

    def extra_loss(self, batch: Batch, features: Tensor, embeddings: list[Any]) -> Tensor | None:
        """Return a custom term, which is added to the training loss. Its gradient reaches encoder and heads.

        Args:
            batch: images or views, targets and index from the loader.
            features: ``[N, D]``, the representation of the student's first view.
            embeddings: embeddings of the student's views, as returned by the extraction's heads.

        Returns:
            Scalar, or None for no extra term.
        """
        return None

    # ---- steps -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Compute the loss of any batch that :func:`~ssl_modules.batch.read_batch` accepts.

        Returns:
            ``{"loss": scalar, "features": [N, D] without gradient}``; a subclass may return a bare loss.
        """
        images = read_batch(batch, self.encoder.in_channels)
        generator = self.generator("train", batch_idx, images.device)
        embedded = self.embed(self.views(images, generator))
        extra = self.extra_loss(images, embedded.features, embedded.student)
        contrasts = self.contrasts(images, embedded, generator)
        loss = self.objective(contrasts)
        self.log("train/chance", chance_level(contrasts, self.loss), batch_size=len(images))
        if extra is not None:
            self.log("train/extra_loss", extra, batch_size=len(images))
            loss = loss + extra
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        self.log_epoch_loss(loss, len(images))
        return {"loss": loss, "features": embedded.features.detach()}

    def export_encoder(self, path: str | Path | None = None, *, frames: int | None = None) -> dict[str, Tensor]:
        """Return the backbone's weights, and write them to ``path`` if it is given.

        See :func:`~ssl_modules.encoders.export.export_encoder`.
        """
        return export_encoder(self.encoder, path, frames=frames)
