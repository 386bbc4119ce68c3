"""The one training step of all methods: a method is a choice for each of its five aspects.

    views     = augmentation(images)                          aspect 1
    maps      = encoder(views)                                aspect 2
    contrasts = extraction(heads(maps), teacher's, ids)       aspect 3
    loss      = objective(contrasts, similarity, loss)        aspects 4 and 5

After Falcon and Cho: A Framework For Contrastive Self-Supervised Learning And Designing A New Approach,
arXiv 2009.00104.
"""

from collections.abc import Sequence, Sized
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import Lars
from torch import Tensor, nn

from ssl_modules.augmentations import Augmentation, JointViews, policy
from ssl_modules.augmentations.foreign import not_an_augmentation
from ssl_modules.batch import Batch, last_batch_size, read_batch
from ssl_modules.contrast import Contrast
from ssl_modules.encoders import Encoder
from ssl_modules.encoders.export import save_weights
from ssl_modules.encoders.pooling import pool
from ssl_modules.extractions import Extraction
from ssl_modules.losses import Loss
from ssl_modules.objective import chance_level, objective, ranking
from ssl_modules.optim import Schedule, WarmupCosine, param_groups, scheduled
from ssl_modules.rehearsal import rehearse
from ssl_modules.similarities import Similarity
from ssl_modules.teacher import Teacher
from ssl_modules.utils.checks import check_instance, check_number
from ssl_modules.utils.configurable import Configurable, class_path, described, storable
from ssl_modules.utils.distributed import gather_objects, rank, world_size
from ssl_modules.utils.lightning import attached_trainer, restore_loader_states
from ssl_modules.utils.memory import keep_freed_memory
from ssl_modules.utils.plain_checkpoint import STATE, PlainCheckpoint, check_version
from ssl_modules.utils.seeds import derive_generator, global_random_state, set_global_random_state
from ssl_modules.version import __version__

_Kind = TypeVar("_Kind")

_SCREEN = 24  # lines of an augmentation that are printed in full
_ROWS = 2**20  # ids leave room for this many images per batch and process


class Embedded(NamedTuple):
    """What encoder and heads make of the views of a batch.

    Args:
        features: ``[N, D]``, the representation of the student's first view, with gradient.
        student: embeddings of the student's views, as the extraction's heads give them, with gradient.
        teacher: embeddings of the teacher's views, without gradient; None without a teacher.
    """

    features: Tensor
    student: list[Any]
    teacher: list[Any] | None


class ContrastiveModule(PlainCheckpoint, Configurable, pl.LightningModule):
    """Contrastive self-supervised learning as a choice for each of five aspects.

    ``module(images)`` is the representation ``[N, D]`` of raw pixels, uint8 or float in [0, 1]: the mean of the
    encoder's deepest map, which is a map of patches where the augmentation cuts them. Training takes ``images``,
    ``(images, ...)`` or ``(views, ...)`` from any loader and makes the views itself, on the device; it logs
    ``train/loss`` beside ``train/chance``, its value if all candidates scored alike. Validation and test log the loss
    and ``contrast_top1``, the share of anchors whose best candidate is a positive, and ``contrast_ap``, the average
    precision of an anchor's positives among its candidates. On a processor a fit keeps freed memory, see
    :func:`~ssl_modules.utils.memory.keep_freed_memory`.

    A subclass may override :meth:`views`, :meth:`contrasts`, :meth:`objective` and :meth:`extra_loss`. Modules copy
    their augmentation, extraction, similarity, loss and schedule, so that one object can serve several modules.

    Args:
        augmentation: aspect 1, ``(images [N, ch, H, W], generator) -> list of views``, or the name of a policy, see
            :func:`~ssl_modules.augmentations.policy`.
        encoder: aspect 2, a name or a module; see :class:`~ssl_modules.encoders.Encoder`.
        extraction: aspect 3, maps of all views to contrasts; it holds the options of a teacher.
        similarity: aspect 4, ``(x [A, D], y [C, D]) -> [A, C]``.
        loss: aspect 5, ``(scores [A, C], relation [A, C], reference scores | None) -> scalar``.
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
            if on so many devices; see :class:`~ssl_modules.encoders.SplitBatchNorm2d`. None = the whole batch.
        optimizer: parameter groups to optimiser, such as ``functools.partial(torch.optim.SGD, lr=0.1)``.
        schedule: of the learning rate over the run.
        base_batch_size: images per optimiser step, over all processes, that the learning rate is given for; it is
            scaled in proportion to the actual number. None = the learning rate is taken as it is.
        anchor_block: anchors per block of the loss; None = chosen from the size, 0 = never in blocks.

    Raises:
        TypeError: if an aspect is of another kind.
        ValueError: if an aspect doesn't fit the others, or an argument is outside its range.

    Example:
        A method of one's own is one call:

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
        optimizer: OptimizerCallable,
        schedule: Schedule = WarmupCosine(warmup=0.1),
        base_batch_size: int | None = None,
        anchor_block: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(storable(self.arguments))
        if base_batch_size is not None:
            check_number("base_batch_size", base_batch_size, least=1)
        if not callable(optimizer) or isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                "optimizer: expected a function of parameter groups, such as partial(torch.optim.AdamW, lr=1e-3), "
                f"got {optimizer!r}"
            )
        self.augmentation = _augmentation(augmentation, image_size, in_channels)
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
        self.extraction = _own("extraction", extraction, Extraction)
        if self.extraction.heads is not None:
            raise ValueError(
                f"extraction: this {type(extraction).__name__} belongs to another module; give each module a new one"
            )
        sizes = self.augmentation.sizes
        self.extraction.build(self.encoder.out_channels, sizes, self.encoder.normalised)
        self.extraction.student_views(len(sizes))  # raises where it can't do with so many
        self.teacher = self._build_teacher(compile) if self.extraction.teacher_views(len(sizes)) else None
        # DDP reads this attribute from the module it wraps: buffers that it must not broadcast.
        kept = getattr(self.extraction, "_ddp_params_and_buffers_to_ignore", ())
        self._ddp_params_and_buffers_to_ignore = [f"extraction.{name}" for name in kept]
        self.similarity = _own("similarity", similarity, Similarity)
        self.loss = _own("loss", loss, Loss)
        self.optimizer = optimizer
        self.schedule = _own("schedule", schedule, Schedule)
        self.base_batch_size = base_batch_size
        self.anchor_block = anchor_block
        self.seed = 0
        self._resumed = False
        self._random_state: dict[str, Tensor] | None = None
        rehearse(self)

    def _build_teacher(self, compile: bool) -> Teacher:
        extraction = self.extraction
        if extraction.momentum is None:
            raise ValueError(
                f"momentum: {type(extraction).__name__} compares with a teacher; give it the momentum of the teacher's "
                "average, such as 0.99"
            )
        teacher = Teacher(self.encoder, extraction.heads, extraction.momentum, extraction.momentum_schedule)
        if compile:  # a copy is not
            teacher.encoder.compile_backbone()
        return teacher

    def __repr__(self) -> str:
        """The five aspects and the recipe, a line each; ``print(module.encoder)`` shows the network."""
        size, parameters = self.encoder.image_size, sum(p.numel() for p in self.encoder.parameters())
        augmentation, optimizer = repr(self.augmentation), repr(self.optimizer)
        if augmentation.count("\n") > _SCREEN and isinstance(self.augmentation, JointViews):
            augmentation = "\n  ".join(["JointViews of", *map(described, self.augmentation.parts)])
        if isinstance(self.optimizer, partial) and isinstance(self.optimizer.func, type):
            arguments = ", ".join(f"{name}={value!r}" for name, value in self.optimizer.keywords.items())
            optimizer = f"{self.optimizer.func.__name__}({arguments})"
        lines = {
            "augmentation": augmentation,
            "encoder": f"{self.encoder.name}, {parameters:,} parameters, {self.encoder.in_channels} x {size} x {size}",
            "extraction": self.extraction,
            "similarity": self.similarity,
            "loss": self.loss,
            "optimizer": optimizer,
            "schedule": self.schedule,
            "base_batch_size": self.base_batch_size,
        }
        body = "".join(f"  {name}: {value}\n".replace("\n", "\n  ").rstrip(" ") for name, value in lines.items())
        return f"{type(self).__name__}(\n{body})"

    # ---- the five aspects ------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """The representation ``[N, D]`` of raw pixels ``[N, ch, ...]``, uint8 or float in [0, 1]."""
        return pool(self.encoder(images))

    def encode(self, views: Sequence[Tensor], encoder: nn.Module | None = None) -> list[tuple[Tensor, ...]]:
        """The maps of each view by the encoder, or the teacher's; views of one size go through together.

        Axes between the batch and the channels, a grid of patches, go into the batch and come back as the axes of a
        map: a view ``[N, rows, cols, ch, h, w]`` gives maps ``[N, C, rows, cols]``.
        """
        encoder = self.encoder if encoder is None else encoder
        maps: list[tuple[Tensor, ...]] = [()] * len(views)
        by_size: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
        for i, view in enumerate(views):
            by_size.setdefault((view.shape[1:], view.dtype), []).append(i)
        for same in by_size.values():
            images = torch.cat([views[i] for i in same])  # [B, grid..., ch, h, w]
            grid = images.shape[1 : images.ndim - self.encoder.spatial_dims - 1]
            outputs = encoder(images.flatten(0, len(grid)))
            if grid:
                outputs = tuple(_grid_map(m, (len(images), *grid)) for m in outputs)
            per_view = zip(*(m.split([len(views[i]) for i in same]) for m in outputs), strict=True)
            for i, view_maps in zip(same, per_view, strict=True):
                maps[i] = view_maps
        return maps

    def views(self, batch: Batch, generator: torch.Generator) -> list[Tensor]:
        """The views of a batch, each ``[N, ch, h, w]``: the loader's where it gives views, else the augmentation's."""
        if batch.views is not None:
            return batch.views
        with torch.autocast(batch.device.type, enabled=False):
            return self.augmentation(batch.images, generator)

    def embed(self, views: Sequence[Tensor]) -> Embedded:
        """The views through encoder and heads of the student and, where the extraction wants it, of the teacher."""
        maps = self.encode([views[i] for i in self.extraction.student_views(len(views))])
        student = [self.extraction.heads(m) for m in maps]
        return Embedded(pool(maps[0]), student, self._teacher_embeddings(views))

    @torch.no_grad()
    def _teacher_embeddings(self, views: Sequence[Tensor]) -> list[Any] | None:
        if self.teacher is None:
            return None
        wanted = [views[i] for i in self.extraction.teacher_views(len(views))]
        return [self.teacher.heads(m) for m in self.encode(wanted, self.teacher.encoder)]

    def contrasts(self, batch: Batch, embedded: Embedded, generator: torch.Generator) -> list[Contrast]:
        """The contrasts of a batch, by the extraction."""
        return self.extraction(embedded.student, embedded.teacher, self._ids(batch), generator)

    def objective(self, contrasts: Sequence[Contrast]) -> Tensor:
        """The scalar loss of the contrasts, by similarity and loss."""
        return objective(contrasts, self.similarity, self.loss, self.anchor_block)

    def extra_loss(self, batch: Batch, features: Tensor, embeddings: list[Any]) -> Tensor | None:
        """A term of one's own, which is added to the training loss; its gradient reaches encoder and heads.

        Args:
            batch: images or views, targets and index, as the loader gives them.
            features: ``[N, D]``, the representation of the student's first view.
            embeddings: of the student's views, as the extraction's heads give them.

        Returns:
            Scalar, or None for no such term.
        """
        return None

    def _ids(self, batch: Batch) -> Tensor:
        """Ids ``[N, levels]``: one that no other image of any step or process has, then labels if ranks read them."""
        trainer = attached_trainer(self)
        step = trainer.fit_loop.total_batch_idx if trainer is not None and trainer.training else 0
        first = (step * world_size() + rank()) * _ROWS
        own = first + torch.arange(len(batch), device=batch.device)[:, None]
        labels = self.extraction.levels - 1
        return torch.cat([own, batch.labels(labels)], dim=1) if labels else own

    # ---- steps -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """One step on a batch, which may be all that :func:`~ssl_modules.batch.read_batch` reads.

        Returns:
            ``{"loss": scalar, "features": [N, D] without gradient}``; a subclass may return a bare loss.
        """
        self._restore_random_state()
        images = read_batch(batch)
        generator = self._generator(images, "train", self.current_epoch, batch_idx)
        embedded = self.embed(self.views(images, generator))
        contrasts = self.contrasts(images, embedded, generator)
        loss = self.objective(contrasts)
        extra = self.extra_loss(images, embedded.features, embedded.student)
        if extra is not None:
            self.log("train/extra_loss", extra, batch_size=len(images))
            loss = loss + extra
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images))
        self.log("train/chance", chance_level(contrasts, self.loss), prog_bar=True, batch_size=len(images))
        return {"loss": loss, "features": embedded.features.detach()}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test", batch, batch_idx)

    def _evaluate(self, stage: str, batch: Any, batch_idx: int) -> None:
        images = read_batch(batch)
        if len(images) * world_size() < self.loss.least_images:  # what a loader may leave for last
            if batch_idx == 0:
                rank_zero_warn(
                    f"{stage}: the first batch has {len(images)} images and is left out, as {type(self.loss).__name__} "
                    f"compares {self.loss.least_images} or more; use a larger batch size or part"
                )
            return
        # The same views at every epoch, so that epochs compare.
        generator = self._generator(images, stage, 0, batch_idx)
        contrasts = self.contrasts(images, self.embed(self.views(images, generator)), generator)
        values = {f"{stage}/loss": self.objective(contrasts)}
        for name, value in ranking(contrasts, self.similarity).items():
            if not value.isnan():  # as it is without negatives
                values[f"{stage}/contrast_{name}"] = value
        self.log_dict(values, batch_size=len(images), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Any]:
        """The representation of the images of a batch, and their index where the loader gives one."""
        images = read_batch(batch)
        if images.images is None:
            raise TypeError("batch: prediction takes images, but the loader gives views")
        return self(images.images), images.index

    def on_after_backward(self) -> None:
        self.extraction.after_step()

    # ---- randomness ------------------------------------------------------------------------------------------------

    def _generator(self, batch: Batch, stage: str, epoch: int, batch_idx: int) -> torch.Generator:
        seed = self.seed if stage == "train" else 0
        return derive_generator(seed, stage, epoch, batch_idx, rank(), device=batch.device)

    def on_fit_start(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()
        if not self._resumed:
            self.seed = self.trainer.strategy.broadcast(int(torch.randint(2**62, ())))
        self._resumed = False  # a later fit is another run

    def on_train_start(self) -> None:
        # Lightning had to set the training loader up for the schedule's length, before it knew where a resumed run's
        # loader stood, and doesn't come back to it.
        restore_loader_states(self.trainer)
        dataset = getattr(self.trainer.train_dataloader, "dataset", None)
        if isinstance(dataset, Sized):
            self.extraction.begin(len(dataset))
        self._check_last_batch(self.trainer.train_dataloader)

    def _check_last_batch(self, loader: Any) -> None:
        """Raises for what would end the run after an epoch: a last batch with fewer images than the loss compares."""
        size = last_batch_size(loader, self.trainer.num_training_batches)
        # A single image is refused by those extractions alone that compare a batch's images with each other.
        if size is not None and Loss.least_images < self.loss.least_images > size * world_size():
            raise ValueError(
                f"batch: the last one of an epoch has {size * world_size()} images, but {type(self.loss).__name__} "
                f"compares {self.loss.least_images} or more; pass drop_last=True to the training loader"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # An aspect that was replaced since, and what a subclass saved with save_hyperparameters() of its own.
        stored = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        for name in ("augmentation", "extraction", "similarity", "loss"):
            if name in stored and not isinstance(stored[name], str):
                stored[name] = getattr(self, name)
        if stored:
            checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = storable(stored)
        # Dropout draws from the global state, which differs between processes.
        checkpoint[STATE] = {
            "version": __version__,
            "class": class_path(type(self)),
            "seed": self.seed,
            "random_state": gather_objects(global_random_state(self.device)),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_version(checkpoint)
        trainer = attached_trainer(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING and STATE in checkpoint:
            self._resumed = True
            self.seed = checkpoint[STATE]["seed"]
            states = checkpoint[STATE]["random_state"]
            self._random_state = states[rank()] if rank() < len(states) else None

    def _restore_random_state(self) -> None:
        """At the first step after a checkpoint; what Lightning does between loading and this step draws as well."""
        if self._random_state is not None:
            set_global_random_state(self._random_state)
            self._random_state = None

    # ---- optimisation ----------------------------------------------------------------------------------------------

    def param_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters, those of biases and norms apart and without weight decay."""
        return param_groups([self])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.param_groups())
        if isinstance(optimizer, Lars) and not any(
            g["weight_decay"] or g["always_adapt"] for g in optimizer.param_groups
        ):
            rank_zero_warn("optimizer: timm's Lars adapts no group whose weight_decay is 0, so this is plain SGD")
        if self.base_batch_size is not None:
            batch_size = self._global_batch_size()
            rate = optimizer.param_groups[0]["lr"]
            for group in optimizer.param_groups:
                group["lr"] *= batch_size / self.base_batch_size
            scaled = optimizer.param_groups[0]["lr"]
            rank_zero_info(f"learning rate {scaled:g} = {rate:g} x {batch_size} / {self.base_batch_size}")
        return scheduled(optimizer, self.trainer.estimated_stepping_batches, self.schedule)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """The optimiser's step, and then the teacher's, which comes also where mixed precision skips the former."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.teacher is not None:
            steps = self.trainer.estimated_stepping_batches
            if self.teacher.schedule == "cosine" and not 0 < steps < float("inf"):  # -1 for a loader without a length
                raise ValueError(
                    'momentum_schedule: "cosine" needs an end; set Trainer(max_epochs=...), or max_steps for a loader '
                    'without a length, or take "constant"'
                )
            self.teacher.update(self.encoder, self.extraction.heads, self.trainer.global_step, steps)

    def _global_batch_size(self) -> int:
        """Images per optimiser step, over all processes."""
        self.trainer.fit_loop.setup_data()
        batch_size = getattr(self.trainer.train_dataloader, "batch_size", None)
        if batch_size is None:
            raise ValueError(
                "base_batch_size: the training loader has no batch_size to scale the learning rate by; give the final "
                "learning rate and base_batch_size=None"
            )
        return batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    # ---- export ----------------------------------------------------------------------------------------------------

    def export_encoder(self, path: str | Path | None = None) -> dict[str, Tensor]:
        """The backbone's own state dict, which the plain timm or torchvision model without classifier loads.

        A model that was given the stem for small images (see ``small_stem``; the metadata say so) loads into one that
        :func:`~ssl_modules.encoders.shrink_stem` gave it too. :func:`~ssl_modules.encoders.load_encoder` makes an
        encoder of ours of the file.

        Args:
            path: where to write it as well, with architecture, image size, mean and std as metadata: a file ending
                in ``.safetensors``, or in ``.pt`` as ``{"state_dict": ..., "metadata": ...}``. None = nowhere.

        Returns:
            Names to tensors, copied to the CPU.

        Raises:
            ValueError: for another file ending.
        """
        weights, metadata = self.encoder.export()
        if path is not None:
            save_weights(Path(path), weights, metadata)
        return weights


def _own(name: str, value: Any, kind: type[_Kind]) -> _Kind:
    """A copy of an aspect for this module alone."""
    check_instance(name, value, kind)
    return deepcopy(value)


def _augmentation(augmentation: str | Augmentation, image_size: int, in_channels: int) -> Augmentation:
    if isinstance(augmentation, str):
        augmentation = policy(augmentation, image_size, in_channels)
    if not isinstance(augmentation, Augmentation):
        raise not_an_augmentation(augmentation, image_size)
    augmentation = _own("augmentation", augmentation, Augmentation)
    augmentation.check_channels(in_channels)
    if not hasattr(augmentation, "sizes"):
        raise TypeError(
            f"augmentation: {type(augmentation).__name__} has no sizes; set it to the sizes of its views in pixels, "
            f"such as sizes = ({image_size}, {image_size}), None for one of the images' own size"
        )
    sizes = {size for size in augmentation.sizes if size is not None}
    if sizes and image_size not in sizes:
        raise ValueError(
            f"augmentation: makes views of {sorted(sizes)} pixels, but image_size={image_size}; give both the same size"
        )
    return augmentation


def _grid_map(m: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Vectors of patches ``[N rows cols, C, 1, 1]`` as a map ``[N, C, rows, cols]``."""
    if m.flatten(2).shape[2] != 1:
        raise ValueError(
            f"encoder: gives a map of {list(m.shape[2:])} per patch where one vector is needed; pool it, or have "
            "the augmentation cut the patches, which the encoder then pools"
        )
    return m.flatten(1).unflatten(0, grid).movedim(-1, 1)
