"""Features that the callbacks of one Trainer share, so that the module computes those of each image only once.

Each Trainer has one :class:`SharedFeatures`, stored in a registry. All callbacks read through
``shared_features(trainer)``, so the order of the callbacks makes no difference.
"""

from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ssl_modules.evaluation.batches import is_data_set, loader_of, shared_batches
from ssl_modules.evaluation.features import Features, Prepare, device_of, features_and_targets, undisturbed
from ssl_modules.utils.distributed import gather_objects, total, world_size


class SharedFeatures:
    """Cache of the loaders and features that the callbacks of one Trainer use.

    Cached features are returned only for the same module with equal parameters and buffers, the same loader object and
    equal settings. Otherwise the features are computed again. All processes must make the same calls.

    Example:
        >>> module, loader = nn.Flatten(), [(torch.eye(2), torch.tensor([1, 0]))]
        >>> shared = SharedFeatures()
        >>> features, targets = shared.read(module, loader)
        >>> shared.read(module, loader)[0] is features
        True
        >>> shared.clear()
        >>> shared.read(module, loader)[0] is features
        False
    """

    def __init__(self) -> None:
        self._loaders: list[tuple[Any, str, Any]] = []  # (datamodule, part, loader) or (data set, "", loader)
        self._module: nn.Module | None = None
        self._weights: list[Tensor] = []
        self._passes: list[tuple[Any, ...]] = []

    def loader(self, data: LightningDataModule, which: str, *, set_up: bool) -> Any:
        """Return a datamodule's labelled loader of a part; each loader is created once.

        Args:
            data: any datamodule.
            which: ``"train"`` calls ``probe_train_dataloader()``, or ``train_dataloader()`` if that does not exist;
                ``"test"`` calls ``probe_test_dataloader()`` or ``val_dataloader()``.
            set_up: whether to prepare and set up the datamodule before its first loader is created.
        """
        known = {part: loader for asked, part, loader in self._loaders if asked is data}
        if which not in known:
            if set_up and not known:
                _set_up(data)
            usual = "train_dataloader" if which == "train" else "val_dataloader"
            known[which] = getattr(data, f"probe_{which}_dataloader", getattr(data, usual))()
            self._loaders.append((data, which, known[which]))
        return known[which]

    def as_loader(self, data: Any) -> Any:
        """Return a loader of a map-style data set, the same object at each call; return a loader unchanged."""
        if not is_data_set(data):
            return data
        known = [loader for asked, _, loader in self._loaders if asked is data]
        if not known:
            known = [loader_of(data)]
            self._loaders.append((data, "", known[0]))
        return known[0]

    def read(
        self,
        module: nn.Module,
        loader: Any,
        *,
        name: str = "data",
        size: int | None = None,
        batches: int | None = None,
        features: Features = None,
        prepare: Prepare = None,
        precision: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Return features and targets of a loader's samples; they do not depend on the number of processes.

        Every process gets all samples, in the same order. The module is not changed. The result is shared, so do not
        change it in place.

        Args:
            module: any module, on its device.
            loader: any iterable of batches; see :func:`~ssl_modules.evaluation.batches.shared_batches`.
            name: name of these samples in a message.
            size: maximum number of samples to read; None for all.
            batches: maximum number of batches to read; None for all.
            features: as in :func:`~ssl_modules.evaluation.features.features_and_targets`.
            prepare: as in :func:`~ssl_modules.evaluation.features.features_and_targets`.
            precision: as in :func:`~ssl_modules.evaluation.features.features_and_targets`.

        Returns:
            Features ``[N, D]``, float32 or better, and targets ``[N, ...]``, int64; N is 0 for an empty loader.

        Raises:
            ValueError: in every process, if features of any process are not finite; the message names the batch.
        """
        self._forget_other_weights(module)
        settings = {"features": features, "prepare": prepare, "precision": precision}
        for *known, result in self._passes:
            if known[0] is loader and known[1:] == [size, batches, settings]:
                return result
        with undisturbed(module):
            own, targets, order = _own_share(module, loader, size, batches, settings)
        _check_finite(name, own, order >> 32)
        gathered, targets = gather_in_order(own, targets, order)
        result = gathered[:size], targets[:size]
        self._passes.append((loader, size, batches, settings, result))
        return result

    def clear(self) -> None:
        """Free the features."""
        self._module, self._weights, self._passes = None, [], []

    def _forget_other_weights(self, module: nn.Module) -> None:
        # Compare values, because updates through .data and fused optimisers do not increase a tensor's version counter.
        weights = [x.detach() for x in chain(module.parameters(), module.buffers()) if not is_lazy(x)]
        is_same = (
            module is self._module and len(weights) == len(self._weights) and all(map(_equal, weights, self._weights))
        )
        # All processes must agree: if only some computed features, they would wait for the others forever.
        if total(torch.tensor(int(not is_same), device=device_of(module))) > 0:
            self.clear()
            self._module, self._weights = module, [x.clone() for x in weights]


_OF_TRAINER: WeakKeyDictionary[Any, SharedFeatures] = WeakKeyDictionary()


def shared_features(trainer: Any) -> SharedFeatures:
    """Return the :class:`SharedFeatures` of a Trainer; the first call creates it.

    A callback reads features in the hooks at the end of a validation, test or training epoch. It calls
    :meth:`SharedFeatures.clear` in the hooks that follow: ``on_validation_end``, ``on_test_end`` and
    ``on_train_epoch_start``. It calls :func:`release` in ``setup``, ``teardown`` and ``on_exception``. Several
    callbacks may make the same call.

    Args:
        trainer: a ``lightning`` or ``pytorch_lightning`` Trainer.

    Example:
        >>> class Trainer: ...
        >>> trainer = Trainer()
        >>> shared_features(trainer) is shared_features(trainer), shared_features(trainer) is shared_features(Trainer())
        (True, False)
    """
    return _OF_TRAINER.setdefault(trainer, SharedFeatures())


def release(trainer: Any) -> None:
    """Delete the loaders and features of a Trainer; they may refer to the Trainer and keep it in memory.

    Args:
        trainer: any Trainer, also one without features.
    """
    _OF_TRAINER.pop(trainer, None)


def gather_in_order(features: Tensor, targets: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the rows of all processes, sorted by ``order``, in every process; their numbers may differ.

    Args:
        features: ``[N, D]``; a process without samples may give ``[0, 0]``.
        targets: ``[N, ...]``; a process without samples may give ``[0]``.
        order: ``[N]``, int64; each value occurs once over all processes.

    Example:
        >>> gather_in_order(torch.tensor([[3.0], [1.0]]), torch.tensor([3, 1]), torch.tensor([8, 2]))
        (tensor([[1.],
                [3.]]), tensor([1, 3]))
    """
    if world_size() > 1:
        shapes = gather_objects((tuple(features.shape), tuple(targets.shape)))
        counts = [shape[0] for shape, _ in shapes]
        (rows, dim), (_, *levels) = shapes[counts.index(max(counts))]
        if len(features) == 0:
            features, targets = features.new_zeros(0, dim), targets.new_zeros(0, *levels)
        features, targets, order = (_gather(values, rows, counts) for values in (features, targets, order))
    by_order = order.argsort()
    return features[by_order], targets[by_order]


def _gather(values: Tensor, rows: int, counts: list[int]) -> Tensor:
    padded = values.new_zeros(rows, *values.shape[1:])
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _own_share(
    module: nn.Module, loader: Any, size: int | None, limit: int | None, settings: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, targets and positions of this process's samples; the upper 32 bits of a position are its batch."""
    features, targets, order, count = [], [], [], 0
    for number, batch in shared_batches(loader, size):
        if (size is not None and count >= size) or (limit is not None and number >= limit):
            break
        batch_features, batch_targets = features_and_targets(module, batch, **settings)
        features.append(batch_features)
        targets.append(batch_targets.long())
        order.append((number << 32) + torch.arange(len(batch_targets), device=batch_targets.device))
        count += len(batch_targets)
    if not features:
        device, dtype = device_of(module), next(module.parameters(), torch.zeros(0)).dtype
        features = [torch.zeros(0, 0, device=device, dtype=torch.promote_types(dtype, torch.float32))]
        targets = order = [torch.zeros(0, device=device, dtype=torch.long)]
    return torch.cat(features), torch.cat(targets), torch.cat(order)


def _check_finite(name: str, features: Tensor, numbers: Tensor) -> None:
    """Raise in every process if features of any process are not finite; ``numbers [N]`` are their batch numbers."""
    broken = numbers[~features.isfinite().all(dim=1)]
    first = [number for found in gather_objects(broken[:1].tolist()) for number in found]
    if first:
        raise ValueError(
            f"{name}: expected finite features, got NaN or infinity in batch {min(first)}; has the training diverged, "
            "or do the images hold NaN?"
        )


def _equal(first: Tensor, second: Tensor) -> bool:
    # torch.equal raises for different devices or types, and for sparse tensors.
    is_comparable = (first.device, first.dtype) == (second.device, second.dtype) and first.layout == torch.strided
    return is_comparable and torch.equal(first, second)


def _set_up(data: LightningDataModule) -> None:
    # Like the Trainer: one process per node prepares the data, all processes wait for it, then all read the data.
    if world_size() == 1 or dist.get_node_local_rank(fallback_rank=dist.get_rank()) == 0:
        data.prepare_data()
    if world_size() > 1:
        dist.barrier()
    data.setup("fit")
