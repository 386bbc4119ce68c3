"""Labelled images: held in memory as one tensor, or taken one by one from any data set."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_modules.datamodules.decoding import square

Batch = tuple[Tensor, ...]


class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """Labelled images held in memory, indexed by one row or by many at once.

    Args:
        images: [N, C, H, W], uint8.
        targets: integers: [N] classes, [N, levels] classes from fine to coarse, or [N, classes] of 0 and 1 (several
            labels an image); None where there are no labels, which makes every target -1.

    Raises:
        TypeError: if images are not uint8, or targets not integers.
        ValueError: if images are not [N, C, H, W], or there are not as many targets as images.

    Example:
        >>> data = TensorImages(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> images, targets = data[[3, 1]]
        >>> images.shape, targets
        (torch.Size([2, 1, 8, 8]), tensor([3, 1]))
    """

    def __init__(self, images: Tensor, targets: Tensor | None = None) -> None:
        if images.dtype != torch.uint8:
            raise TypeError(
                f"images: expected uint8, but got {images.dtype}; "
                "from floats in [0, 1]: (images * 255).round().to(torch.uint8)"
            )
        if images.ndim != 4:
            raise ValueError(
                f"images: expected [N, C, H, W], but got {list(images.shape)}; one channel: images.unsqueeze(1)"
            )
        if targets is None:
            targets = torch.full((len(images),), -1, device=images.device)
        if targets.is_floating_point() or targets.is_complex():
            raise TypeError(f"targets: expected integers, but got {targets.dtype}; give class indices, targets.long()")
        if targets.ndim == 0 or len(targets) != len(images):
            raise ValueError(
                f"targets: expected one for each of {len(images)} images, but got shape {list(targets.shape)}"
            )
        self.images = images
        self.targets = targets.long()

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
        """The given rows as a set of their own.

        Args:
            rows: [M], integers in [0, N), in the order wanted.
        """
        return TensorImages(self.images[rows], self.targets[rows])


class BatchedImages(Dataset[Batch]):
    """What a data module's loaders read: ``(image, target)``, or with the row as ``(image, target, index)``.

    Rows of :class:`TensorImages` are taken a batch at a time, and resized where ``dims`` asks for less; items of any
    other data set are converted, checked and collated one by one.

    Args:
        dataset: map-style; items are an image alone or a tuple that begins with image and target. An image is a PIL
            image or a tensor [C, H, W], uint8 or float; a float one only if it is k / 255 to one rounding, as
            torchvision makes it from bytes.
        dims: (C, H, W) of every image.
        target_shape: shape of one target; None where targets are ignored and -1 stands for them.
        return_index: whether the row in ``dataset`` follows image and target.

    Example:
        >>> data = BatchedImages([(torch.ones(1, 2, 2), 7)], dims=(1, 2, 2), target_shape=(), return_index=True)
        >>> data[0]
        (tensor([[[255, 255],
                 [255, 255]]], dtype=torch.uint8), tensor(7), tensor(0))
    """

    def __init__(
        self,
        dataset: Dataset,
        dims: tuple[int, int, int],
        target_shape: tuple[int, ...] | None,
        return_index: bool = False,
    ) -> None:
        if isinstance(dataset, TensorImages) and target_shape is None:
            dataset = TensorImages(dataset.images)
        self.dataset = dataset
        self.dims = dims
        self.target_shape = target_shape
        self.return_index = return_index

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Batch:
        """One image [C, H, W] with its target.

        Raises:
            TypeError: if the image or its target is of a type that can't be taken exactly.
            ValueError: if the image or its target is of another shape than the rest.
        """
        if isinstance(self.dataset, TensorImages):
            return tuple(values[0] for values in self.__getitems__([index]))
        item = self.dataset[index]
        image, target = (item[0], item[1:2]) if isinstance(item, tuple | list) else (item, ())
        image = to_uint8(image)
        if tuple(image.shape) != self.dims:
            raise ValueError(
                f"image {index}: expected [C, H, W] = {list(self.dims)}, but got {list(image.shape)}; "
                "bring images to one size in the data set's transform"
            )
        out = (image, self._target(index, target))
        return (*out, torch.tensor(index)) if self.return_index else out

    def __getitems__(self, indices: list[int]) -> Batch:
        """A finished batch: images [B, C, H, W], their targets, and their rows [B] if asked for."""
        if not isinstance(self.dataset, TensorImages):
            return tuple(default_collate([self[index] for index in indices]))
        images, targets = self.dataset[indices]
        if self.dataset.dims != self.dims:
            images = square(images, self.dims[1])
        return (images, targets, torch.tensor(indices)) if self.return_index else (images, targets)

    def _target(self, index: int, target: Sequence[Any]) -> Tensor:
        if self.target_shape is None:
            return torch.tensor(-1)
        if not target:
            raise ValueError(f"item {index}: an image without a target; give (image, target), or target_type='none'")
        value = torch.as_tensor(target[0])
        if value.is_floating_point() or value.is_complex():
            raise TypeError(f"target {index}: expected integers, but got {value.dtype}; give class indices")
        if tuple(value.shape) != self.target_shape:
            raise ValueError(
                f"target {index}: expected shape {list(self.target_shape)}, but got {list(value.shape)}; "
                "see target_type"
            )
        return value.long()


def to_uint8(image: Image | Tensor) -> Tensor:
    """An image as uint8 [C, H, W], without loss.

    Args:
        image: a PIL image, or a tensor [C, H, W], uint8 or float k / 255.

    Raises:
        TypeError: if it is anything else.
        ValueError: if a float image holds other values than k / 255.

    Example:
        >>> to_uint8(torch.tensor([0.0, 51 / 255, 1.0]).view(1, 1, 3))
        tensor([[[  0,  51, 255]]], dtype=torch.uint8)
    """
    if isinstance(image, Image):
        image = cast(Tensor, pil_to_tensor(image))
    if not isinstance(image, Tensor):
        raise TypeError(f"image: expected a PIL image or a tensor [C, H, W], but got {type(image).__name__}")
    if image.is_floating_point():
        levels = (image * 255).round().clamp(0, 255)
        # ToTensor divides by 255 where v2.ToDtype multiplies by 1 / 255: the same to one rounding.
        if not ((image - levels / 255).abs() <= torch.finfo(image.dtype).eps).all():
            raise ValueError(
                f"image: a {image.dtype} tensor with values other than k / 255, from {image.min():.4g} to "
                f"{image.max():.4g}; leave normalisation and augmentation to the module, or give uint8"
            )
        return levels.to(torch.uint8)
    if image.dtype != torch.uint8:
        raise TypeError(f"image: expected uint8 or float in [0, 1], but got {image.dtype}")
    return image


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over pixels in [0, 1].

    Args:
        images: [N, C, H, W], uint8.

    Returns:
        ``(mean, std)``, each of C numbers.

    Example:
        >>> pixel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
        ((0.5,), (0.5,))
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()  # [256]
        mean = (share * levels).sum()
        means.append(mean.item())
        stds.append((share * (levels - mean) ** 2).sum().sqrt().item())
    return tuple(means), tuple(stds)


def first_dims(train: Dataset | None) -> tuple[int, int, int]:
    """(C, H, W) of the first image of a data set.

    Args:
        train: map-style; None is refused.

    Raises:
        ValueError: if there is no data set, or its image is not [C, H, W].

    Example:
        >>> first_dims(TensorImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))
        (3, 8, 8)
    """
    if train is None:
        raise ValueError("dims: expected (C, H, W), but got None; pass dims=, or a training part to read them from")
    first: Any = train[0]
    image = to_uint8(first[0] if isinstance(first, tuple | list) else first)
    if image.ndim != 3:
        raise ValueError(f"train: expected images [C, H, W], but got {list(image.shape)}; one channel: unsqueeze(0)")
    channels, height, width = image.shape
    return channels, height, width


def measured_statistics(
    train: Dataset | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel: those given, and what is None measured.

    Args:
        train: images in memory; others would all have to be read.
        mean: of each channel, for pixels in [0, 1], or None.
        std: likewise.

    Raises:
        ValueError: if the images are not in memory.
    """
    if not isinstance(train, TensorImages):
        raise ValueError(
            f"mean, std: got {mean}, {std} for images that are not in memory; "
            "pass both, for pixels in [0, 1] (pixel_statistics measures them)"
        )
    measured = pixel_statistics(train.images)
    return mean or measured[0], std or measured[1]
