"""A data module for training and test sets of your own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from ssl_modules.batch import fields
from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.datamodules.conversion import WhiteLevel, to_uint8
from ssl_modules.datamodules.images import TensorImages, pixel_statistics
from ssl_modules.datamodules.targets import TargetType
from ssl_modules.utils.checks import check_instance, got


class ImageDataModule(BaseDataModule):
    """Images of one size with their targets, from data sets of your own.

    Args:
        train: training part: :class:`TensorImages`, :class:`ImageFiles`, or any map-style data set of
            ``(image, target)`` or of mappings such as ``{"image": image, "label": target}``, for example a Hugging
            Face data set; :func:`~ssl_modules.batch.fields` lists the keys. All images have the same size. They are
            PIL images of any mode, or tensors or arrays [C, H, W] of uint8, uint16, or float values k / 255.
        test: test part, in the same form; None if there is none.
        name: name of the data set, for logs.
        num_classes: number of classes at the finest level; 0 without targets.
        dims: (C, H, W) of validation and test images; None for the size of the first training image. If C is 1, colour
            images are converted to gray; if C is 3, gray images are converted to colour.
        mean: mean of each channel, for pixels in [0, 1]; None to measure it, which needs a training part in memory.
        std: standard deviation of each channel; None to measure it, under the same condition.
        class_names: names of the classes at the finest level; None for "0", "1", ...
        target_type: "single", "hierarchical", "multilabel" or "none"; see :class:`BaseDataModule`.
        white: pixel value of white in images of more than 8 bits, such as 4095 for 12-bit data; larger values become
            white. None for 65535; a warning then reports images that are much darker.
        levels: for "hierarchical" only: the name of each level with its class names, fine to coarse.
        num_workers: worker processes that read images; None for one per core, at most 8. Images in memory need none.
            The default is 0, because a data set of your own may not work in other processes.
        settings: keyword arguments of :class:`BaseDataModule`: batch_size, val_size, seed, return_index.

    Raises:
        ValueError: if arguments, images and targets contradict each other.

    Example:
        >>> import torch
        >>> images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
        >>> data = ImageDataModule(TensorImages(images, torch.arange(12) % 3), num_classes=3, batch_size=5)
        >>> data.setup()
        >>> [targets.shape for images, targets in data.train_dataloader()]
        [torch.Size([5]), torch.Size([5])]
    """

    def __init__(
        self,
        train: Dataset,
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
        white: int | None = None,
        num_workers: int | None = 0,
        **settings: Any,
    ) -> None:
        _check_data_set("train", train)
        if test is not None:
            _check_data_set("test", test)
        if levels is not None:
            check_instance("levels", levels, Mapping, "give names of classes by name of the level")
        self._parts = (train, test)
        self.name = name
        self.num_classes = num_classes
        self.white_level = WhiteLevel(white)
        channels, height, width = _first_dims(train, self.white_level) if dims is None else dims
        self.dims = (channels, height, width)
        if mean is None or std is None:
            mean, std = _measured_statistics(train, mean, std, white)
        self.mean, self.std = tuple(mean), tuple(std)
        self.target_type = target_type
        self.levels = {level: tuple(names) for level, names in (levels or {}).items()}
        if class_names is not None and not class_names:
            raise ValueError("class_names: expected a name for each class, got none; leave it out for numbers")
        self.class_names = tuple(class_names or ())
        super().__init__(num_workers=num_workers, **settings)

    def load(self) -> tuple[Dataset, Dataset | None]:
        """The data sets passed to the constructor."""
        return self._parts


def _check_data_set(part: str, dataset: Any) -> None:
    if isinstance(dataset, Mapping):
        raise TypeError(
            f"{part}: expected a map-style data set, got a {type(dataset).__name__} with the keys "
            f"{', '.join(map(str, dataset))}; give the data set under one of these keys"
        )
    is_list_of_others = isinstance(dataset, list) and not all(
        isinstance(item, tuple | list | Mapping) for item in dataset[:1]
    )
    is_stream = isinstance(dataset, IterableDataset)
    if not hasattr(dataset, "__getitem__") or isinstance(dataset, type | str) or is_stream or is_list_of_others:
        raise TypeError(
            f"{part}: expected a map-style data set of (image, target), got {got(dataset)}; {_fix(dataset)}"
        )
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError(f"{part}: expected at least one image, got none; give a data set that is not empty")


def _fix(dataset: Any) -> str:
    """Return advice, for an error, on what to pass instead of ``dataset``, which is not a map-style data set."""
    if isinstance(dataset, DataLoader):
        return "give its data set, loader.dataset"
    if isinstance(dataset, IterableDataset):
        return "its items have no index, so pass a DataLoader of it to Trainer.fit, without a data module"
    if isinstance(dataset, type):
        return f"give an instance, {dataset.__name__}(...)"
    if isinstance(dataset, str | Path):
        return f"for a folder of images use ImageFolderDataModule({str(dataset)!r})"
    if isinstance(dataset, list):
        return "give a list of (image, target); without targets, give [(image, -1), ...] and target_type='none'"
    return "give a list of (image, target), or a torch.utils.data.Dataset"


def _first_dims(train: Dataset, white: WhiteLevel) -> tuple[int, int, int]:
    """(C, H, W) of the first image of a map-style data set."""
    image = to_uint8(fields(train[0], "train")[0], white=white)
    if image.ndim != 3:
        raise ValueError(f"train: expected images [C, H, W], got {list(image.shape)}; one channel: image[None]")
    if image.shape[2] in (1, 3, 4) and image.shape[0] > 4:
        order = "(images).permute(0, 3, 1, 2)" if isinstance(train, TensorImages) else "(image).permute(2, 0, 1)"
        raise ValueError(
            f"train: expected images [C, H, W], got {list(image.shape)}, which looks like [H, W, C]; give "
            f"torch.as_tensor{order}, or "
            f"if they have {image.shape[0]} channels, dims={tuple(image.shape)}"
        )
    channels, height, width = image.shape
    return channels, height, width


def _measured_statistics(
    train: Dataset, mean: Sequence[float] | None, std: Sequence[float] | None, white: int | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel; None is replaced by measured values, for images in memory only."""
    if not isinstance(train, TensorImages):
        scale = "" if white is None else f", white={white}"
        raise ValueError(
            f"mean, std: expected numbers for images that are not in memory, got {mean}, {std}; "
            f"pass both, for pixels in [0, 1]; mean, std = pixel_statistics(train{scale}) measures them"
        )
    measured = pixel_statistics(train.images)
    return mean or measured[0], std or measured[1]
