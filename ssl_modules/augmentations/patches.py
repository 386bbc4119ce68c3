"""Cutting images into a grid of overlapping patches."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ssl_modules.augmentations.operation import Operation, check_operations, map_parameters
from ssl_modules.utils.checks import check_number


class PatchGrid(Operation):
    """Cuts each image into square patches, row by row (CPC: van den Oord et al. 2018, arXiv 1807.03748).

    Along each axis there are ``floor((side - size) / (size - overlap)) + 1`` patches; pixels beyond the last patch are
    dropped. It must be the last operation in a list. Only its ``transforms`` are random.

    Operations before it in the list draw once per image, so all patches of an image share their parameters. Operations
    in ``transforms`` draw for each patch separately.

    Args:
        size: Side of a patch, in pixels.
        overlap: Pixels shared by neighbours, from 0 to ``size - 1``.
        transforms: Operations that keep the size, applied to the patches in this order; None for no operations.

    Raises:
        ValueError: if an argument is outside its range, or the images are smaller than a patch.

    Example:
        >>> PatchGrid(size=8, overlap=4)(torch.rand(2, 3, 32, 32)).shape  # [N, rows, cols, ch, h, w]
        torch.Size([2, 7, 7, 3, 8, 8])

        Draw the kept channel for each patch:

        >>> from ssl_modules.augmentations import ColorDrop
        >>> grid = PatchGrid(4, transforms=[ColorDrop(p=1.0)])
        >>> patches = grid(torch.ones(1, 3, 8, 8), torch.Generator().manual_seed(0))
        >>> patches[0, :, :, :, 0, 0].argmax(2)
        tensor([[0, 1],
                [1, 2]])
    """

    def __init__(self, size: int, overlap: int = 0, transforms: list[Operation] | None = None) -> None:
        super().__init__()
        check_number("size", size, above=0)
        check_number("overlap", overlap, least=0, below=size)
        if transforms is not None:
            check_operations("transforms", transforms)
        self.size = size
        self.overlap = overlap
        self.transforms: Any = nn.ModuleList(transforms) if transforms else ()
        for transform in self.transforms:
            if transform.image_size not in (None, size):
                raise ValueError(
                    f"transforms: {type(transform).__name__} makes {transform.image_size} pixels of patches of {size}; "
                    "give it the size of the patches"
                )

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Any, ...]:
        """Draws the parameters of each transform, [N, rows, cols, ...]."""
        if not self.transforms:
            return ()
        grid = (len(images), *self.grid(images))
        patches = images[:1, :, :1, :1].expand(math.prod(grid), -1, self.size, self.size)
        drawn = (transform.draw(patches, generator) for transform in self.transforms)
        return tuple(map_parameters(parameters, lambda values: values.unflatten(0, grid)) for parameters in drawn)

    def check_channels(self, in_channels: int) -> None:
        """Raises unless all transforms can change images with this number of channels."""
        for transform in self.transforms:
            transform.check_channels(in_channels)

    def transform(self, images: Tensor, parameters: tuple[Any, ...] = ()) -> Tensor:
        """Cuts images [N, ch, H, W] into patches [N, rows, cols, ch, size, size]."""
        grid = (len(images), *self.grid(images))
        stride = self.size - self.overlap
        windows = images.unfold(2, self.size, stride).unfold(3, self.size, stride)  # [N, ch, rows, cols, h, w]
        patches = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)  # [N rows cols, ch, h, w]
        for transform, drawn in zip(self.transforms, parameters, strict=True):
            patches = transform.transform(patches, map_parameters(drawn, lambda values: values.flatten(0, 2)))
        return patches.unflatten(0, grid)  # [N, rows, cols, ch, h, w]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """The number of rows and columns of patches for images [N, ch, H, W]."""
        height, width = images.shape[2:]
        if min(height, width) < self.size:
            raise ValueError(
                f"size: images of {height} x {width} are smaller than a patch of {self.size}; use smaller patches or "
                "larger images"
            )
        stride = self.size - self.overlap
        return (height - self.size) // stride + 1, (width - self.size) // stride + 1


def check_patches(patches: tuple[int, int]) -> None:
    """Raise unless ``patches`` are the side and overlap of patches, in pixels.

    Example:
        >>> check_patches((8, 8))
        Traceback (most recent call last):
        ...
        ValueError: patches: expected (size, overlap) with 0 <= overlap < size, got (8, 8)
    """
    size, overlap = patches
    if not 0 <= overlap < size:
        raise ValueError(f"patches: expected (size, overlap) with 0 <= overlap < size, got {patches}")
