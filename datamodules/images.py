"""Labelled images in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_modules.batch import fields
from ssl_modules.datamodules.conversion import WhiteLevel, as_tensor, fix_of_images, to_uint8


class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """Labelled images in memory, indexed by one row or by many rows at once.

    Args:
        images: tensor or array [N, C, H, W] of uint8; it is not copied.
        targets: tensor, array or list of integers: [N] classes, [N, levels] classes from fine to coarse, or
            [N, classes] of 0 and 1 (several labels per image). None for no labels, which sets every target to -1.

    Raises:
        TypeError: if images are not uint8, or targets are not integers.
        ValueError: if images are not [N, C, H, W], or the numbers of images and targets differ.

    Example:
        >>> data = TensorImages(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> images, targets = data[[3, 1]]
        >>> images.shape, targets
        (torch.Size([2, 1, 8, 8]), tensor([3, 1]))
    """

    def __init__(self, images: Tensor | np.ndarray, targets: Tensor | np.ndarray | Sequence[Any] | None = None) -> None:
        images = as_tensor("images", images)
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, got {images.dtype}; {fix_of_images(images)}")
        if images.ndim != 4:
            raise ValueError(f"images: expected [N, C, H, W], got {list(images.shape)}; one channel: images[:, None]")
        targets = torch.full((len(images),), -1, device=images.device) if targets is None else as_targets(targets)
        if targets.ndim == 0 or len(targets) != len(images):
            raise ValueError(f"targets: expected one for each of {len(images)} images, got shape {list(targets.shape)}")
        self.images = images
        self.targets = targets

    @property
    def dims(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """The images and targets of one row [C, H, W], or of a list of rows [B, C, H, W]."""
        return self.images[index], self.targets[index]

    def select(self, rows: Tensor) -> "TensorImages":
        """A data set of the given rows.

        Args:
            rows: [M], integers in [0, N), in the order wanted.
        """
        return TensorImages(self.images[rows], self.targets[rows])


def as_targets(targets: Any) -> Tensor:
    """Convert targets to a tensor of int64.

    Args:
        targets: integers, in a tensor, an array or a list.

    Raises:
        TypeError: if they are not integers.

    Example:
        >>> as_targets([2, 0])
        tensor([2, 0])
    """
    values = as_tensor("targets", targets)
    if values.is_floating_point() or values.is_complex():
        raise TypeError(f"targets: expected integers, got {values.dtype}; give class indices, targets.long()")
    return values.long()


def pixel_statistics(
    images: Tensor | Dataset[Any], white: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over pixels in [0, 1].

    Args:
        images: tensor [N, C, H, W] of uint8; or a map-style data set that :class:`ImageDataModule` accepts.
        white: if ``images`` is a data set, the pixel value of white in images of more than 8 bits; None for 65535.

    Returns:
        ``(mean, std)``, C numbers each.

    Example:
        >>> pixel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
        ((0.5,), (0.5,))
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    counts = _level_counts(images) if isinstance(images, Tensor) else _summed_level_counts(images, WhiteLevel(white))
    for count in counts:
        share = count.double() / count.sum()  # [256]
        mean = (share * levels).sum()
        means.append(mean.item())
        stds.append((share * (levels - mean) ** 2).sum().sqrt().item())
    return tuple(means), tuple(stds)


def _level_counts(images: Tensor) -> Tensor:
    """Count how often each of the 256 pixel values occurs in each channel of ``[N, C, H, W]``: ``[C, 256]``."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])


def _summed_level_counts(dataset: Any, white: WhiteLevel) -> Tensor:
    first = to_uint8(fields(dataset[0], "item 0")[0], white=white)
    counts = torch.zeros(len(first), 256, dtype=torch.int64)
    for index in range(len(dataset)):
        counts += _level_counts(to_uint8(fields(dataset[index], f"item {index}")[0], len(first), white)[None])
    return counts
