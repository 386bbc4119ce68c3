"""Encoding several views with one encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def encode_views(encoder: nn.Module, views: Sequence[Tensor], spatial_dims: int = 2) -> list[tuple[Tensor, ...]]:
    """The maps of each view; views of equal size are encoded together.

    The axes of a grid of patches, between batch and channels, are merged into the batch and become the spatial axes of
    the maps: a view ``[N, rows, cols, ch, h, w]`` gives maps ``[N, C, rows, cols]``.

    Args:
        encoder: ``(images [B, ch, ...]) -> tuple of maps [B, C, ...]``.
        views: each ``[N, grid..., ch, ...]``.
        spatial_dims: number of axes of an image after the channels.

    Raises:
        ValueError: if the encoder returns a map of several locations for a patch, instead of one vector.

    Example:
        >>> maps = encode_views(lambda images: (images, images.mean((2, 3))), [torch.zeros(4, 3, 8, 8)] * 2)
        >>> [[list(m.shape) for m in view] for view in maps]
        [[[4, 3, 8, 8], [4, 3]], [[4, 3, 8, 8], [4, 3]]]
    """
    maps: list[tuple[Tensor, ...]] = [()] * len(views)
    by_size: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
    for i, view in enumerate(views):
        by_size.setdefault((view.shape[1:], view.dtype), []).append(i)
    for group in by_size.values():
        images = torch.cat([views[i] for i in group])  # [B, grid..., ch, h, w]
        grid = images.shape[1 : images.ndim - spatial_dims - 1]
        outputs = encoder(images.flatten(0, len(grid)))
        if grid:
            outputs = tuple(_grid_map(m, (len(images), *grid)) for m in outputs)
        per_view = zip(*(m.split([len(views[i]) for i in group]) for m in outputs), strict=True)
        for i, view_maps in zip(group, per_view, strict=True):
            maps[i] = view_maps
    return maps


def _grid_map(m: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Vectors of patches ``[N rows cols, C, 1, 1]`` as a map ``[N, C, rows, cols]``."""
    if m.flatten(2).shape[2] != 1:
        raise ValueError(
            f"encoder: gives a map of {list(m.shape[2:])} per patch where one vector is needed; pool it, or have "
            "the augmentation cut the patches, which the encoder then pools"
        )
    return m.flatten(1).unflatten(0, grid).movedim(-1, 1)
