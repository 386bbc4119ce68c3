"""The base of all data modules: what is known of the images before they are there, and the loaders over them."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ssl_modules.datamodules.files import BatchedFiles, ImageFiles
from ssl_modules.datamodules.images import BatchedImages, TensorImages, first_dims, measured_statistics
from ssl_modules.datamodules.loader import ResumableDataLoader
from ssl_modules.datamodules.sampler import EpochSampler
from ssl_modules.datamodules.targets import TargetType, check_targets, target_shape
from ssl_modules.utils.configurable import Configurable, storable
from ssl_modules.utils.plain_checkpoint import PlainCheckpoint
from ssl_modules.utils.seeds import derive_generator


class ImageDataModule(PlainCheckpoint, Configurable, LightningDataModule):
    """Images of one size with their targets, from two data sets or, in a subclass, from a named one.

    Batches are ``(images, targets)``, or ``(images, targets, index)`` with ``return_index``: images uint8
    [N, C, H, W], un-augmented; index the row in the part the loader reads. The attributes below are known from
    construction on, before any image but the first is read. Training images may be larger than ``dims`` says, where a
    crop is to be taken of them, or be lists of finished views (see :class:`ImageFiles`); all others are brought to this
    size.

    The parts are the official ones. With ``val_size=0`` there is no validation part: :meth:`val_dataloader` gives no
    loader, so no validation loop runs, and the test part is never taken for one.

    Only the training loader shuffles, drops the last incomplete batch, and keeps its place in the epoch for a resume.
    Under several processes each reads its own share; parts that don't divide evenly are filled up from their head for
    evaluation, so that row ``i`` of the part is item ``i // processes`` of process ``i % processes``.

    A subclass calls this constructor with what it knows and overrides :meth:`load`, and ``prepare_data`` to download;
    :meth:`pretraining_part` as well, where it trains on other images than probes do.

    Args:
        train: training part: :class:`TensorImages`, :class:`ImageFiles`, or any map-style data set of
            ``(image, target)`` with PIL or tensor images of one size (see :class:`BatchedImages`); None where a
            subclass overrides :meth:`load`.
        test: test part, in the same form; None if there is none.
        name: of the data set, for logs.
        num_classes: number of classes, at the finest level; 0 without targets.
        dims: (C, H, W) of an image to evaluate; None for those of the first training image.
        mean: of each channel, for pixels in [0, 1]; None to measure it, which takes a training part in memory.
        std: likewise.
        class_names: of the classes, at the finest level; None for "0", "1", ...
        target_type: "single": one class an image, targets [N]; "hierarchical": a class at each level, [N, levels], fine
            to coarse; "multilabel": any number of classes, [N, num_classes] of 0 and 1; "none": no targets, [N] of -1.
        levels: for "hierarchical" alone: name of each level and names of its classes, fine to coarse.
        batch_size: images per batch and process (device).
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        num_workers: processes that read images; none are used for images in memory.
        return_index: whether batches hold the row of each image.

    Raises:
        ValueError: if an argument, or a part's images or targets, do not agree with the rest.

    Attributes:
        train_set: images to train on, without the validation part, after ``setup``.
        labelled_set: labelled training images for probes, without the validation part; the same unless
            :meth:`pretraining_part` says otherwise.
        val_set: validation part, or None.
        test_set: test part, or None.

    Example:
        >>> images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
        >>> data = ImageDataModule(TensorImages(images, torch.arange(12) % 3), num_classes=3, batch_size=5)
        >>> data.setup()
        >>> [targets.shape for images, targets in data.train_dataloader()]
        [torch.Size([5]), torch.Size([5])]
    """

    def __init__(
        self,
        train: Dataset | None = None,
        test: Dataset | None = None,
        *,
        name: str = "images",
        num_classes: int,
        dims: tuple[int, int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        target_type: TargetType = "single",
        levels: Mapping[str, Sequence[str]] | None = None,
        batch_size: int = 64,
        val_size: int = 0,
        seed: int = 0,
        num_workers: int = 0,
        return_index: bool = False,
    ) -> None:
        super().__init__()
        for argument, value, least in (
            ("batch_size", batch_size, 1),
            ("val_size", val_size, 0),
            ("num_workers", num_workers, 0),
            ("num_classes", num_classes, 0),
        ):
            if value < least:
                raise ValueError(f"{argument}: expected at least {least}, but got {value}")
        if target_type not in get_args(TargetType):
            raise ValueError(f"target_type: expected one of {get_args(TargetType)}, but got {target_type!r}")
        if (target_type == "hierarchical") != bool(levels):
            raise ValueError(
                f"levels: goes with target_type='hierarchical' alone, but got {levels!r} for {target_type!r}"
            )
        self._datasets = (train, test)
        self.name = name
        self.num_classes = num_classes
        channels, height, width = first_dims(train) if dims is None else dims
        self.dims = (channels, height, width)
        if mean is None or std is None:
            mean, std = measured_statistics(train, mean, std)
        self.mean, self.std = tuple(mean), tuple(std)
        for argument, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.dims[0]:
                raise ValueError(
                    f"{argument}: expected one value for each of {self.dims[0]} channels, but got {values}"
                )
        self.levels = {level: tuple(names) for level, names in (levels or {}).items()}
        if class_names is None:
            class_names = next(iter(self.levels.values()), None) or [str(index) for index in range(num_classes)]
        self.class_names = tuple(class_names)
        if len(self.class_names) != num_classes:
            raise ValueError(f"class_names: expected {num_classes} (num_classes), but got {len(self.class_names)}")
        self.target_type = target_type
        self.batch_size = batch_size
        self.val_size = val_size
        self.seed = seed
        self.num_workers = num_workers
        self.return_index = return_index
        self.train_set: Dataset | None = None
        self.labelled_set: Dataset | None = None
        self.val_set: Dataset | None = None
        self.test_set: Dataset | None = None
        if not val_size:  # Lightning wonders at an empty list of validation loaders, which is meant
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")

    def _save_arguments(self) -> None:
        """Keeps a subclass's arguments as plain data in checkpoints.

        They are not logged: ``image_size`` would collide with the module's.
        """
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in self.arguments.items()}
        self.save_hyperparameters(storable(plain), logger=False)

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
        """Side of the square images, in pixels.

        Raises:
            ValueError: if they are not square.
        """
        _, height, width = self.dims
        if height != width:
            raise ValueError(
                f"image_size: images of {height} x {width} have no one side; read dims, or make them square"
            )
        return height

    def load(self) -> tuple[Dataset, Dataset | None]:
        """The official training and test parts; called once in every process, by ``setup``.

        Raises:
            ValueError: if the data module was given no training part.
        """
        train, test = self._datasets
        if train is None:
            raise ValueError("train: expected a data set, but got None; pass train=, or override load()")
        return train, test

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """The images to train on; called once, by ``setup``.

        Args:
            labelled: training part without the validation part.

        Returns:
            The same, unless a subclass has other images, which need no targets.
        """
        return labelled

    def setup(self, stage: str | None = None) -> None:
        """Loads the parts, once, and sets the validation part aside.

        Args:
            stage: as Lightning gives it; all stages need the same.

        Raises:
            ValueError: if images or targets don't agree with ``dims``, ``num_classes`` and ``target_type``, or
                ``val_size`` leaves no training images.
        """
        if self.train_set is not None:
            return
        train, self.test_set = self.load()
        in_memory = train.dims if isinstance(train, TensorImages) and self._fit_into(train.dims) else self.dims
        for part, dataset in (("train", train), ("test", self.test_set)):
            if isinstance(dataset, TensorImages | ImageFiles):
                self._check(part, dataset, in_memory if isinstance(dataset, TensorImages) else self.dims)
        size = len(train)  # type: ignore[arg-type]
        if self.val_size >= size:
            raise ValueError(f"val_size: expected fewer than the {size} training images, but got {self.val_size}")
        if self.val_size:
            order = torch.randperm(size, generator=derive_generator(self.seed, "val"))
            val_rows, train_rows = order[: self.val_size].sort().values, order[self.val_size :].sort().values
            self.val_set, train = _rows(train, val_rows), _rows(train, train_rows)
        self.labelled_set, self.train_set = train, self.pretraining_part(train)
        if isinstance(train, TensorImages):  # Lightning asks for workers, which images in memory don't need
            warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")

    def teardown(self, stage: str | None = None) -> None:
        """Warns of files that could not be read and were not yet told of.

        Args:
            stage: as Lightning gives it.
        """
        for dataset in (self.train_set, self.labelled_set, self.val_set, self.test_set):
            if isinstance(dataset, ImageFiles):
                dataset.report()

    def train_dataloader(self) -> ResumableDataLoader:
        """Training part in the order of (seed, epoch), without the last incomplete batch.

        Raises:
            ValueError: if there is not one full batch.
        """
        loader = self._loader("train", self.train_set, shuffle=True)
        if len(loader) == 0:
            raise ValueError(
                f"batch_size: expected at most the {len(loader.sampler)} training images of each process, "  # type: ignore[arg-type]
                f"but got {self.batch_size}, which leaves no full batch"
            )
        return loader

    def val_dataloader(self) -> ResumableDataLoader | list[ResumableDataLoader]:
        """Validation part in its own order; without one, an empty list: Lightning then runs no validation."""
        return self._loader("val", self.val_set) if self.val_size else []

    def test_dataloader(self) -> ResumableDataLoader:
        """Test part in its own order."""
        return self._loader("test", self.test_set)

    def predict_dataloader(self) -> ResumableDataLoader:
        """Test part in its own order; under several processes Lightning shares it out without filling it up."""
        return self._loader("test", self.test_set, shared=False)

    def probe_train_dataloader(self) -> ResumableDataLoader:
        """Labelled images to fit a probe on: the whole labelled training part in its own order.

        Raises:
            ValueError: if there are no labels.
        """
        return self._labelled(self._loader("train", self.labelled_set))

    def probe_test_dataloader(self) -> ResumableDataLoader:
        """Labelled images to judge a probe on: the validation part where one is set aside, else the test part.

        Raises:
            ValueError: if there are no labels.
        """
        return self._labelled(self._loader("val", self.val_set) if self.val_size else self.test_dataloader())

    def supervised_dataloader(self, rows: Tensor | None = None) -> ResumableDataLoader:
        """Labelled training part in the order of (seed, epoch), to the last image.

        Args:
            rows: of the labelled training part, to learn from few; None for all.

        Raises:
            ValueError: if there are no labels.
        """
        dataset = self.labelled_set if rows is None or self.labelled_set is None else _rows(self.labelled_set, rows)
        return self._labelled(self._loader("train", dataset, shuffle=True, drop_last=False))

    def labelled_targets(self) -> Tensor:
        """Targets of the labelled training part, row by row; no image is read where they are held apart from images.

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
            raise ValueError(f"{self.name} has no {part} part; pass {part}= to the data module")
        drop_last = shuffle if drop_last is None else drop_last
        num_workers = 0 if isinstance(dataset, TensorImages) else self.num_workers
        if isinstance(dataset, ImageFiles):
            batched: Any = BatchedFiles(dataset, training=shuffle, seed=self.seed, return_index=self.return_index)
        else:
            dims = dataset.dims if shuffle and isinstance(dataset, TensorImages) else self.dims
            shape = target_shape(self.target_type, self.num_classes, len(self.levels))
            batched = BatchedImages(dataset, dims, shape, self.return_index)
        return ResumableDataLoader(
            batched,
            batch_size=self.batch_size,
            sampler=EpochSampler(batched, shuffle=shuffle, drop_last=drop_last, seed=self.seed) if shared else None,
            drop_last=drop_last,
            num_workers=num_workers,
            # Others than ours may draw from a worker's random state, which is seeded anew as it starts.
            persistent_workers=shuffle and num_workers > 0 and isinstance(dataset, ImageFiles),
            collate_fn=_finished,
            pin_memory=torch.cuda.is_available() and not isinstance(dataset, TensorImages),
            generator=torch.Generator(),  # a loader without one draws from the global random state
        )

    def _labelled(self, loader: ResumableDataLoader) -> ResumableDataLoader:
        if self.target_type == "none":
            raise ValueError(f"target_type: {self.name} has no targets, and a probe needs them; give it labelled data")
        return loader

    def _fit_into(self, dims: tuple[int, int, int]) -> bool:
        """Whether images of ``dims`` can be resized to our own."""
        (channels, height, width), (own_channels, own_height, own_width) = dims, self.dims
        return channels == own_channels and height == width >= own_height == own_width

    def _check(self, part: str, dataset: TensorImages | ImageFiles, dims: tuple[int, int, int]) -> None:
        if dataset.dims != dims:
            raise ValueError(f"{part}: expected images of dims {list(dims)}, but got {list(dataset.dims)}")
        class_counts = [len(names) for names in self.levels.values()] or [self.num_classes]
        check_targets(part, dataset.targets, self.target_type, class_counts)


def _finished(batch: Any) -> Any:
    """The collate function where the data set makes whole batches."""
    return batch


def _rows(dataset: Dataset, rows: Tensor) -> Dataset:
    if isinstance(dataset, TensorImages | ImageFiles):
        return dataset.select(rows)
    return Subset(dataset, rows.tolist())
