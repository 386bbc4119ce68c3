"""Pooling maps to vectors."""

from torch import Tensor


def pool(maps: tuple[Tensor, ...]) -> Tensor:
    """The mean of the deepest map over its locations: ``[B, C, ...]`` to ``[B, C]``."""
    return maps[-1].flatten(2).mean(2)
