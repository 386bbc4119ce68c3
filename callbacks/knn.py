"""Online k-nearest-neighbour probe."""

from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from ssl_modules.callbacks.probe import OnlineProbe, is_fast_dev_run
from ssl_modules.evaluation.accuracy import accuracies
from ssl_modules.evaluation.knn import knn_scores


class OnlineKNNProbe(OnlineProbe):
    """Weighted k-NN accuracy of a module's features, while it trains.

    Labelled test images are classified by the k most similar labelled training images (Wu et al., CVPR 2018):
    L2-normalised features, cosine, votes ``exp(s / temperature)``. Logs ``{name}/knn_top1``, and ``{name}/knn_top5``
    where there are more than 5 classes, for ``ModelCheckpoint(monitor="probe/knn_top1", mode="max")``.

    Attaches to any LightningModule, in the list of callbacks of a ``lightning`` or ``pytorch_lightning`` Trainer. It
    leaves module, optimisers and random states as they are. The data are, in this order: ``train`` and ``test``; the
    ``datamodule``; the Trainer's datamodule; the Trainer's own training and validation loader. Of a datamodule it takes
    ``probe_train_dataloader()`` and ``probe_test_dataloader()``, or where it has none ``train_dataloader()`` and
    ``val_dataloader()``. The images should not be augmented. Loaders of map-style data sets are read in the data set's
    order, whole: without shuffling, dropping or splitting, whatever ``limit_*_batches`` say; ``fast_dev_run`` reads
    that number of batches, with k no larger than what they hold. Any number of processes gives the same values.
    Probes of one Trainer with the same loader objects or datamodule, ``features``, ``prepare`` and ``bank_size`` send
    the images through the module once for all of them, and keep no features for longer.

    Hooks: ``on_train_start`` tries one batch of each loader, and counts its samples where that needs no reading;
    ``on_validation_epoch_end`` (not in the sanity check) judges, or ``on_train_epoch_end`` where the Trainer runs no
    validation loop.

    Args:
        train: labelled loader of the images to learn from, with ``test``.
        test: labelled loader of the images to judge on, with ``train``.
        datamodule: set up by the probe, unless it is the Trainer's.
        features: None for ``module(images)``; the dotted name of a submodule whose output is taken; or, from Python, a
            function ``(module, images) -> [N, D]``.
        prepare: function of a loader's batch that returns ``(images as the module expects them, targets)``; None takes
            the first two of a tuple as they are.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.
        bank_size: number of training images to use, a fixed random choice; None for all.
        k: number of neighbours, at most the number of training images used.
        temperature: of the votes, positive; None for equal votes.
        every_n_epochs: judges when n epochs or more have passed since it last did, and in the last epoch.
        name: first part of the metrics' names; must differ between two probes of one class.

    Raises:
        ValueError: for arguments that do not go together.

    Example:
        >>> import torch
        >>> images, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> OnlineKNNProbe(train=loader, test=loader, k=2).evaluate(torch.nn.Identity())
        {'probe/knn_top1': 1.0}
    """

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
        k: int = 20,
        temperature: float | None = 0.07,
        every_n_epochs: int = 1,
        name: str = "probe",
    ) -> None:
        super().__init__(
            train=train,
            test=test,
            datamodule=datamodule,
            features=features,
            prepare=prepare,
            level=level,
            bank_size=bank_size,
            every_n_epochs=every_n_epochs,
            name=name,
        )
        if k < 1:
            raise ValueError(f"k must be >= 1, but got {k}")
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature must be positive, or None for equal votes, but got {temperature}")
        self.k = k
        self.temperature = temperature

    def _least(self, part: str) -> int:
        return self.k if part == "train" else 1

    def _measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        queries, targets = self._read("test", module, trainer)
        bank, labels = self._read("train", module, trainer)
        self._check_classes(labels, trainer)
        k = min(self.k, len(bank)) if is_fast_dev_run(trainer) else self.k
        classes = int(labels.max()) + 1
        scores = knn_scores(bank, labels, queries, classes, k=k, temperature=self.temperature)
        return {f"knn_{metric}": value for metric, value in accuracies(scores, targets).items()}

    def _protocol(self) -> dict[str, int | float | str | None]:
        return {"k": self.k, "temperature": self.temperature, "bank_size": self.bank_size}
