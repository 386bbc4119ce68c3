"""The base class of the online probes, which runs them and logs their results."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssl_modules.callbacks.base import MeasuringCallback
from ssl_modules.callbacks.labelled_parts import LabelledParts
from ssl_modules.callbacks.probe_data import (
    check_data,
    takes_the_trainers_loaders,
    validates,
)
from ssl_modules.evaluation.features import find_submodule, undisturbed
from ssl_modules.evaluation.shared_features import release, shared_features
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.configurable import FullSignature


class OnlineProbe(LabelledParts, FullSignature, MeasuringCallback, ABC):
    """Base class of all probes: a callback that evaluates a module's representation while the module trains.

    To write a probe, subclass it and implement :meth:`measure`. That method reads labelled features with :meth:`read`
    and returns metrics. They are logged as ``{name}/{metric}``, so that
    ``ModelCheckpoint(monitor="probe/knn_top1", mode="max")`` can use them. A subclass may also set :attr:`parts` and
    override :meth:`min_samples` and :meth:`settings`. It declares its own arguments before ``**settings`` and calls
    ``super().__init__(**settings)``.

    **Trainer**: a probe works with any LightningModule, as a callback of a ``lightning`` or ``pytorch_lightning``
    Trainer. It does not change the module, the optimisers or the random states. Its values do not depend on the number
    of processes.

    **Data**: a probe uses the first of these sources that is given:

    - ``train`` and ``test``
    - ``datamodule``
    - the Trainer's datamodule
    - the Trainer's training and validation loaders

    The probe calls ``probe_train_dataloader()`` and ``probe_test_dataloader()`` of a datamodule. If these do not exist,
    it calls ``train_dataloader()`` and ``val_dataloader()``. If ``train`` or ``test`` is a data set, the probe reads it
    in batches of 128. A list of ``(image, label)`` is a data set. A list of batches is a loader. The images should not
    be augmented. The probe reads all samples of a map-style data set, in the order of the data set. It ignores the
    loader's shuffling, ``drop_last`` and distributed splitting, and the Trainer's ``limit_*_batches``. With
    ``fast_dev_run=n``, it reads only n batches.

    **Labels**: a label is the name of a class: an integer of at least 0 and of any size. The label -1 raises an error,
    because it usually means "unlabelled". In accuracies, a test image of a class without training images counts as
    wrong.

    **Times**: ``on_train_start`` checks one batch of each loader, and all targets that a data set stores as
    ``targets``, so that errors are raised before the first step. The probe runs in ``on_validation_epoch_end``, except
    in the sanity check. If the Trainer runs no validation loop, it runs in ``on_train_epoch_end``. The probe also runs
    in ``Trainer.validate``. It runs in ``Trainer.test`` if its training data are its own or those of a datamodule.

    **Order**: a probe may stand anywhere in the Trainer's list of callbacks, because ``setup`` moves the probes to the
    front. ``ModelCheckpoint``, ``EarlyStopping``, learning-rate schedulers and your own callbacks therefore read the
    metrics of the same epoch. During validation, a probe evaluates the weights that the validation uses; these are the
    averaged weights under Lightning's ``WeightAveraging`` and ``EMAWeightAveraging``. Without a validation loop, the
    probe evaluates the trained weights, not their average.

    **Sharing**: all probes of one Trainer share their features, through
    :func:`~ssl_modules.evaluation.shared_features.shared_features`. If probes have the same loaders or datamodule,
    ``features``, ``prepare`` and ``bank_size``, the module computes the features of each image only once. The features
    are freed when all probes of the epoch have run.

    Args:
        train: loader or map-style data set of the labelled training images; requires ``test``.
        test: loader or map-style data set of the labelled test images; requires ``train``.
        datamodule: datamodule of the probe. The probe prepares it and sets it up, unless it is the Trainer's.
        features: None uses ``module(images)``. A dotted name uses the output of that submodule in ``module(images)``.
            If the module has no ``forward``, the probe instead calls the outermost submodule along the name that has
            one, such as ``module.backbone(images)`` for "backbone" and "backbone.layer4". In Python, also a function
            ``(module, images) -> [N, D]``.
        prepare: function that maps a loader's batch to ``(images as the module expects them, targets)``; None uses the
            first two items of a tuple, or the entries of a mapping under keys such as "image" and "label"
            (:func:`~ssl_modules.batch.fields` lists them).
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.
        bank_size: number of training images to use, a fixed random subset; None for all.
        every_n_epochs: the probe runs if at least n epochs have passed since its last run, and in the last epoch.
        name: prefix of the metrics' names, or name of the picture. Two probes of the same class need different names.

    Attributes:
        parts: names of the parts that :meth:`measure` reads, ``("train", "test")`` by default. ``on_train_start``
            checks each of them.
        compared: name of the part that must have samples of two or more classes; None, the default, if no part must.
        result: the last metrics with epoch, step and settings, as plain values; None before the first run. Checkpoints
            store it.

    Raises:
        TypeError: if an argument has another type than its annotation.
        ValueError: if a value is out of range, or arguments do not fit together.

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

    def __init__(
        self,
        *,
        train: Iterable[Any] | Dataset[Any] | None = None,
        test: Iterable[Any] | Dataset[Any] | None = None,
        datamodule: LightningDataModule | None = None,
        features: str | Callable[[Any, Any], Tensor] | None = None,
        prepare: Callable[[Any], tuple[Any, Tensor]] | None = None,
        level: int | None = None,
        bank_size: int | None = 5_000,
        every_n_epochs: int = 1,
        name: str = "probe",
    ) -> None:
        super().__init__()
        if (train is None) != (test is None):
            given, missing = ("train", "test") if test is None else ("test", "train")
            raise ValueError(f"{missing}: expected a loader beside {given}=, got None; give both, or neither")
        for part, data in (("train", train), ("test", test)):
            check_data(part, data)
        if train is not None and datamodule is not None:
            raise ValueError(
                "datamodule: expected None beside train= and test=, got both; give loaders or a datamodule"
            )
        if datamodule is not None and not hasattr(datamodule, "train_dataloader"):  # lightning or pytorch_lightning
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

    # ---------------------------------------------------------------------------------------- methods for a subclass

    @abstractmethod
    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Compute the metrics of a module; the subclass must implement it.

        It runs without gradients, and in every process.

        Args:
            module: any module, on its device.
            trainer: the Trainer; None in :meth:`evaluate`.

        Returns:
            The value of each metric, by its name without the probe's name. The progress bar shows the first metric.
        """

    def settings(self) -> dict[str, int | float | str | None]:
        """Return the settings that affect the metrics, as plain values; they are logged and kept in :attr:`result`."""
        return {"bank_size": self.bank_size}

    # -------------------------------------------------------------------------------------------- methods for a user

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Compute the probe's metrics of a module without a Trainer, for example before training or of a checkpoint.

        It uses the probe's own data, or those that the probe found in the last run. In a process group, every process
        must call it.

        Args:
            module: any module, on its device; it is not changed.

        Returns:
            Metric name to value.

        Raises:
            ValueError: if the probe has no data, or the data do not fit the module.
        """
        try:
            return self._evaluate(module, None)
        finally:
            self._without_trainer.clear()

    # ---------------------------------------------------------------------------------------------- Lightning's hooks

    def state_dict(self) -> dict[str, Any]:
        """Return the last result, as plain values."""
        return {"result": self.result}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last result.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        self.result = state_dict["result"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move the probe before other callbacks, and clear the data and the result of an earlier run."""
        super().setup(trainer, pl_module, stage)
        self._loaders = {}
        release(trainer)
        if stage == "fit" and trainer.current_epoch == 0:
            self.load_state_dict({"result": None})  # the Trainer loads a checkpoint's result after this hook

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try one batch of each loader, count all samples, and check all targets that the data sets store."""
        if isinstance(self.features, str):
            find_submodule(pl_module, self.features)
        for part in self.parts:
            # Lightning creates the validation loader only in the first epoch that needs it.
            is_late = part == "test" and validates(trainer) and trainer.val_dataloaders is None
            if not (is_late and takes_the_trainers_loaders(self, trainer)):
                self._try(part, pl_module, trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the probe after a validation."""
        if not trainer.sanity_checking:
            self._run_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the probe after a training epoch if there is no validation loop."""
        if not validates(trainer):
            self._run_if_due(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the probe in ``Trainer.test`` if its training data are its own or those of a datamodule."""
        if not takes_the_trainers_loaders(self, trainer):
            self._run_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the features, because all probes have run."""
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

    # ------------------------------------------------------------------------------------------------ implementation

    def _run_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not self._is_due(trainer):
            return
        is_first = self.result is None
        metrics = self._evaluate(pl_module, trainer)
        settings = self.settings()
        self.result = {"epoch": trainer.current_epoch, "step": trainer.global_step, **settings, **metrics}
        if is_first:
            rank_zero_info(
                f"{type(self).__name__} {self.name}: {', '.join(f'{key}={value}' for key, value in settings.items())}"
            )
        self._log(trainer, pl_module, metrics, on_bar=next(iter(metrics), None))  # the bar has room for one metric

    def _is_due(self, trainer: Trainer) -> bool:
        last = -1 if self.result is None else int(self.result["epoch"] or 0)
        elapsed = trainer.current_epoch - last
        return elapsed == 0 or elapsed >= self.every_n_epochs or trainer.current_epoch + 1 == trainer.max_epochs

    @torch.no_grad()
    def _evaluate(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        for part in self.parts:  # raises for missing data before features are computed
            self._find_loader(part, trainer)
        with undisturbed(module):  # a probe may call the module itself
            return {f"{self.name}/{metric}": value for metric, value in self.measure(module, trainer).items()}
