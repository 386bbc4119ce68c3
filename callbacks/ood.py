"""Online probe of out-of-distribution detection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from ssl_modules.callbacks.probe import OnlineProbe, is_fast_dev_run
from ssl_modules.evaluation.features import Prepare
from ssl_modules.evaluation.ood_metrics import OODScore, ood_detection
from ssl_modules.evaluation.shared_features import shared_features


class OutOfDistributionProbe(OnlineProbe):
    """How well a module's features tell test images from those of another data set, while it trains.

    Every image is scored by how close it is to the labelled training images, and the scores of the test images are
    compared with those of the outliers:

    - ``"gaussian"``: log-likelihood under the best of one Gaussian a class, as RINCE is judged; see
      :func:`~ssl_modules.evaluation.gaussian_scores`;
    - ``"neighbours"``: distance to the k-th nearest; see :func:`~ssl_modules.evaluation.neighbour_scores`;
    - ``"cosine"``: cosine to the nearest class mean; see :func:`~ssl_modules.evaluation.cosine_scores`.

    Logs ``{name}/gaussian_auroc`` and ``{name}/gaussian_fpr95``, and so for each score; see
    :func:`~ssl_modules.evaluation.detection`.

    What it attaches to, where the other data come from, and the hooks are those of
    :class:`~ssl_modules.callbacks.OnlineKNNProbe`. The outliers need one more pass through the module.

    Args:
        outliers: loader of the other data set's images, of the size and scale of the test images, or a datamodule with
            a ``probe_test_dataloader()`` or ``val_dataloader()``; labels are not read, and need not be there.
        train: labelled loader of the familiar images, with ``test``.
        test: labelled loader of the familiar images to judge on, with ``train``.
        datamodule: set up by the probe, unless it is the Trainer's.
        features: None for ``module(images)``; the dotted name of a submodule whose output is taken; or, from Python, a
            function ``(module, images) -> [N, D]``.
        prepare: function of a batch of any of the loaders that returns ``(images as the module expects them,
            targets)``; None takes the first two of a tuple as they are, and of outliers the first, or the batch.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.
        bank_size: number of training images to use, a fixed random choice, and the most outliers; None for all.
        scores: which to compute.
        k: number of neighbours of ``"neighbours"``, at most the number of training images used.
        every_n_epochs: judges when n epochs or more have passed since it last did, and in the last epoch.
        name: first part of the metrics' names; must differ between two probes of one class.

    Raises:
        ValueError: for arguments that do not go together.

    Example:
        >>> images, labels = torch.eye(4)[:3].repeat(2, 1), torch.arange(3).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> probe = OutOfDistributionProbe(outliers=[torch.eye(4)[3:]], train=loader, test=loader, scores=("cosine",))
        >>> probe.evaluate(torch.nn.Identity())
        {'ood/cosine_auroc': 1.0, 'ood/cosine_fpr95': 0.0}
    """

    def __init__(
        self,
        *,
        outliers: Iterable[Any] | LightningDataModule,
        train: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        datamodule: LightningDataModule | None = None,
        features: str | Callable[[Any, Any], Tensor] | None = None,
        prepare: Callable[[Any], tuple[Any, Tensor]] | None = None,
        level: int | None = None,
        bank_size: int | None = 5_000,
        scores: Sequence[OODScore] = ("gaussian", "neighbours", "cosine"),
        k: int = 50,
        every_n_epochs: int = 1,
        name: str = "ood",
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
        if not scores or not set(scores) <= set(get_args(OODScore)):
            raise ValueError(f"scores must be some of {list(get_args(OODScore))}, but got {list(scores)}")
        if k < 1:
            raise ValueError(f"k must be >= 1, but got {k}")
        self.outliers = outliers
        self.scores = tuple(scores)
        self.k = k

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("train", "test", "outliers")

    def _least(self, part: str) -> int:
        return self.k if part == "train" and "neighbours" in self.scores else 1

    def _measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        bank, labels = self._read("train", module, trainer)
        test, outliers = (self._read(part, module, trainer)[0] for part in ("test", "outliers"))
        k = min(self.k, len(bank)) if is_fast_dev_run(trainer) else self.k
        return ood_detection(bank, labels, test, outliers, scores=self.scores, k=k)

    def _prepare(self, part: str) -> Prepare:
        return _without_labels if part == "outliers" and self.prepare is None else self.prepare

    def _labels(self, part: str, features: Tensor, targets: Tensor) -> Tensor:
        return targets if part == "outliers" else super()._labels(part, features, targets)

    def _look_for_loader(self, which: str, trainer: Any) -> Any:
        if which != "outliers":
            return super()._look_for_loader(which, trainer)
        if hasattr(self.outliers, "val_dataloader"):  # a datamodule of either namespace
            data = cast(LightningDataModule, self.outliers)
            return self._one(which, shared_features(trainer, self.shared).loader(data, "test", set_up=True))
        return self.outliers

    def _protocol(self) -> dict[str, int | float | str | None]:
        return {"scores": " ".join(self.scores), "k": self.k, "bank_size": self.bank_size}


def _without_labels(batch: Any) -> tuple[Any, Tensor]:
    images = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(images, Tensor):
        raise ValueError(
            f"outliers: the loader delivers {type(batch).__name__}, not images or (images, ...); give prepare= a "
            "function of the batch that returns (images, targets)"
        )
    return images, torch.zeros(len(images), dtype=torch.long)
