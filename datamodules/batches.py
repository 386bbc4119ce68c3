"""Data sets that return full batches of images: from memory, from files, or from any other data set."""

from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ssl_modules.batch import fields
from ssl_modules.datamodules.conversion import WhiteLevel, as_tensor, to_uint8
from ssl_modules.datamodules.decoding import square
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.seeds import derive_generator

IN_MEMORY_BATCH = 256


class BatchedImages(Dataset[tuple[Tensor, ...]]):
    """Batches of :class:`TensorImages` or any data set: ``(images, targets)``, or ``(images, targets, index)``.

    :class:`TensorImages` are indexed a batch at a time, and resized if ``dims`` is smaller. Items of any other data set
    are converted, checked and collated one by one.

    Args:
        dataset: map-style data set; an item is an image, a tuple that starts with image and target, or a mapping with
            the keys that :func:`~ssl_modules.batch.fields` lists. An image is a PIL image, or a tensor or array
            [C, H, W], that :func:`~ssl_modules.datamodules.conversion.to_uint8` can convert.
        dims: (C, H, W) of every image; gray images are converted to colour if C is 3, and colour to gray if C is 1.
        target_shape: shape of one target; None to ignore targets and return -1.
        return_index: whether items and batches also hold the rows in ``dataset``, after images and targets.
        white: the pixel value of white in images of more than 8 bits; None for 65535.

    Example:
        >>> data = BatchedImages([(torch.ones(1, 2, 2), 7)], dims=(1, 2, 2), target_shape=(), return_index=True)
        >>> data[0]
        (tensor([[[255, 255],
                 [255, 255]]], dtype=torch.uint8), tensor(7), tensor(0))
    """

    def __init__(
        self,
        dataset: Dataset,
        dims: tuple[int, ...],
        target_shape: tuple[int, ...] | None,
        return_index: bool = False,
        white: WhiteLevel | None = None,
    ) -> None:
        if isinstance(dataset, TensorImages) and target_shape is None:
            dataset = TensorImages(dataset.images)
        self.dataset = dataset
        self.dims = dims
        self.target_shape = target_shape
        self.return_index = return_index
        self.white = WhiteLevel() if white is None else white

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def targets(self) -> Any:
        """The targets of all rows if the data set stores them separately from the images; None otherwise."""
        return None if self.target_shape is None else getattr(self.dataset, "targets", None)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Return one image [C, H, W] with its target.

        Raises:
            TypeError: if the image or its target has a type that can't be converted exactly.
            ValueError: if the image or its target doesn't have the expected shape.
        """
        if isinstance(self.dataset, TensorImages):
            return tuple(values[0] for values in self.__getitems__([index]))
        image, target, _ = fields(self.dataset[index], f"item {index}")
        image = to_uint8(image, self.dims[0], self.white)
        if tuple(image.shape) != self.dims:
            fix = "bring images to one size in the data set's transform"
            if tuple(image.shape) == (*self.dims[1:], self.dims[0]):
                fix = "give images [C, H, W], torch.as_tensor(image).permute(2, 0, 1)"
            raise ValueError(f"image {index}: expected [C, H, W] = {list(self.dims)}, got {list(image.shape)}; {fix}")
        out = (image, self._target(index, target))
        return (*out, torch.tensor(index)) if self.return_index else out

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Return a full batch: images [B, C, H, W] and their targets. ``return_index`` adds their rows [B]."""
        if not isinstance(self.dataset, TensorImages):
            return tuple(default_collate([self[index] for index in indices]))
        images, targets = self.dataset[indices]
        if self.dataset.dims != self.dims:
            images = square(images, self.dims[1])
        return (images, targets, torch.tensor(indices)) if self.return_index else (images, targets)

    def _target(self, index: int, target: Any) -> Tensor:
        if self.target_shape is None:
            return torch.tensor(-1)
        if target is None:
            raise ValueError(
                f"item {index}: expected (image, target), got an image only; give a target, or target_type='none'"
            )
        if isinstance(target, str):
            raise TypeError(
                f"target {index}: expected integers, got {target!r}; give class indices, class_names.index(target)"
            )
        value = as_tensor(f"target {index}", target)
        if value.is_floating_point() or value.is_complex():
            raise TypeError(f"target {index}: expected integers, got {value.dtype}; give class indices, int(target)")
        if tuple(value.shape) != self.target_shape:
            raise ValueError(
                f"target {index}: expected shape {list(self.target_shape)}, got {list(value.shape)}; "
                "target_type='single' takes one class, 'multilabel' 0 or 1 for each class, 'hierarchical' one class "
                "for each of levels="
            )
        return value.long()


class BatchedFiles(Dataset[tuple]):
    """Data set that makes full batches of :class:`ImageFiles` or :class:`~ssl_modules.datamodules.VideoFiles`.

    Batches hold images, clips or views. The random numbers for a file depend only on (seed, epoch, row), not on the
    worker.

    Args:
        files: the image or video files.
        training: whether to make training batches; see :class:`ImageFiles`.
        seed: seed of the views.
        return_index: whether items and batches also hold the rows in ``files``, after images and targets. For videos,
            the start times of the clips follow the rows.

    Attributes:
        epoch: epoch for which views are drawn, shared by all workers; see :meth:`set_epoch`.
    """

    def __init__(self, files: ImageFiles, *, training: bool = False, seed: int = 0, return_index: bool = False) -> None:
        self.files = files.for_loader()
        self.training = training
        self.seed = seed
        self.return_index = return_index
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch: draw its views from now on, and try unreadable files again."""
        self.epoch.fill_(epoch)
        self.files.new_epoch()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def targets(self) -> Tensor:
        """The targets of all rows."""
        return self.files.targets

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return a random order of the rows. The sampler calls this method. The files choose the order."""
        return self.files.shuffled(generator)

    def __getitem__(self, index: int) -> tuple:
        """Return one image [C, H, W], or its views, and its target. With ``return_index``, also return its row."""
        images, *rest = self.__getitems__([index])
        image = [view[0] for view in images] if isinstance(images, list) else images[0]
        return (image, *(values[0] for values in rest))

    def __getitems__(self, indices: list[int]) -> tuple:
        """Return a full batch: images [B, C, H, W] or a list of views, and targets. ``return_index`` adds the rows [B].

        Raises:
            OSError: if a system error prevents reading, or a file is unreadable and ``unreadable`` is "error".
            ValueError: if no file can be read.
        """
        everything = range(len(self))
        taken: list[_Sample] = []
        for index in indices:
            # A training batch must be full: the next readable image replaces an unreadable one.
            self._take(index, chain(everything[index:], everything[:index]) if self.training else [index], taken)
        if not taken:
            self._take(indices[0], everything, taken)
        if not taken:
            raise ValueError(
                f"root: expected images in {self.files.root}, got {len(self)} files that can't be read; "
                "unreadable='error' says why"
            )
        rows = [sample.row for sample in taken]
        views = [torch.stack(same).contiguous() for same in zip(*(sample.views for sample in taken), strict=True)]
        rest = [torch.stack(same) for same in zip(*(sample.rest for sample in taken), strict=True)]
        in_workers = self.training and self.files.augmentation is not None
        batch = (views if in_workers else views[0], self.files.targets[rows].long())
        return (*batch, torch.tensor(rows), *rest) if self.return_index else batch

    def _take(self, index: int, candidates: Iterable[int], taken: list["_Sample"]) -> None:
        """Append the sample of the first readable candidate. ``index`` seeds its random numbers."""
        files = self.files
        for row in candidates:
            generator = derive_generator(self.seed, "view", int(self.epoch), index)
            read = partial(files.read, row, training=self.training, generator=generator)
            if (found := files.unreadable_files.read(row, files.path(row), read)) is not None:
                pixels, *rest = found
                taken.append(_Sample(row, files.views(pixels, training=self.training, generator=generator), rest))
                return


class _Sample(NamedTuple):
    """The part of a batch that comes from one file."""

    row: int
    views: list[Tensor]  # only the image if there are no views
    rest: list[Tensor]  # the values after the row, such as the times of clips


def read_all(files: ImageFiles, num_workers: int = 0) -> TensorImages:
    """Decode all readable images into memory, at ``image_size``.

    Args:
        files: the image files.
        num_workers: number of processes that decode.
    """
    loader = DataLoader(
        BatchedFiles(files, return_index=True),
        batch_size=IN_MEMORY_BATCH,
        num_workers=num_workers,
        collate_fn=keep_batch,
        generator=torch.Generator(),
    )
    # A batch without a readable image holds an image of another batch: drop it.
    own = [batch for number, (*batch, rows) in enumerate(loader) if rows[0] // IN_MEMORY_BATCH == number]
    images, targets = (torch.cat(parts) for parts in zip(*own, strict=True))
    files.report()
    files.warn_if_dark()
    return TensorImages(images, targets)


def keep_batch(batch: Any) -> Any:
    """Collate function for data sets that return full batches."""
    return batch
