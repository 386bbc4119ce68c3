"""Collective operations for extraction and objective; with a single process they change nothing."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in order of rank; the gradient of a row is summed over all processes.

    Args:
        x: ``[N, ...]``, of equal shape in all processes.

    Returns:
        ``[world_size * N, ...]``.

    Example:
        >>> gather(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    return _Gather.apply(x) if world_size() > 1 else x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return total(grad).chunk(world_size())[rank()]


def total(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def gather_objects(x: Any) -> list[Any]:
    """The objects of all processes, in order of rank."""
    objects = [x] * world_size()
    if world_size() > 1:
        dist.all_gather_object(objects, x)
    return objects
