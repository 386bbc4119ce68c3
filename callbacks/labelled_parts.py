"""Mixin of the probes that reads the features of the labelled parts, and checks the parts before the first step."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssl_modules.callbacks.probe_data import datamodule_of, find_loader, is_fast_dev_run
from ssl_modules.evaluation.batches import sample_count, shared_batches, stored_targets
from ssl_modules.evaluation.checks import check_labelled
from ssl_modules.evaluation.features import Prepare, classes, features_and_targets, undisturbed
from ssl_modules.evaluation.protocols import Labelled
from ssl_modules.evaluation.shared_features import SharedFeatures, shared_features


class LabelledParts:
    """Mixin that reads the training and test part of an :class:`~ssl_modules.callbacks.OnlineProbe`."""

    name: str
    train: Iterable[Any] | Dataset[Any] | None
    test: Iterable[Any] | Dataset[Any] | None
    datamodule: LightningDataModule | None
    features: str | Callable[[Any, Any], Tensor] | None
    prepare: Prepare
    level: int | None
    bank_size: int | None
    parts: tuple[str, ...] = ("train", "test")
    compared: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self._without_trainer = SharedFeatures()
        self._loaders: dict[str, Any] = {}

    def read(self, part: str, module: nn.Module, trainer: Any) -> Labelled:
        """Return features and classes of all samples of a part, the same in every process.

        All probes of the Trainer share these tensors, so do not change them in place. The features are computed in eval
        mode. Afterwards, the module is in the same mode as before.

        Args:
            part: ``"train"`` or ``"test"``.
            module: the argument of :meth:`~ssl_modules.callbacks.OnlineProbe.measure`.
            trainer: the argument of :meth:`~ssl_modules.callbacks.OnlineProbe.measure`.

        Returns:
            ``features [N, D]``, float32 or better, and ``targets [N]``, int64, both on the module's device.

        Raises:
            ValueError: if the part has no samples, or the samples do not fit the module.
        """
        features, targets = self._shared(trainer).read(
            module,
            self._find_loader(part, trainer),
            name=f"{self.name}, {part} data",
            size=self._size(part),
            batches=(trainer.fast_dev_run or None) if trainer is not None else None,
            features=self.features,
            prepare=self._prepare(part),
            precision=_precision(trainer),
        )
        if len(targets) == 0:
            raise ValueError(self._has_none(part))
        return Labelled(features, self._labels(part, features, targets))

    def min_samples(self, part: str) -> int:
        """Return the minimum number of samples of a part. Fewer samples raise an error before the first step.

        Args:
            part: ``"train"`` or ``"test"``.
        """
        return 1

    def _shared(self, trainer: Any) -> SharedFeatures:
        return self._without_trainer if trainer is None else shared_features(trainer)

    def _read_batch(self, part: str, module: nn.Module, batch: Any, trainer: Any) -> Labelled:
        """Return features and classes of one batch; see :meth:`read`."""
        features, targets = features_and_targets(
            module, batch, features=self.features, prepare=self._prepare(part), precision=_precision(trainer)
        )
        return Labelled(features, self._labels(part, features, targets))

    def _try(self, part: str, module: nn.Module, trainer: Trainer) -> None:
        loader = self._find_loader(part, trainer)
        count = sample_count(loader, self._size(part))
        least = 1 if is_fast_dev_run(trainer) else self.min_samples(part)
        if count == 0:
            raise ValueError(self._has_none(part))
        if count is not None and count < least:
            raise ValueError(
                f"{self.name}: expected at least {least} samples of the {part} data, got {count}; give the probe "
                "more samples, or a smaller k"
            )
        with undisturbed(module):
            for number, batch in shared_batches(loader, self._size(part)):
                first = self._read_batch(part, module, batch, trainer).targets
                self._look_at_targets(part, loader, number, first, trainer)
                break

    def _look_at_targets(self, part: str, loader: Any, number: int, first: Tensor, trainer: Trainer) -> None:
        """Check all targets of a part, if its data set stores them separately from the images.

        ``first`` holds the targets of batch ``number`` as the loader gives them. If they differ from the stored
        targets, the loader transforms the targets, so the stored ones are not checked.
        """
        stored = None if self._prepare(part) is not None else stored_targets(loader, self._size(part))
        if stored is None:
            return
        labels, start = classes(stored, self.level), number * loader.batch_sampler.batch_size
        if torch.equal(labels[start : start + len(first)], first.to(labels)):
            check_labelled(f"{self.name}, {part} data", torch.zeros(len(labels), 1), labels)
            self._check_targets(part, labels, trainer)

    def _check_targets(self, part: str, labels: Tensor, trainer: Any) -> None:
        """Raise an error if :meth:`measure` can't use ``labels``, which are all targets of the part."""
        if part == self.compared:
            self._check_classes(labels, trainer)

    def _labels(self, part: str, features: Tensor, targets: Tensor) -> Tensor:
        labels = classes(targets, self.level)
        check_labelled(f"{self.name}, {part} data", features, labels)
        return labels

    def _check_classes(self, labels: Tensor, trainer: Any) -> None:
        """Raise an error if all labels are of one class, unless the Trainer does a ``fast_dev_run``."""
        if bool((labels == labels[0]).all()) and not is_fast_dev_run(trainer):
            is_folder = getattr(datamodule_of(self, trainer), "class_folders", False)
            without = " If the images have no classes, pass class_folders=False and leave the probe out."
            raise ValueError(
                f"{self.name}: expected samples of two or more classes, got {len(labels)}, all of class {labels[0]}; "
                f"give it data of more classes, or leave the probe out.{without if is_folder else ''}"
            )

    def _size(self, part: str) -> int | None:
        """Return the maximum number of samples to read of a part, or None for all."""
        return None if part == "test" else self.bank_size

    def _prepare(self, part: str) -> Prepare:
        return self.prepare

    def _has_none(self, part: str) -> str:
        return f"{self.name}: expected samples of the {part} loader, got none; give the probe another loader as {part}="

    def _find_loader(self, part: str, trainer: Any) -> Any:
        if part not in self._loaders:
            with isolate_rng():  # a datamodule may draw random numbers
                self._loaders[part] = self._look_for_loader(part, trainer)
        return self._loaders[part]

    def _look_for_loader(self, part: str, trainer: Any) -> Any:
        return find_loader(self, part, trainer, self._shared(trainer))


def _precision(trainer: Any) -> Any:
    return None if trainer is None else trainer.precision_plugin
