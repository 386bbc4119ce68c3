"""What the online probes share: whose data, when, and where the result goes."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ssl_modules.evaluation.batches import sample_count, shared_batches
from ssl_modules.evaluation.checks import check_labelled
from ssl_modules.evaluation.features import (
    Features,
    Prepare,
    classes,
    features_and_targets,
    find_submodule,
    undisturbed,
)
from ssl_modules.evaluation.protocols import Labelled
from ssl_modules.evaluation.shared_features import SharedFeatures, shared_features
from ssl_modules.utils.lightning import state_key


class OnlineProbe(Callback):
    """Base of the probes that judge a module's representation while it trains; a probe adds what it measures.

    Hooks: one batch is tried in ``on_train_start``, so that mistakes show before the first epoch. The probe runs in
    ``on_validation_epoch_end`` (not in the sanity check), or in ``on_train_epoch_end`` where the Trainer runs no
    validation loop: in time for ``ModelCheckpoint`` and ``EarlyStopping``. It also runs in ``Trainer.validate``, and in
    ``Trainer.test`` where it has training data of its own or a datamodule's.

    Args: those of :class:`~ssl_modules.callbacks.OnlineKNNProbe` that are not about k-NN.

    Attributes:
        result: the last metrics with their protocol, as plain values; None before the first. Checkpoints hold it.
    """

    def __init__(
        self,
        *,
        train: Iterable[Any] | None,
        test: Iterable[Any] | None,
        datamodule: LightningDataModule | None,
        features: Features,
        prepare: Prepare,
        level: int | None,
        bank_size: int | None,
        every_n_epochs: int,
        name: str,
    ) -> None:
        if (train is None) != (test is None):
            given, missing = ("train", "test") if test is None else ("test", "train")
            raise ValueError(f"{given}= was given without {missing}=; give both loaders, or neither")
        if train is not None and datamodule is not None:
            raise ValueError(
                "train=, test= and datamodule= were all given; give either the two loaders or a datamodule"
            )
        if bank_size is not None and bank_size < 1:
            raise ValueError(f"bank_size must be >= 1, or None for all training samples, but got {bank_size}")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be >= 1, but got {every_n_epochs}")
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
        self.shared = SharedFeatures()
        self._loaders: dict[str, Any] = {}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """The probe's metrics of a module, without a Trainer: before training, or of a checkpoint.

        The data are the probe's own, or those it found in the last run. Where there is a process group, every process
        must call it.

        Args:
            module: any module, on its device; it is left as it was.

        Returns:
            Metric name to value in [0, 1].

        Raises:
            ValueError: if the probe has no data, or they do not fit the module.
        """
        try:
            return self._evaluate(module, None)
        finally:
            self.shared.clear()

    @property
    def state_key(self) -> str:
        """Tells probes of one class apart by their names."""
        return state_key(self, name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """The last result, as plain values."""
        return {"result": self.result}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes :meth:`state_dict` back.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        self.result = state_dict["result"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks for the data anew in each run, and forgets the results of another one; a resume comes after it."""
        self._loaders = {}
        self.shared = SharedFeatures()
        if stage == "fit" and trainer.current_epoch == 0:
            self.load_state_dict({"result": None})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes one batch of each loader through the module, and counts their samples where that costs nothing."""
        if isinstance(self.features, str):
            find_submodule(pl_module, self.features)
        for part in self._parts:
            # Lightning asks for the validation loader as late as the first epoch that needs it.
            is_late = part == "test" and _validates(trainer) and trainer.val_dataloaders is None
            if not (is_late and self._takes_the_trainers_loaders(trainer)):
                self._try(part, pl_module, trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges after a validation run."""
        if not trainer.sanity_checking:
            self._run_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges after a training epoch where there is no validation loop."""
        if not _validates(trainer):
            self._run_if_due(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges in ``Trainer.test`` as well, where the probe has training data of its own or a datamodule's."""
        if not self._takes_the_trainers_loaders(trainer):
            self._run_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Frees the features, which all have seen by now."""
        self.shared.clear()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Frees the features."""
        self.shared.clear()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Frees the features of the last epoch's end."""
        self.shared.clear()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Frees the features."""
        self.shared.clear()

    @property
    def _parts(self) -> tuple[str, ...]:
        """The loaders that it reads."""
        return ("train", "test")

    def _measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Metrics, without the probe's name, of what ``self._read(part, module, trainer)`` gives."""
        raise NotImplementedError

    def _least(self, part: str) -> int:
        """The fewest samples of a part that ``k`` allows."""
        return 1

    def _protocol(self) -> dict[str, int | float | str | None]:
        raise NotImplementedError

    def _run_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not self._is_due(trainer):
            return
        is_first = self.result is None
        metrics = self._evaluate(pl_module, trainer)
        protocol = self._protocol()
        self.result = {"epoch": trainer.current_epoch, "step": trainer.global_step, **protocol, **metrics}
        if is_first:
            rank_zero_info(f"{self.name}: {', '.join(f'{key}={value}' for key, value in protocol.items())}")
        # Every process has the same value. The maximum keeps it exactly, where a mean might round it.
        pl_module.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, reduce_fx="max", sync_dist=True)

    def _is_due(self, trainer: Trainer) -> bool:
        elapsed = trainer.current_epoch - self._judged
        return elapsed == 0 or elapsed >= self.every_n_epochs or trainer.current_epoch + 1 == trainer.max_epochs

    @property
    def _judged(self) -> int:
        """The epoch it last judged in."""
        return -1 if self.result is None else int(self.result["epoch"] or 0)

    @torch.no_grad()
    def _evaluate(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        for part in self._parts:  # says what is missing before a pass through the module
            self._find_loader(part, trainer)
        return {f"{self.name}/{metric}": value for metric, value in self._measure(module, trainer).items()}

    def _read(self, part: str, module: nn.Module, trainer: Any) -> Labelled:
        """Features and classes of a part's samples, from a pass that the Trainer's probes share."""
        features, targets = shared_features(trainer, self.shared).read(
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

    def _of_batch(self, part: str, module: nn.Module, batch: Any, trainer: Any) -> Labelled:
        features, targets = features_and_targets(
            module, batch, features=self.features, prepare=self._prepare(part), precision=_precision(trainer)
        )
        return Labelled(features, self._labels(part, features, targets))

    def _try(self, part: str, module: nn.Module, trainer: Trainer) -> None:
        loader = self._find_loader(part, trainer)
        count = sample_count(loader, self._size(part))
        least = 1 if is_fast_dev_run(trainer) else self._least(part)
        if count == 0:
            raise ValueError(self._has_none(part))
        if count is not None and count < least:
            raise ValueError(
                f"{self.name}: its k needs {least} samples of the {part} data, but there are {count}; lower k or give "
                "it more samples"
            )
        with undisturbed(module):
            for _, batch in shared_batches(loader, self._size(part)):
                self._of_batch(part, module, batch, trainer)
                break

    def _labels(self, part: str, features: Tensor, targets: Tensor) -> Tensor:
        labels = classes(targets, self.level)
        check_labelled(f"{self.name}, {part} data", features, labels)
        return labels

    def _check_classes(self, labels: Tensor, trainer: Any) -> None:
        """Raises for labels of one class alone, unless a Trainer only tries a few batches."""
        if bool((labels == labels[0]).all()) and not is_fast_dev_run(trainer):
            raise ValueError(
                f"{self.name}: all {len(labels)} labelled samples are of class {labels[0]}, which leaves nothing to "
                "tell apart; give it data of more classes"
            )

    def _size(self, part: str) -> int | None:
        """The most samples of a part to read."""
        return None if part == "test" else self.bank_size

    def _prepare(self, part: str) -> Prepare:
        return self.prepare

    def _has_none(self, part: str) -> str:
        return f"{self.name}: the {part} loader delivers no samples; give the probe another one as {part}="

    def _takes_the_trainers_loaders(self, trainer: Any) -> bool:
        return self.train is None and self.datamodule is None and getattr(trainer, "datamodule", None) is None

    def _find_loader(self, which: str, trainer: Any) -> Any:
        if which not in self._loaders:
            with isolate_rng():  # a datamodule may draw
                self._loaders[which] = self._look_for_loader(which, trainer)
        return self._loaders[which]

    def _look_for_loader(self, which: str, trainer: Any) -> Any:
        if self.train is not None:
            return self.train if which == "train" else self.test
        data = self._data(trainer)
        if data is not None:
            is_trainers = trainer is not None and data is trainer.datamodule
            return self._one(which, shared_features(trainer, self.shared).loader(data, which, set_up=not is_trainers))
        if trainer is None:
            raise ValueError(f"{self.name} has no data: give it labelled loaders, train= and test=, or datamodule=")
        loader = self._one(which, trainer.train_dataloader if which == "train" else trainer.val_dataloaders)
        # To iterate over the Trainer's own loader would move its sampler, or restart its workers.
        if sample_count(loader) is None:
            raise ValueError(
                f"{self.name}: the Trainer's {which} loader is a {type(loader).__name__} with an order of its own, "
                "which the probe would disturb; give it loaders of its own: train= and test="
            )
        return loader

    def _data(self, trainer: Any) -> LightningDataModule | None:
        return self.datamodule or (None if trainer is None else trainer.datamodule)

    def _one(self, which: str, loader: Any) -> Any:
        if isinstance(loader, list | tuple) and len(loader) == 1:
            loader = loader[0]
        if loader is None or isinstance(loader, list | tuple | dict):
            found = "none" if not loader else f"{len(loader)} of them"
            raise ValueError(
                f"{self.name} needs one {which} loader with labels but the run has {found}; "
                "give the probe loaders of its own: train= and test="
            )
        return loader


def is_fast_dev_run(trainer: Any) -> bool:
    """Whether a Trainer, if there is one, only tries a few batches."""
    return trainer is not None and bool(trainer.fast_dev_run)


def _validates(trainer: Trainer) -> bool:
    # A datamodule without a validation part gives no loader, or one without batches.
    is_empty = trainer.val_dataloaders is not None and sum(trainer.num_val_batches) == 0
    return trainer.enable_validation and not is_empty


def _precision(trainer: Any) -> Any:
    return None if trainer is None else trainer.precision_plugin
