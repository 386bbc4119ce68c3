"""The base of the online probes: their data, when they run, and where the result goes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ssl_modules.callbacks.probe_data import (
    datamodule_of,
    find_loader,
    is_fast_dev_run,
    takes_the_trainers_loaders,
    validates,
)
from ssl_modules.evaluation.batches import sample_count, shared_batches, stored_targets
from ssl_modules.evaluation.checks import check_labelled
from ssl_modules.evaluation.features import Prepare, classes, features_and_targets, find_submodule, undisturbed
from ssl_modules.evaluation.protocols import Labelled
from ssl_modules.evaluation.shared_features import SharedFeatures, release, shared_features
from ssl_modules.utils.checks import Checked, check_number
from ssl_modules.utils.configurable import FullSignature
from ssl_modules.utils.lightning import state_key


class OnlineProbe(Checked, FullSignature, Callback, ABC):
    """Base of all probes, and of your own: it judges a module's representation while the module trains.

    A subclass writes :meth:`measure`: it reads labelled features by :meth:`read` and returns numbers, which are logged
    as ``{name}/{metric}``, for ``ModelCheckpoint(monitor="probe/knn_top1", mode="max")``. It may also set :attr:`parts`
    and override :meth:`min_samples` and :meth:`settings`. Arguments of its own come before ``**settings``, which it
    passes on to ``super().__init__(**settings)``.

    **Attaches to** any LightningModule, in the list of callbacks of a ``lightning`` or ``pytorch_lightning`` Trainer.
    Module, optimisers and random states stay as they are. Any number of processes gives the same values.

    **Data**: the first of these that is given: ``train`` and ``test``; ``datamodule``; the Trainer's datamodule; the
    Trainer's own training and validation loaders. A datamodule is asked for ``probe_train_dataloader()`` and
    ``probe_test_dataloader()``; where it has none, for ``train_dataloader()`` and ``val_dataloader()``. The images
    should not be augmented. A loader over a map-style data set is read whole and in the data set's order: without
    shuffling, dropping or splitting, whatever ``limit_*_batches`` say. ``fast_dev_run`` reads that number of batches.

    **Times**: ``on_train_start`` tries one batch of each loader, and looks at all targets that a data set stores as
    ``targets``, so that mistakes show before the first step.
    ``on_validation_epoch_end`` judges, except in the sanity check; or ``on_train_epoch_end``, where the Trainer runs no
    validation loop. Both are in time for ``ModelCheckpoint`` and ``EarlyStopping``. ``Trainer.validate`` judges as
    well, and so does ``Trainer.test`` where the probe has training data of its own or a datamodule's.

    **Sharing**: all probes of one Trainer read from one store, that of
    :func:`~ssl_modules.evaluation.shared_features.shared_features`. Probes with the same loader objects or datamodule,
    ``features``, ``prepare`` and ``bank_size`` therefore send each image through the module once for all of them. The
    store is emptied when the epoch's probes have run.

    Args:
        train: labelled loader of the images to learn from; needs ``test``.
        test: labelled loader of the images to judge on; needs ``train``.
        datamodule: prepared and set up by the probe, unless it is the Trainer's.
        features: None for ``module(images)``; the dotted name of a submodule whose output is taken; or, from Python, a
            function ``(module, images) -> [N, D]``.
        prepare: function of a loader's batch that returns ``(images as the module expects them, targets)``; None takes
            the first two of a tuple as they are.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.
        bank_size: number of training images to use, a fixed random choice; None for all.
        every_n_epochs: judges when n epochs or more have passed since it last did, and in the last epoch.
        name: first part of the metrics' names, or name of the picture. Two probes of one class need two names.

    Attributes:
        parts: names of the parts that :meth:`measure` reads, ``("train", "test")`` by default. Each is tried in
            ``on_train_start``.
        compared: name of the part whose samples must be of two or more classes; None where one will do, the default.
        result: the last metrics with epoch, step and settings, as plain values; None before the first. Checkpoints
            hold it.

    Raises:
        TypeError: for an argument of another type than its annotation.
        ValueError: for a value out of range, or arguments that do not go together.

    Example:
        >>> class NearestMeanProbe(OnlineProbe):
        ...     def measure(self, module, trainer):
        ...         bank, labels = self.read("train", module, trainer)
        ...         queries, targets = self.read("test", module, trainer)
        ...         found = labels.unique()
        ...         means = torch.stack([bank[labels == label].mean(dim=0) for label in found])
        ...         nearest = found[torch.cdist(queries, means).argmin(dim=1)]
        ...         return {"mean_top1": (nearest == targets).double().mean().item()}
        >>> images, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> NearestMeanProbe(train=loader, test=loader).evaluate(torch.nn.Identity())
        {'probe/mean_top1': 1.0}
    """

    parts: tuple[str, ...] = ("train", "test")
    compared: str | None = None

    def __init__(
        self,
        *,
        train: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        datamodule: LightningDataModule | None = None,
        features: str | Callable[[Any, Any], Tensor] | None = None,
        prepare: Callable[[Any], tuple[Any, Tensor]] | None = None,
        level: int | None = None,
        bank_size: int | None = 5_000,
        every_n_epochs: int = 1,
        name: str = "probe",
    ) -> None:
        if (train is None) != (test is None):
            given, missing = ("train", "test") if test is None else ("test", "train")
            raise ValueError(f"{missing}: expected a loader beside {given}=, got None; give both, or neither")
        if train is not None and datamodule is not None:
            raise ValueError(
                "datamodule: expected None beside train= and test=, got both; give loaders or a datamodule"
            )
        if datamodule is not None and not hasattr(datamodule, "train_dataloader"):  # one of either namespace
            raise TypeError(f"datamodule: expected a LightningDataModule, got {datamodule!r}")
        if bank_size is not None:
            check_number("bank_size", bank_size, least=1)
        check_number("every_n_epochs", every_n_epochs, least=1)
        self.train = train
        self.test = test
        self.datamodule = datamodule
        self.features = features
        self.prepare = prepare
        self.level = level
        self.bank_size = bank_size
        self.every_n_epochs = every_n_epochs
        self.name = name
        self.result: dict[str, int | float | str | None] | None = None
        self._without_trainer = SharedFeatures()
        self._loaders: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------- what a subclass is made of

    @abstractmethod
    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """The metrics of a module; to be written by the subclass.

        Runs without gradient, in every process alike.

        Args:
            module: any module, on its device.
            trainer: the Trainer; None in :meth:`evaluate`.

        Returns:
            Metric to value, without the probe's name.
        """

    def read(self, part: str, module: nn.Module, trainer: Any) -> Labelled:
        """Features and classes of a part's samples, the same in every process.

        They come from the pass that all probes of the Trainer share, and must not be changed in place. The module is in
        eval mode for it and is left as it was.

        Args:
            part: ``"train"`` or ``"test"``.
            module: as :meth:`measure` gets it.
            trainer: likewise.

        Returns:
            ``features [N, D]``, float32 or better, and ``targets [N]``, int64, both on the module's device.

        Raises:
            ValueError: if the part has no samples, or they do not fit the module.
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
        """The fewest samples of a part that can be measured; fewer are an error before the first step.

        Args:
            part: one of :attr:`parts`.
        """
        return 1

    def settings(self) -> dict[str, int | float | str | None]:
        """What a metric depends on, as plain values: logged once, and kept in :attr:`result`."""
        return {"bank_size": self.bank_size}

    # ---------------------------------------------------------------------------------------------- what a user calls

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """The probe's metrics of a module without a Trainer: before training, or of a checkpoint.

        The data are the probe's own, or those it found in the last run. Where there is a process group, every process
        must call it.

        Args:
            module: any module, on its device; it is left as it was.

        Returns:
            Metric name to value.

        Raises:
            ValueError: if the probe has no data, or they do not fit the module.
        """
        try:
            return self._evaluate(module, None)
        finally:
            self._without_trainer.clear()

    # ---------------------------------------------------------------------------------------------- Lightning's hooks

    @property
    def state_key(self) -> str:
        """Tells probes of one class apart by their names."""
        return state_key(self, name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """The last result, as plain values."""
        return {"result": self.result}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last result.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        self.result = state_dict["result"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the data and the result of another run; a resumed result is loaded later."""
        self._loaders = {}
        release(trainer)
        if stage == "fit" and trainer.current_epoch == 0:
            self.load_state_dict({"result": None})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send one batch of each loader through the module, count all samples, and look at their targets if cheap."""
        if isinstance(self.features, str):
            find_submodule(pl_module, self.features)
        for part in self.parts:
            # Lightning asks for the validation loader as late as the first epoch that needs it.
            is_late = part == "test" and validates(trainer) and trainer.val_dataloaders is None
            if not (is_late and takes_the_trainers_loaders(self, trainer)):
                self._try(part, pl_module, trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge after a validation run."""
        if not trainer.sanity_checking:
            self._run_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge after a training epoch where there is no validation loop."""
        if not validates(trainer):
            self._run_if_due(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge in ``Trainer.test``, where the probe has training data of its own or a datamodule's."""
        if not takes_the_trainers_loaders(self, trainer):
            self._run_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the features: all probes have run."""
        shared_features(trainer).clear()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the features."""
        shared_features(trainer).clear()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the features that were read at the end of the last epoch."""
        shared_features(trainer).clear()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the Trainer's store."""
        release(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the Trainer's store."""
        release(trainer)

    # ------------------------------------------------------------------------------------------------- how it is done

    def _run_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not self._is_due(trainer):
            return
        is_first = self.result is None
        metrics = self._evaluate(pl_module, trainer)
        settings = self.settings()
        self.result = {"epoch": trainer.current_epoch, "step": trainer.global_step, **settings, **metrics}
        if is_first:
            rank_zero_info(f"{self.name}: {', '.join(f'{key}={value}' for key, value in settings.items())}")
        # Every process has the same value. The maximum keeps it exactly, where a mean might round it.
        pl_module.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, reduce_fx="max", sync_dist=True)

    def _is_due(self, trainer: Trainer) -> bool:
        last = -1 if self.result is None else int(self.result["epoch"] or 0)
        elapsed = trainer.current_epoch - last
        return elapsed == 0 or elapsed >= self.every_n_epochs or trainer.current_epoch + 1 == trainer.max_epochs

    @torch.no_grad()
    def _evaluate(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        for part in self.parts:  # report missing data before a pass through the module
            self._find_loader(part, trainer)
        return {f"{self.name}/{metric}": value for metric, value in self.measure(module, trainer).items()}

    def _shared(self, trainer: Any) -> SharedFeatures:
        return self._without_trainer if trainer is None else shared_features(trainer)

    def _read_batch(self, part: str, module: nn.Module, batch: Any, trainer: Any) -> Labelled:
        """Like :meth:`read`, of one batch."""
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
                f"{self.name}: expected at least {least} samples of the {part} data, got {count}; give it more, or "
                "lower its k"
            )
        with undisturbed(module):
            for number, batch in shared_batches(loader, self._size(part)):
                first = self._read_batch(part, module, batch, trainer).targets
                self._look_at_targets(part, loader, number, first, trainer)
                break

    def _look_at_targets(self, part: str, loader: Any, number: int, first: Tensor, trainer: Trainer) -> None:
        """Check all targets of a part, where its data set stores them apart from the images.

        ``first`` are those of the batch ``number``. Where they are not the stored ones, the loader changes them.
        """
        stored = None if self._prepare(part) is not None else stored_targets(loader, self._size(part))
        if stored is None:
            return
        labels, start = classes(stored, self.level), number * loader.batch_sampler.batch_size
        if torch.equal(labels[start : start + len(first)], first.to(labels)):
            check_labelled(f"{self.name}, {part} data", torch.zeros(len(labels), 1), labels)
            self._check_targets(part, labels, trainer)

    def _check_targets(self, part: str, labels: Tensor, trainer: Any) -> None:
        """Raises if :meth:`measure` can't judge with these targets of a part, all that there are."""
        if part == self.compared:
            self._check_classes(labels, trainer)

    def _labels(self, part: str, features: Tensor, targets: Tensor) -> Tensor:
        labels = classes(targets, self.level)
        check_labelled(f"{self.name}, {part} data", features, labels)
        return labels

    def _check_classes(self, labels: Tensor, trainer: Any) -> None:
        """Raises for labels of one class alone, unless a Trainer only tries a few batches."""
        if bool((labels == labels[0]).all()) and not is_fast_dev_run(trainer):
            is_folder = getattr(datamodule_of(self, trainer), "class_folders", False)
            otherwise = " For images without classes: class_folders=False, and no probe." if is_folder else ""
            raise ValueError(
                f"{self.name}: expected samples of two or more classes, got {len(labels)} of class {labels[0]} alone; "
                f"give it data of more classes, or leave the probe out.{otherwise}"
            )

    def _size(self, part: str) -> int | None:
        """The most samples of a part to read."""
        return None if part == "test" else self.bank_size

    def _prepare(self, part: str) -> Prepare:
        return self.prepare

    def _has_none(self, part: str) -> str:
        return f"{self.name}: expected samples of the {part} loader, got none; give the probe another one as {part}="

    def _find_loader(self, part: str, trainer: Any) -> Any:
        if part not in self._loaders:
            with isolate_rng():  # a datamodule may draw
                self._loaders[part] = self._look_for_loader(part, trainer)
        return self._loaders[part]

    def _look_for_loader(self, part: str, trainer: Any) -> Any:
        return find_loader(self, part, trainer, self._shared(trainer))


def _precision(trainer: Any) -> Any:
    return None if trainer is None else trainer.precision_plugin
