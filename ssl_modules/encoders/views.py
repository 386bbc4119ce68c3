"""Functions that apply a network to several views: to each view alone, or to all views of one size together."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from torch import Tensor, nn

ViewStatistics = Literal["joint", "each"]


def over_views(
    network: Callable[[Tensor], Any],
    views: Sequence[Tensor],
    statistics: ViewStatistics,
    sizes: Sequence[int | None] | None = None,
) -> list[Any]:
    """Return the outputs of a network for each view.

    Args:
        network: takes a batch of images or vectors ``[B, ...]`` and returns a tensor, or a collection of tensors, whose
            first axis is the batch.
        views: each ``[N, ...]``.
        statistics: "joint" concatenates views of one size, so that a batch norm normalises them together. "each"
            processes one view after the other, so that a batch norm normalises each view alone.
        sizes: size of each view. None = the shapes of ``views``. Embeddings have no size, so they need ``sizes``.

    Example:
        >>> views = [torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [12.0]])]
        >>> norm = nn.BatchNorm1d(1, affine=False)
        >>> [y.flatten().round().tolist() for y in over_views(norm, views, "each")]
        [[-1.0, 1.0], [-1.0, 1.0]]
        >>> [y.flatten().mean().round().tolist() for y in over_views(norm, views, "joint")]
        [-1.0, 1.0]
    """
    if statistics == "each":
        return [network(view) for view in views]
    outputs: list[Any] = [None] * len(views)
    by_size: dict[Any, list[int]] = {}
    for i, (view, size) in enumerate(zip(views, sizes or [None] * len(views), strict=True)):
        by_size.setdefault((size, view.shape[1:], view.dtype), []).append(i)
    for group in by_size.values():
        output, start = network(torch.cat([views[i] for i in group])), 0
        for i in group:
            rows = slice(start, start + len(views[i]))
            outputs[i] = apply_to_collection(output, Tensor, Tensor.__getitem__, rows)
            start = rows.stop
    return outputs


def encode(encoder: nn.Module, view: Tensor, spatial_dims: int = 2) -> tuple[Tensor, ...]:
    """Return the maps of a view, which may be a grid of patches.

    The axes of a grid of patches, between batch and channels, are merged into the batch and become the spatial axes of
    the maps: a view ``[N, rows, cols, ch, h, w]`` gives maps ``[N, C, rows, cols]``.

    Args:
        encoder: ``(images [B, ch, ...]) -> tuple of maps [B, C, ...]``.
        view: ``[N, grid..., ch, ...]``.
        spatial_dims: number of axes of an image after the channels.

    Raises:
        ValueError: if the encoder returns a map of several locations for a patch, instead of one vector.

    Example:
        >>> maps = encode(lambda images: (images, images.mean((2, 3))), torch.zeros(4, 3, 8, 8))
        >>> [list(m.shape) for m in maps]
        [[4, 3, 8, 8], [4, 3]]
    """
    grid = view.shape[1 : view.ndim - spatial_dims - 1]
    maps = encoder(view.flatten(0, len(grid)))
    return tuple(_grid_map(m, (len(view), *grid)) for m in maps) if grid else maps


def _grid_map(m: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Vectors of patches ``[N rows cols, C, 1, 1]`` as a map ``[N, C, rows, cols]``."""
    if m.flatten(2).shape[2] != 1:
        raise ValueError(
            f"encoder: gives a map of {list(m.shape[2:])} per patch where one vector is needed; pool it, or have "
            "the augmentation cut the patches, which the encoder then pools"
        )
    return m.flatten(1).unflatten(0, grid).movedim(-1, 1)
