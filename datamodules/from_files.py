"""The base class of data modules whose images stay in files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ssl_modules.augmentations import Augmentation, policy
from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.unreadable import Unreadable
from ssl_modules.utils.checks import check_instance, check_number


class FilesDataModule(BaseDataModule):
    """Base class of data modules whose images, of any size, stay in files until workers read them.

    :class:`~ssl_modules.datamodules.ImageFiles` describes the two ways to make training batches, and how validation and
    test images are resized.

    Args:
        image_size: side length of validation images, test images and training views in pixels.
        decode_size: side length of the training images that the module augments on its device; None for 8/7 of
            ``image_size``.
        augmentation: policy, or its name, with which workers make training views from full-size images; None if the
            module augments.
        unreadable: "skip" leaves out missing or corrupt files, and counts them in a warning; "error" raises an error.
        settings: keyword arguments of :class:`~ssl_modules.datamodules.BaseDataModule`: batch_size, val_size, seed,
            num_workers, return_index.

    Raises:
        ValueError: if an argument is out of range.
    """

    dims: tuple[int, ...] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __init__(
        self,
        *,
        image_size: int = 224,
        decode_size: int | None = None,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
        **settings: Any,
    ) -> None:
        check_number("image_size", image_size, least=1)
        if decode_size is not None:
            check_number("decode_size", decode_size, least=image_size)
        self.dims = (*self.dims[:-2], image_size, image_size)
        if isinstance(augmentation, str):
            policy(augmentation, image_size, self.in_channels)  # raises if there is no policy of this name
        elif augmentation is not None:
            check_instance("augmentation", augmentation, Augmentation, "give one, or the name of a policy")
        super().__init__(**settings)
        self.decode_size = decode_size
        self.augmentation = augmentation
        self.unreadable = unreadable

    def files(
        self, folder: str | Path, paths: Sequence[str], targets: Tensor | None = None, white: int | None = None
    ) -> ImageFiles:
        """Return a part of the data set, with this module's settings.

        Args:
            folder: folder that holds the files.
            paths: paths of the files, relative to ``folder``.
            targets: integers, [N, ...]; None for no targets.
            white: pixel value of white in gray images of 16 bits; None for 65535.
        """
        return ImageFiles(
            folder,
            paths,
            targets,
            image_size=self.image_size,
            decode_size=self.decode_size,
            in_channels=self.in_channels,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
            white=white,
        )


def by_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value per channel. If ``values`` has another length, every channel gets the mean of the values.

    Example:
        >>> by_channel((0.25, 0.5, 0.75), 1)
        (0.5,)
    """
    return tuple(values) if channels == len(values) else (sum(values) / len(values),) * channels
