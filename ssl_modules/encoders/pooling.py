"""Pool maps to vectors, and the clips of a video to one vector."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pool(maps: tuple[Tensor, ...]) -> Tensor:
    """The mean of the deepest map over its locations: ``[B, C, ...]`` to ``[B, C]``."""
    return maps[-1].flatten(2).mean(2)


def represent(encoder: Any, images: Tensor) -> Tensor:
    """Return the representation ``[N, D]`` of images, which is the mean of the encoder's deepest map.

    The representation of a video is the mean over its clips.

    Args:
        encoder: see :class:`~ssl_modules.encoders.Encoder`.
        images: images ``[N, ch, ...]``, or for an encoder of clips also videos ``[N, k, ch, T, H, W]``.
    """
    if getattr(encoder, "spatial_dims", 2) != 3 or images.ndim != 6:
        return pool(encoder(images))
    return of_clips(lambda clips: pool(encoder(clips)), images).mean(1)


def of_clips(network: Callable[[Tensor], Tensor], videos: Tensor) -> Tensor:
    """Apply a network to the clips of videos, one clip after the other.

    Args:
        network: function from clips ``[N, ch, T, H, W]`` to vectors ``[N, D]``.
        videos: ``[N, k, ch, T, H, W]``.

    Returns:
        The vectors of all clips, ``[N, k, D]``.

    Example:
        >>> videos = torch.arange(6.0).view(2, 3, 1, 1, 1, 1).expand(-1, -1, 1, 4, 8, 8)
        >>> of_clips(lambda clips: clips.mean((2, 3, 4)), videos)[:, :, 0]
        tensor([[0., 1., 2.],
                [3., 4., 5.]])
    """
    return torch.stack([network(clips) for clips in videos.unbind(1)], dim=1)
