"""Train with batches that don't fit in memory: process a few images at a time, and recompute the activations.

Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from ssl_modules.utils.checks import check_number


def check_micro_batch(micro_batch: int, **splits: int | None) -> None:
    """Raise an error unless ``micro_batch`` is at least 2 and a multiple of each number of splits.

    Args:
        micro_batch: number of images per part.
        **splits: arguments with a number of splits, each None or at least 2.

    Example:
        >>> check_micro_batch(6, batch_norm_splits=4)
        Traceback (most recent call last):
        ...
        ValueError: micro_batch: expected a multiple of batch_norm_splits=4, got 6
    """
    check_number("micro_batch", micro_batch, least=2)
    for name, number in splits.items():
        if number is not None and micro_batch % number:
            raise ValueError(f"micro_batch: expected a multiple of {name}={number}, got {micro_batch}")


def parts_of(images: int, micro_batch: int | None) -> list[slice]:
    """Return the rows of each part of a batch.

    A last part of a single image joins the part before, because batch norms need two images.

    Args:
        images: number of images in the batch.
        micro_batch: number of images per part. None = one part.

    Example:
        >>> [(rows.start, rows.stop) for rows in parts_of(9, 4)]
        [(0, 4), (4, 9)]
    """
    size = micro_batch or images
    starts = [start for start in range(0, images, size) if start == 0 or images - start > 1]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], images], strict=True)]


def in_parts(function: Callable[..., Any], views: Sequence[Tensor], micro_batch: int | None) -> Any:
    """Apply a function to a few images of all views at a time; return the joined outputs.

    Activations are not recomputed, so this function is for networks without gradient.

    Args:
        function: ``(views) -> collection of tensors``, each with the images along its first axis.
        views: each ``[N, ...]``.
        micro_batch: number of images per part. None = all images at once.
    """
    parts = parts_of(len(views[0]), micro_batch)
    return concatenated([function([view[rows] for view in views]) for rows in parts])


def recomputed_in_parts(
    function: Callable[..., Any], networks: Sequence[nn.Module], views: Sequence[Tensor], micro_batch: int | None
) -> Any:
    """Apply a function to a few images of all views at a time; return the joined outputs.

    If there are several parts, the backward pass computes the activations of each part again. This second forward pass
    doesn't change the running statistics and counters of batch norms, and dropout drops the same values as before.

    Args:
        function: ``(views) -> collection of tensors``, each with the images along its first axis.
        networks: the modules that ``function`` runs.
        views: each ``[N, ...]``.
        micro_batch: number of images per part. None = all images at once.
    """
    parts = parts_of(len(views[0]), micro_batch)
    if len(parts) == 1:
        return function(views)
    _initialise_cuda_if_compiled(networks)
    contexts = partial(_contexts, networks)
    return concatenated(
        [
            checkpoint(function, [view[rows] for view in views], use_reentrant=False, context_fn=contexts)
            for rows in parts
        ]
    )


def concatenated(parts: Sequence[Any]) -> Any:
    """Join collections of tensors of the same form along the first axis.

    Example:
        >>> concatenated([{"a": torch.zeros(2, 3)}, {"a": torch.ones(1, 3)}])["a"].shape
        torch.Size([3, 3])
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return first if len(parts) == 1 else torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {key: concatenated([part[key] for part in parts]) for key in first}
    joined = [concatenated(some) for some in zip(*parts, strict=True)]
    is_named_tuple = hasattr(first, "_fields")
    return type(first)(*joined) if is_named_tuple else type(first)(joined)


def _initialise_cuda_if_compiled(networks: Sequence[nn.Module]) -> None:
    """Initialise CUDA before the first forward pass, if the machine has a GPU and a network is compiled.

    Otherwise, ``torch.compile`` initialises CUDA during the forward pass, even if all tensors are on the CPU.
    ``torch.utils.checkpoint`` then raises an error.
    """
    if torch.cuda.is_available() and any(_is_compiled(m) for network in networks for m in network.modules()):
        torch.cuda.init()


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or isinstance(module, torch._dynamo.OptimizedModule)


def _contexts(networks: Sequence[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _KeptStatistics(networks)


class _KeptStatistics(AbstractContextManager[None]):
    """Context in which batch norms use the batch's statistics, but don't change running statistics and counters.

    It is a class because a second backward pass through the same graph enters the same context again.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks = networks

    def __enter__(self) -> None:
        layers = (layer for network in self.networks for layer in network.modules())
        norms = [m for m in layers if isinstance(m, _NormBase) and m.training and m.track_running_stats]
        self.momenta = [(norm, norm.momentum) for norm in norms]
        counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
        self.counts = [(counter, counter.clone()) for counter in counters]
        for norm in norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, momentum in self.momenta:
            norm.momentum = momentum
        for counter, count in self.counts:
            counter.copy_(count)
