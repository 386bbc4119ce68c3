"""Features of labelled images by any module, with nothing in the module or the run moved."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from ssl_modules.distributed import rank, world_size
from ssl_modules.seeds import derive_generator

Features = str | Callable[[Any, Any], Tensor] | None
Prepare = Callable[[Any], tuple[Any, Tensor]] | None


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Within it the module is in eval mode and no gradient is recorded; after it nothing has changed.

    Every submodule gets its own mode back, and the global random states (PyTorch, CUDA, NumPy, Python) are those of
    before: even an unshuffled loader draws from them. Within it PyTorch's CPU state is the same each time and in every
    process, so that a shuffling loader gives one order.

    Example:
        >>> module = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with undisturbed(module):
        ...     [part.training for part in module]
        [False, False]
        >>> [part.training for part in module]
        [True, False]
    """
    modes = {part: part.training for part in module.modules()}
    # Attributes, not module.eval(): some modules override train() to do more than it says.
    for part in modes:
        part.training = False
    try:
        with isolate_rng(), torch.no_grad():
            torch.default_generator.manual_seed(0)
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def features_and_targets(
    module: nn.Module,
    batch: Any,
    *,
    features: Features = None,
    prepare: Prepare = None,
    level: int | None = None,
    precision: Any = None,
) -> tuple[Tensor, Tensor]:
    """Features and classes of one batch of a loader.

    Args:
        module: any module, on its device.
        batch: what the loader delivers.
        features: None for ``module(images)``; the dotted name of a submodule whose output in ``module(images)`` is
            taken; or a function ``(module, images) -> features``.
        prepare: batch to ``(images, targets)``, as the module expects them; None takes the first two of a tuple.
        level: column of targets ``[N, levels]``.
        precision: a Trainer's ``precision_plugin``, so that the module computes as in training; None for as it is.

    Returns:
        ``[N, D]`` in float32 or better, and ``[N]`` integers, both on the module's device.

    Raises:
        ValueError: names the argument that mends it: ``train``/``test`` for a loader without labels, ``prepare`` for
            batches the module can't take, ``features`` for an output that is no vector, ``level`` for targets.

    Example:
        >>> batch = torch.ones(4, 1, 2, 2), torch.arange(4)
        >>> features_and_targets(nn.Flatten(), batch)[0].shape
        torch.Size([4, 4])
    """
    images, targets = _prepared(batch, prepare)
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    if targets.is_floating_point():
        raise ValueError(f"targets must be class indices, but got {targets.dtype}; give prepare= to make them so")
    images, targets = move_data_to_device(images, device), targets.to(device)
    if targets.ndim == 2 and level is not None and -targets.shape[1] <= level < targets.shape[1]:
        targets = targets[:, level]
    elif targets.ndim != 1 or level is not None:
        raise ValueError(
            f"level={level} does not fit targets of shape {list(targets.shape)}: give level= a column of targets "
            "[N, levels], and None for targets [N]; for other targets give prepare="
        )
    if not callable(features) and _is_uint8_for_float(module, images):
        raise ValueError(
            f"{type(module).__name__} has floating-point weights but the loader delivers uint8 images; "
            "give prepare= a function of the batch that returns (images as the module expects them, targets)"
        )
    if precision is None:
        output = _output(module, images, features)
    else:
        with precision.forward_context():
            output = _output(module, precision.convert_input(images), features)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"features={features!r} gave a {type(output).__name__}, not one tensor [N, D]; name the submodule whose "
            "output to judge, or give a function (module, images) -> tensor"
        )
    if output.ndim != 2 or len(output) != len(targets):
        raise ValueError(
            f"features={features!r} gave shape {list(output.shape)} for {len(targets)} images, not [N, D]; pool it "
            "in a function: features=lambda module, images: module.encoder(images).mean((2, 3))"
        )
    return output.to(torch.promote_types(output.dtype, torch.float32)), targets


def find_submodule(module: nn.Module, name: str) -> nn.Module:
    """The submodule of a dotted name.

    Raises:
        ValueError: names those that come near, if there is none.

    Example:
        >>> find_submodule(nn.ModuleDict({"encoder": nn.Identity()}), "encoder")
        Identity()
    """
    parts = dict(module.named_modules())
    if name not in parts:
        near = difflib.get_close_matches(name, parts, n=3, cutoff=0.4) or [part for part, _ in module.named_children()]
        raise ValueError(
            f"features={name!r} is no submodule of {type(module).__name__}; near matches: {', '.join(near)}"
        )
    return parts[name]


def shared_batches(loader: Any, size: int | None = None) -> Iterator[tuple[int, Any]]:
    """The batches that fall to this process, each with its number; over all processes every sample comes once.

    A ``DataLoader`` over a map-style data set is read through its data set and ``collate_fn``, in the data set's order:
    not shuffled, nothing dropped, not split by a ``DistributedSampler``. ``size`` samples of it are a fixed random
    choice. Process r takes the batches r, r + world, ... whatever its loader's sampler says. Anything else (an
    iterable data set, a sampler of one's own) is iterated as it is, and must give every process the same.

    Args:
        loader: any iterable of batches.
        size: the most samples to read; None for all. Of an iterable the first ones; it may read a little more.

    Raises:
        ValueError: if the loader is split among the processes by a sampler that can't be undone.

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
    """The batches of this process for stochastic steps, without end, in a new fixed order on each pass.

    Args:
        loader: as in :func:`shared_batches`; a loader iterated as it is starts at its head whatever ``start`` says.
        size: the most samples to use; ignored for a loader iterated as it is.
        start: number of steps already made.

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
            raise ValueError("train= delivers no batches, or none a second time; give a loader, not a generator")
    order = torch.tensor(indices)
    per_pass = -(-len(_batches(indices, loader.batch_sampler.batch_size)) // world_size())
    number, offset = divmod(start, per_pass)
    while True:
        shuffled = order[torch.randperm(len(order), generator=derive_generator("probe", number))].tolist()
        batches = _batches(shuffled, loader.batch_sampler.batch_size)
        own = [batches[(step * world_size() + rank()) % len(batches)] for step in range(offset, per_pass)]
        yield from _reader(loader, own)
        number, offset = number + 1, 0


def is_rereadable(loader: Any) -> bool:
    """Whether a loader's samples can be read without iterating over the loader itself.

    Example:
        >>> is_rereadable(DataLoader(range(3))), is_rereadable([torch.zeros(1)])
        (True, False)
    """
    return _indices(loader, None) is not None


def gather_in_order(features: Tensor, targets: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes, of any number each, sorted by ``order``; the same in every process.

    Args:
        features: ``[N, D]``; a process without samples may give ``[0, 0]``.
        targets: ``[N]``.
        order: ``[N]``, int64, distinct over all processes.

    Example:
        >>> gather_in_order(torch.tensor([[3.0], [1.0]]), torch.tensor([3, 1]), torch.tensor([8, 2]))
        (tensor([[1.],
                [3.]]), tensor([1, 3]))
    """
    if world_size() > 1:
        sizes = [torch.zeros(2, dtype=torch.long, device=features.device) for _ in range(world_size())]
        dist.all_gather(sizes, torch.tensor(features.shape, device=features.device))
        rows, dim = torch.stack(sizes).amax(dim=0).tolist()
        if len(features) == 0:
            features = features.new_zeros(0, dim)
        counts = [int(size[0]) for size in sizes]
        features, targets, order = (_gather(rows_of, rows, counts) for rows_of in (features, targets, order))
    by_order = order.argsort()
    return features[by_order], targets[by_order]


def _gather(values: Tensor, rows: int, counts: list[int]) -> Tensor:
    padded = values.new_zeros(rows, *values.shape[1:])
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _prepared(batch: Any, prepare: Prepare) -> tuple[Any, Tensor]:
    if prepare is not None:
        prepared = prepare(batch)
        if not (isinstance(prepared, tuple | list) and len(prepared) == 2 and isinstance(prepared[1], Tensor)):
            raise ValueError(f"prepare must return (images, targets), targets a tensor, but it gave {_kind(prepared)}")
        images, targets = prepared
    elif isinstance(batch, Tensor) or (isinstance(batch, tuple | list) and len(batch) < 2):
        raise ValueError(
            "the loader delivers images without labels; give the probe labelled loaders of its own: train= and test="
        )
    elif isinstance(batch, tuple | list) and isinstance(batch[0], Tensor) and isinstance(batch[1], Tensor):
        images, targets = batch[:2]
    else:
        raise ValueError(
            f"the loader delivers {_kind(batch)}, not (images, targets); give prepare= a function of the batch that "
            "returns them, or give the probe loaders of its own: train= and test="
        )
    return images, targets


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__


def _is_uint8_for_float(module: nn.Module, images: Any) -> bool:
    takes_floats = any(parameter.is_floating_point() for parameter in module.parameters())
    is_uint8 = isinstance(images, Tensor) and images.dtype == torch.uint8
    return is_uint8 and takes_floats and not getattr(module, "accepts_uint8", False)


def _output(module: nn.Module, images: Any, features: Features) -> Any:
    if features is None:
        return module(images)
    if not isinstance(features, str):
        return features(module, images)
    outputs: list[Any] = []
    handle = find_submodule(module, features).register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        module(images)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f"features={features!r} was called {len(outputs)} times in one forward, so its output is not one; "
            "give a function (module, images) -> tensor"
        )
    return outputs[0]


def _indices(loader: Any, size: int | None) -> list[int] | None:
    """The samples of a loader in the data set's order, at most ``size``; None where the loader alone knows them."""
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
            f"the loader is split among {sampler.num_replicas} processes by {type(sampler).__name__}; "
            "give the probe loaders of its own, not split: train= and test="
        )
    else:
        return None
    if size is not None and size < len(indices):
        chosen = torch.randperm(len(indices), generator=derive_generator("probe", "bank"))[:size]
        indices = indices[chosen.sort().values]
    return indices.tolist()


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
