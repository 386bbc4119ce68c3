"""Cutting images into a grid of overlapping patches."""

import torch
from torch import Tensor

from ssl_modules.augmentations.operation import Operation


class PatchGrid(Operation):
    """Cuts each image into square patches, row by row (CPC: van den Oord et al. 2018, arXiv 1807.03748).

    Along each axis there are ``floor((side - size) / (size - overlap)) + 1`` patches; pixels beyond the last are left
    out. It comes last in a list of operations, and nothing in it is random.

    Args:
        size: Side of a patch, in pixels.
        overlap: Pixels shared by neighbours, from 0 to ``size - 1``.

    Raises:
        ValueError: if an argument is out of its range, or the images are smaller than a patch.

    Example:
        >>> PatchGrid(size=8, overlap=4)(torch.rand(2, 3, 32, 32)).shape  # [N, rows, cols, ch, h, w]
        torch.Size([2, 7, 7, 3, 8, 8])
    """

    def __init__(self, size: int, overlap: int = 0) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least one pixel, but got {size}")
        if not 0 <= overlap < size:
            raise ValueError(f"overlap: expected 0 to {size - 1} pixels for patches of {size}, but got {overlap}")
        self.size = size
        self.overlap = overlap

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> None:
        """Draws nothing."""

    def transform(self, images: Tensor, parameters: None = None) -> Tensor:
        """Cuts images [N, ch, H, W] into patches [N, rows, cols, ch, size, size]."""
        if min(images.shape[2:]) < self.size:
            raise ValueError(
                f"size: images of {images.shape[2]} x {images.shape[3]} are smaller than a patch of {self.size}; "
                "use smaller patches or larger images"
            )
        stride = self.size - self.overlap
        patches = images.unfold(2, self.size, stride).unfold(3, self.size, stride)  # [N, ch, rows, cols, h, w]
        return patches.permute(0, 2, 3, 1, 4, 5).contiguous()  # [N, rows, cols, ch, h, w]
