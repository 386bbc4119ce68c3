"""Reads the samples of a loader without changing its state, and divides them among the processes."""

from collections.abc import Iterator, Mapping
from itertools import islice
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from ssl_modules.batch import fields
from ssl_modules.evaluation.features import kind_of
from ssl_modules.utils.distributed import rank, world_size
from ssl_modules.utils.seeds import derive_generator


def is_data_set(data: Any) -> bool:
    """Return whether ``data`` holds single samples: a map-style data set, or a list of samples with one label each.

    A list of batches is a loader; the labels of its items are tensors ``[N]``. A list without labels is a loader too.

    Example:
        >>> image, images = torch.ones(1, 8, 8), torch.ones(2, 1, 8, 8)
        >>> is_data_set(TensorDataset(images)), is_data_set([(image, 3)]), is_data_set([(images, torch.tensor([3, 1]))])
        (True, True, False)
    """
    if isinstance(data, list | tuple):
        try:
            label = fields(data[0])[1] if data else None
        except ValueError:  # a mapping with other keys, which the user's prepare function reads
            return False
        return isinstance(label, Number | str) or getattr(label, "ndim", None) == 0
    is_indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return is_indexed and not isinstance(data, IterableDataset | Mapping | str)


def loader_of(data: Any) -> DataLoader:
    """Return a loader that reads a map-style data set in its order and in batches of 128.

    Reading it raises a ValueError if the samples do not consist of numbers and of tensors of the same size.
    """
    return DataLoader(data, batch_size=128, collate_fn=_collate)


def shared_batches(loader: Any, size: int | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the batches of this process, each with its number; all processes together read every sample once.

    For a ``DataLoader`` over a map-style data set, it reads the data set in its own order, with the loader's
    ``collate_fn``. It does not shuffle, drop or split samples, even if the loader does. If ``size`` is given, it reads
    a fixed random subset. Process r reads the batches r, r + world, and so on. It iterates over any other loader (with
    an iterable data set or another sampler) directly; such a loader must give the same batches in every process.

    Args:
        loader: any iterable of batches.
        size: maximum number of samples to read; None for all. Of a loader that is iterated directly, it reads the first
            samples, up to the end of a batch.

    Raises:
        ValueError: if a sampler of an unknown kind splits the loader among the processes.

    Example:
        >>> loader = DataLoader(range(5), batch_size=2, shuffle=True, drop_last=True)
        >>> [(number, batch.tolist()) for number, batch in shared_batches(loader)]
        [(0, [0, 1]), (1, [2, 3]), (2, [4])]
    """
    indices = _indices(loader, size)
    if indices is None:
        yield from islice(enumerate(loader), rank(), None, world_size())
    else:
        batches = _batches(indices, loader.batch_sampler.batch_size)[rank() :: world_size()]
        for step, batch in enumerate(_reader(loader, batches)):
            yield rank() + step * world_size(), batch


def endless_batches(loader: Any, size: int | None = None, start: int = 0) -> Iterator[Any]:
    """Yield the batches of this process for training steps, endlessly; each pass has another order, which is fixed.

    Args:
        loader: as in :func:`shared_batches`.
        size: maximum number of samples to use; ignored for a loader that is iterated directly.
        start: number of steps already done; ignored for a loader that is iterated directly.

    Example:
        >>> loader = DataLoader(range(4), batch_size=2)
        >>> steps = list(islice(endless_batches(loader), 4))
        >>> torch.equal(steps[3], next(endless_batches(loader, start=3)))
        True
        >>> sorted(torch.cat(steps[:2]).tolist())
        [0, 1, 2, 3]
    """
    indices = _indices(loader, size)
    while indices is None:
        was_empty = True
        for batch in islice(loader, rank(), None, world_size()):
            was_empty = False
            yield batch
        if was_empty:
            raise ValueError("train: expected batches on every pass, got none; give a loader, not a generator")
    order = torch.tensor(indices)
    per_pass = -(-len(_batches(indices, loader.batch_sampler.batch_size)) // world_size())
    number, offset = divmod(start, per_pass)
    while True:
        shuffled = order[torch.randperm(len(order), generator=derive_generator("probe", number))].tolist()
        batches = _batches(shuffled, loader.batch_sampler.batch_size)
        own = [batches[(step * world_size() + rank()) % len(batches)] for step in range(offset, per_pass)]
        yield from _reader(loader, own)
        number, offset = number + 1, 0


def samples(loader: Any, places: list[int], size: int | None = None) -> Any:
    """Return one batch of the samples at some positions in the order of :func:`shared_batches`.

    Args:
        loader: a ``DataLoader`` over a map-style data set.
        places: positions of the samples, counted over all processes, in any order.
        size: as in :func:`shared_batches`.

    Raises:
        ValueError: for another loader, because its samples can be read only in its own order.

    Example:
        >>> samples(DataLoader(range(5), batch_size=2, shuffle=True), [3, 0])
        tensor([3, 0])
    """
    indices = _indices(loader, size)
    if indices is None:
        raise ValueError(
            f"the loader: expected a DataLoader over a map-style data set, to show some of its samples, got a "
            f"{type(loader).__name__}, which has an order of its own"
        )
    chosen = [[indices[place] for place in places]]
    return next(iter(DataLoader(loader.dataset, batch_sampler=chosen, collate_fn=loader.collate_fn)))


def sample_count(loader: Any, size: int | None = None) -> int | None:
    """Return the number of samples that :func:`shared_batches` reads; None if it iterates over the loader directly.

    Args:
        loader: as in :func:`shared_batches`.
        size: as in :func:`shared_batches`.

    Example:
        >>> loader = DataLoader(range(3))
        >>> sample_count(loader), sample_count(loader, size=2), sample_count([torch.ones(1)])
        (3, 2, None)
    """
    indices = _indices(loader, size)
    return None if indices is None else len(indices)


def stored_targets(loader: Any, size: int | None = None) -> Tensor | None:
    """Return the targets of the samples that :func:`shared_batches` reads, without reading the images.

    Args:
        loader: as in :func:`shared_batches`.
        size: as in :func:`shared_batches`.

    Returns:
        ``[N, ...]``; None if the data set has no attribute ``targets`` with one integer target per sample. The second
        tensor of a ``TensorDataset`` also counts as targets.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> stored_targets(DataLoader(TensorDataset(torch.zeros(3, 1), torch.tensor([5, 7, 5]))))
        tensor([5, 7, 5])
    """
    indices = _indices(loader, size)
    targets = None if indices is None else _targets_of(loader.dataset)
    return None if targets is None else targets[indices]


def _targets_of(dataset: Any) -> Tensor | None:
    if isinstance(dataset, Subset):
        targets = _targets_of(dataset.dataset)
        return None if targets is None else targets[torch.as_tensor(dataset.indices)]
    stored: Any = getattr(dataset, "targets", None)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        stored = dataset.tensors[1]
    try:
        values = torch.as_tensor(stored)
    except (TypeError, ValueError, RuntimeError):  # there are no targets, or they are names
        return None
    is_whole = values.ndim > 0 and len(values) == len(dataset) and not values.is_floating_point()
    return values if is_whole else None


def _indices(loader: Any, size: int | None) -> list[int] | None:
    """Indices of a loader's samples in the data set's order, at most ``size``; None if the loader doesn't tell them."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if type(loader.batch_sampler) is not BatchSampler:
        return None
    sampler, total = loader.batch_sampler.sampler, len(loader.dataset)  # type: ignore[arg-type]
    if isinstance(sampler, SubsetRandomSampler):
        indices = torch.tensor(sorted(sampler.indices))
    elif (
        (isinstance(sampler, SequentialSampler) and len(sampler) == total)
        or (isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == total)
        or (isinstance(sampler, DistributedSampler) and sampler.dataset is loader.dataset)
    ):
        indices = torch.arange(total)
    elif isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
        raise ValueError(
            f"the loader: expected all samples, got those of one of {sampler.num_replicas} processes, by "
            f"{type(sampler).__name__}; give the probe loaders of its own, not split: train= and test="
        )
    else:
        return None
    if size is not None and size < len(indices):
        chosen = torch.randperm(len(indices), generator=derive_generator("probe", "bank"))[:size]
        indices = indices[chosen.sort().values]
    return indices.tolist()


def _collate(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            "the data set: expected samples such as (image, label), of tensors of the same size and numbers, got "
            f"{kind_of(samples[0])}; give it a transform that returns tensors, which for a Hugging Face data set is "
            '.with_format("torch"), or give a DataLoader with a collate_fn'
        ) from error


def _batches(indices: list[int], batch_size: int) -> list[list[int]]:
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def _reader(loader: DataLoader, batches: list[list[int]]) -> DataLoader:
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
