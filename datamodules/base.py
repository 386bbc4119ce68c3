"""The base class of all data modules: facts about a data set, its parts, and their loaders."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ssl_modules.datamodules.batches import BatchedFiles, BatchedImages, keep_batch
from ssl_modules.datamodules.conversion import WhiteLevel
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.loader import ResumableDataLoader, available_workers
from ssl_modules.datamodules.sampler import EpochSampler
from ssl_modules.datamodules.targets import TargetType, check_targets, target_shape
from ssl_modules.utils.checks import check_number, check_numbers
from ssl_modules.utils.configurable import Configurable, storable
from ssl_modules.utils.plain_checkpoint import PlainCheckpoint
from ssl_modules.utils.seeds import derive_generator

TrainSplit = Literal["train", "unlabeled", "train+unlabeled"]  # for data sets with unlabelled images


class BaseDataModule(PlainCheckpoint, Configurable, LightningDataModule, ABC):
    """Base class of all data modules: a subclass states facts about its data set and loads its parts.

    Batches are ``(images, targets)``, or ``(images, targets, index)`` with ``return_index``: images are uint8
    [N, C, H, W], not augmented; index holds their rows in the part that the loader reads. Validation and test images
    have the size ``dims``. Training images may be larger if the augmentation crops them. If workers make the views, a
    training batch holds a list of views instead (see :class:`~ssl_modules.datamodules.ImageFiles`).

    The parts are the official ones. With ``val_size=0`` there is no validation part: :meth:`val_dataloader` returns no
    loader, and no validation loop runs. The test part is never used instead.

    Only the training loader shuffles, drops the last incomplete batch, and resumes in the middle of an epoch. With
    several processes, each reads its own share. If the validation or test part does not divide evenly, its first images
    are read twice. Row ``i`` of the part is item ``i // processes`` of process ``i % processes``.

    To add a data set, subclass this class: set the facts below as class attributes, override :meth:`load`, and
    ``prepare_data`` if it can be downloaded. Override :meth:`pretraining_part` as well if probes and module train on
    different images. Set facts that depend on arguments in the constructor, before it calls ``super().__init__``.

    Args:
        batch_size: images per batch and process (device).
        val_size: number of labelled training images to set aside as a validation part, drawn by ``seed``.
        seed: seed of the order of the training images, of the validation part, and of all other random choices.
        num_workers: worker processes that read images from files; None for one per core, at most 8. Images in memory
            need none.
        return_index: whether batches also hold the row of each image.

    Raises:
        ValueError: if an argument is out of range, or the facts contradict each other.

    Attributes:
        name: name of the data set, for logs.
        num_classes: number of classes at the finest level; 0 without targets.
        dims: (C, H, W) of validation and test images, or (C, T, H, W) of validation and test clips.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.
        class_names: names of the classes at the finest level; by default those in ``levels``, or "0", "1", ...
        target_type: type of the targets:

            - "single": one class per image, [N].
            - "hierarchical": one class per level, [N, levels], fine to coarse.
            - "multilabel": any number of classes per image, [N, num_classes] of 0 and 1.
            - "none": no targets, [N] of -1.
        levels: for "hierarchical" only: the name of each level with its class names, fine to coarse.
        train_set: images to train on, without the validation part; set by ``setup``.
        labelled_set: labelled training images for probes, without the validation part.
        val_set: validation part, or None.
        test_set: test part, or None.

    Example:
        >>> class Gradients(BaseDataModule):
        ...     name, num_classes, dims, mean, std = "gradients", 2, (1, 8, 8), (0.5,), (0.3,)
        ...
        ...     def load(self):
        ...         rows = (torch.arange(64, dtype=torch.uint8) * 4).view(1, 1, 8, 8)
        ...         return TensorImages(torch.cat([rows, rows.mT]), torch.arange(2)), None
        >>> data = Gradients(batch_size=2)
        >>> data.setup()
        >>> [images.shape for images, targets in data.train_dataloader()]
        [torch.Size([2, 1, 8, 8])]
    """

    name: str
    num_classes: int
    dims: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    target_type: TargetType = "single"
    levels: Mapping[str, tuple[str, ...]] = {}
    white_level: WhiteLevel | None = None  # for images of more than 8 bits that are not in files

    def __init__(
        self,
        *,
        batch_size: int = 256,
        val_size: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        return_index: bool = False,
    ) -> None:
        super().__init__()
        check_number("batch_size", batch_size, least=1)
        check_number("val_size", val_size, least=0)
        num_workers = available_workers() if num_workers is None else num_workers
        check_number("num_workers", num_workers, least=0)
        self._check_facts()
        self.batch_size = self._given_batch_size = batch_size
        self.val_size = val_size
        self.seed = seed
        self.num_workers = num_workers
        self.return_index = return_index
        self.train_set: Dataset | None = None
        self.labelled_set: Dataset | None = None
        self.val_set: Dataset | None = None
        self.test_set: Dataset | None = None
        self._to_predict: Dataset | None = None
        if not val_size:  # an empty list of validation loaders is intended
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in self.arguments.items()}
        self.save_hyperparameters(storable(plain), logger=False)  # image_size would collide with the module's

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the levels of hierarchical targets, fine to coarse; empty for other targets."""
        return tuple(self.levels)

    @property
    def in_channels(self) -> int:
        """Number of channels of every image."""
        return self.dims[0]

    @property
    def image_size(self) -> int:
        """Side length of the square images in pixels.

        Raises:
            ValueError: if the images are not square.
        """
        *_, height, width = self.dims
        if height != width:
            raise ValueError(f"image_size: expected square images, got {height} x {width}; read dims, or crop them")
        return height

    @abstractmethod
    def load(self) -> tuple[Dataset, Dataset | None]:
        """Return the official training part, and the test part or None. ``setup`` calls this method once per process.

        A part is :class:`~ssl_modules.datamodules.TensorImages`, :class:`~ssl_modules.datamodules.ImageFiles`, or any
        map-style data set of ``(image, target)`` (see :class:`~ssl_modules.datamodules.ImageDataModule`).
        """

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """Return the images to train on, with or without targets. ``setup`` calls this method once.

        Args:
            labelled: training part without the validation part; returned by default.
        """
        return labelled

    def setup(self, stage: str | None = None) -> None:
        """Load the parts once, and split off the validation part.

        Args:
            stage: ignored; all stages need the same parts.

        Raises:
            ValueError: if images or targets don't match ``dims``, ``num_classes`` or ``target_type``, or ``val_size``
                leaves no training images.
        """
        if self.train_set is not None:
            return
        train, self.test_set = self.load()
        in_memory = train.dims if isinstance(train, TensorImages) and self._can_resize(train.dims) else self.dims
        for part, dataset in (("train", train), ("test", self.test_set)):
            if isinstance(dataset, TensorImages | ImageFiles):
                self._check_part(part, dataset, in_memory if isinstance(dataset, TensorImages) else self.dims)
        size = len(train)  # type: ignore[arg-type]
        if self.val_size >= size:
            raise ValueError(f"val_size: expected fewer than the {size} training images, got {self.val_size}")
        if self.val_size:
            order = torch.randperm(size, generator=derive_generator(self.seed, "val"))
            val_rows, train_rows = order[: self.val_size].sort().values, order[self.val_size :].sort().values
            self.val_set, train = _rows(train, val_rows), _rows(train, train_rows)
        self.labelled_set, self.train_set = train, self.pretraining_part(train)
        if isinstance(train, TensorImages):  # images in memory need no workers
            warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")

    def teardown(self, stage: str | None = None) -> None:
        """Warn about unreadable files that have not been reported yet.

        Args:
            stage: ignored.
        """
        for dataset in (self.train_set, self.labelled_set, self.val_set, self.test_set, self._to_predict):
            if isinstance(dataset, ImageFiles):
                dataset.report()

    def train_dataloader(self) -> ResumableDataLoader:
        """Loader of the training part, shuffled by (seed, epoch), without the last incomplete batch.

        If ``batch_size`` was changed after construction, as by Lightning's ``BatchSizeFinder``, and exceeds the number
        of images, it is lowered to this number.

        Raises:
            ValueError: if there are too few images for a full batch of the ``batch_size`` given to the constructor.
        """
        loader = self._loader("train", self.train_set, shuffle=True)
        images = len(loader.sampler)  # type: ignore[arg-type]
        if len(loader) > 0:
            return loader
        if images == 0 or self.batch_size == self._given_batch_size:
            raise ValueError(
                f"batch_size: expected at most the {images} training images of each process, got {self.batch_size}, "
                "which leaves no full batch"
            )
        self.batch_size = images
        if "batch_size" in self.hparams:  # BatchSizeFinder reads the batch size from hparams
            self.hparams["batch_size"] = images
        return self._loader("train", self.train_set, shuffle=True)

    def val_dataloader(self) -> ResumableDataLoader | list[ResumableDataLoader]:
        """Loader of the validation part in stored order, or an empty list: Lightning then skips validation."""
        return self._loader("val", self.val_set) if self.val_size else []

    def test_dataloader(self) -> ResumableDataLoader:
        """Loader of the test part in stored order."""
        return self._loader("test", self.test_set)

    def predict_dataloader(self) -> ResumableDataLoader:
        """Loader of the test part in stored order; Lightning splits it between processes and reads no image twice."""
        dataset = self.test_set if self._to_predict is None else self._to_predict
        return self._loader("test", dataset, shared=False)

    def predict_on(self, dataset: Dataset, rows: Tensor) -> None:
        """Select the images that :meth:`predict_dataloader` reads. By default, these are the images of the test part.

        Args:
            dataset: a part, such as ``labelled_set``.
            rows: rows of this part to read, in ascending order. The index in a batch is the position in ``rows``.
        """
        self._to_predict = dataset if len(rows) == len(dataset) else _rows(dataset, rows)  # type: ignore[arg-type]

    def probe_train_dataloader(self) -> ResumableDataLoader:
        """Loader of the images to fit a probe on: the full labelled training part in stored order.

        Raises:
            ValueError: if there are no labels.
        """
        return self._labelled(self._loader("train", self.labelled_set))

    def probe_test_dataloader(self) -> ResumableDataLoader:
        """Loader of the images to test a probe on: the validation part if there is one, else the test part.

        Raises:
            ValueError: if there are no labels, or neither part exists.
        """
        if self.train_set is not None and not self.val_size and self.test_set is None:
            raise ValueError(
                f"val_size: {self.name} has neither a validation nor a test part for a probe; pass val_size=, a number "
                "of training images, or switch the probe off"
            )
        return self._labelled(self._loader("val", self.val_set) if self.val_size else self.test_dataloader())

    def supervised_dataloader(self, rows: Tensor | None = None) -> ResumableDataLoader:
        """Loader of the labelled training part, shuffled by (seed, epoch), including the last incomplete batch.

        Args:
            rows: rows of the labelled training part to train on, such as a few; None for all.

        Raises:
            ValueError: if there are no labels.
        """
        dataset = self.labelled_set if rows is None or self.labelled_set is None else _rows(self.labelled_set, rows)
        return self._labelled(self._loader("train", dataset, shuffle=True, drop_last=False))

    def labelled_targets(self) -> Tensor:
        """Return the targets of the labelled training part. Images are read only if targets are not stored separately.

        Raises:
            ValueError: if there are no labels.
        """
        if isinstance(self.labelled_set, TensorImages | ImageFiles) and self.target_type != "none":
            return self.labelled_set.targets.long()
        return torch.cat([targets for _, targets, *_ in self.probe_train_dataloader()])

    def _loader(
        self,
        part: str,
        dataset: Dataset | None,
        shuffle: bool = False,
        shared: bool = True,
        drop_last: bool | None = None,
    ) -> ResumableDataLoader:
        if self.train_set is None:
            raise RuntimeError(
                f"the {part} part is not loaded; call prepare_data() and setup() first, as a Trainer does"
            )
        if dataset is None:
            instead = ", or evaluate on the validation part: split='val'" if part == "test" and self.val_set else ""
            raise ValueError(f"{part}: {self.name} has no {part} part; pass {part}= to the data module{instead}")
        drop_last = shuffle if drop_last is None else drop_last
        num_workers = 0 if isinstance(dataset, TensorImages) else self.num_workers
        if isinstance(dataset, ImageFiles):
            batched: Any = BatchedFiles(dataset, training=shuffle, seed=self.seed, return_index=self.return_index)
        else:
            dims = dataset.dims if shuffle and isinstance(dataset, TensorImages) else self.dims
            shape = target_shape(self.target_type, self.num_classes, len(self.levels))
            batched = BatchedImages(dataset, dims, shape, self.return_index, self.white_level)
        return ResumableDataLoader(
            batched,
            batch_size=self.batch_size,
            sampler=EpochSampler(batched, shuffle=shuffle, drop_last=drop_last, seed=self.seed) if shared else None,
            drop_last=drop_last,
            num_workers=num_workers,
            # Other data sets may use the worker's random state, which is seeded only when a worker starts.
            persistent_workers=shuffle and num_workers > 0 and isinstance(dataset, ImageFiles),
            collate_fn=keep_batch,
            pin_memory=torch.cuda.is_available() and not isinstance(dataset, TensorImages),
            generator=torch.Generator(),  # without one, the loader draws from the global random state
        )

    def _labelled(self, loader: ResumableDataLoader) -> ResumableDataLoader:
        if self.target_type == "none":
            raise ValueError(f"target_type: {self.name} has no targets, and a probe needs them; use labelled data")
        return loader

    def _can_resize(self, dims: tuple[int, ...]) -> bool:
        """Return whether images of size ``dims`` can be resized to ``self.dims``."""
        (channels, height, width), (own_channels, own_height, own_width) = dims, self.dims
        return channels == own_channels and height == width >= own_height == own_width

    def _check_facts(self) -> None:
        """Fill in missing class names, and raise if the facts contradict each other."""
        check_number("num_classes", self.num_classes, least=0 if self.target_type == "none" else 1)
        if (self.target_type == "hierarchical") != bool(self.levels):
            raise ValueError(
                f"levels: expected names of levels for target_type='hierarchical', and for no other, "
                f"got {self.levels!r} for {self.target_type!r}"
            )
        for argument, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.dims[0]:
                raise ValueError(f"{argument}: expected one value for each of {self.dims[0]} channels, got {values}")
        check_numbers("mean", self.mean, least=0, most=1, fix="give it for pixels in [0, 1]")
        check_numbers("std", self.std, above=0, most=1, fix="give it for pixels in [0, 1]")
        if not self.class_names:
            finest = next(iter(self.levels.values()), ())
            self.class_names = finest or tuple(str(index) for index in range(self.num_classes))
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names: expected {self.num_classes} (num_classes), got {len(self.class_names)}")

    def _check_part(self, part: str, dataset: TensorImages | ImageFiles, dims: tuple[int, ...]) -> None:
        if dataset.dims != dims:
            raise ValueError(f"{part}: expected images of dims {list(dims)}, got {list(dataset.dims)}")
        class_counts = [len(names) for names in self.levels.values()] or [self.num_classes]
        check_targets(part, dataset.targets, self.target_type, class_counts)


def _rows(dataset: Dataset, rows: Tensor) -> Dataset:
    if isinstance(dataset, TensorImages | ImageFiles):
        return dataset.select(rows)
    return Subset(dataset, rows.tolist())
