"""Online probe of out-of-distribution detection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssl_modules.batch import fields
from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.callbacks.probe_data import check_data, is_fast_dev_run, single_loader
from ssl_modules.evaluation.features import Prepare, kind_of
from ssl_modules.evaluation.ood_metrics import OODScore, ood_detection
from ssl_modules.utils.checks import check_number


class OutOfDistributionProbe(OnlineProbe):
    """Measures during training how well a module's features separate test images from images of another data set.

    The probe scores how close each image is to the labelled training images. It then compares the scores of the test
    images with the scores of the outliers. The scores are:

    - ``"gaussian"``: the highest of the log-likelihoods under one Gaussian per class, as in RINCE's evaluation; see
      :func:`~ssl_modules.evaluation.gaussian_scores`.
    - ``"neighbours"``: the distance to the k-th nearest training image; see
      :func:`~ssl_modules.evaluation.neighbour_scores`.
    - ``"cosine"``: the cosine to the nearest class mean; see :func:`~ssl_modules.evaluation.cosine_scores`.

    For each score, the probe logs the AUROC and the false positive rate at a true positive rate of 95 %, such as
    ``{name}/gaussian_auroc`` and ``{name}/gaussian_fpr95``; see :func:`~ssl_modules.evaluation.detection`. The outliers
    need one more pass through the module.

    Args:
        outliers: images of another data set, with the size and scale of the test images. A loader, a map-style data
            set, or a datamodule with a ``probe_test_dataloader()`` or ``val_dataloader()``. The probe reads at most
            ``bank_size`` of them. They need no labels.
        prepare_outliers: function that maps a batch of ``outliers`` to images as the module expects them. None uses
            ``prepare``. Without either function, a batch is a tensor of images, a tuple whose first item is the
            images, or a mapping with a key such as "image".
        scores: names of the scores to compute.
        k: number of neighbours of ``"neighbours"``, at most the number of training images used.
        name: first part of the names of the metrics.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Example:
        >>> images, labels = torch.eye(4)[:3].repeat(2, 1), torch.arange(3).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> probe = OutOfDistributionProbe(outliers=[torch.eye(4)[3:]], train=loader, test=loader, scores=("cosine",))
        >>> probe.evaluate(torch.nn.Identity())
        {'ood/cosine_auroc': 1.0, 'ood/cosine_fpr95': 0.0}
    """

    parts = ("train", "test", "outliers")

    def __init__(
        self,
        *,
        outliers: Iterable[Any] | Dataset[Any] | LightningDataModule,
        prepare_outliers: Callable[[Any], Any] | None = None,
        scores: Sequence[OODScore] = ("gaussian", "neighbours", "cosine"),
        k: int = 50,
        name: str = "ood",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, **settings)
        if not scores:
            raise ValueError("scores: expected one or more, got none")
        check_number("k", k, least=1)
        if outliers is None:
            raise TypeError(
                "outliers: expected images of another data set, got None; give a loader, a data set or a "
                "LightningDataModule"
            )
        if not hasattr(outliers, "val_dataloader"):  # lightning or pytorch_lightning
            check_data("outliers", outliers, " or a LightningDataModule")
        self.outliers = outliers
        self.prepare_outliers = prepare_outliers
        self.scores = tuple(scores)
        self.k = k

    def min_samples(self, part: str) -> int:
        """Return ``k`` for the training data if ``"neighbours"`` is computed."""
        return self.k if part == "train" and "neighbours" in self.scores else 1

    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """AUROC and FPR95 of each score."""
        bank, labels = self.read("train", module, trainer)
        test, outliers = (self.read(part, module, trainer).features for part in ("test", "outliers"))
        k = min(self.k, len(bank)) if is_fast_dev_run(trainer) else self.k
        return ood_detection(bank, labels, test, outliers, scores=self.scores, k=k)

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``scores``, ``k`` and ``bank_size``."""
        return {"scores": " ".join(self.scores), "k": self.k, **super().settings()}

    def _prepare(self, part: str) -> Prepare:
        if part == "outliers" and self.prepare_outliers is not None:
            return self._prepared_outliers
        return _without_labels if part == "outliers" and self.prepare is None else self.prepare

    def _prepared_outliers(self, batch: Any) -> tuple[Any, Tensor]:
        assert self.prepare_outliers is not None
        images = self.prepare_outliers(batch)
        if not isinstance(images, Tensor):
            raise ValueError(f"prepare_outliers: expected a tensor of images, got {kind_of(images)}")
        return images, torch.zeros(len(images), dtype=torch.long)

    def _labels(self, part: str, features: Tensor, targets: Tensor) -> Tensor:
        return targets if part == "outliers" else super()._labels(part, features, targets)

    def _look_for_loader(self, part: str, trainer: Any) -> Any:
        if part != "outliers":
            return super()._look_for_loader(part, trainer)
        if hasattr(self.outliers, "val_dataloader"):  # a datamodule of either namespace
            data = cast(LightningDataModule, self.outliers)
            return single_loader(self, part, self._shared(trainer).loader(data, "test", set_up=True))
        return self._shared(trainer).as_loader(self.outliers)


def _without_labels(batch: Any) -> tuple[Any, Tensor]:
    try:
        images, _, _ = fields(batch)
    except ValueError:
        images = None
    if not isinstance(images, Tensor):
        raise ValueError(
            f"outliers: expected batches of images or (images, ...), got {kind_of(batch)}; pass prepare_outliers=, a "
            "function that takes the batch and returns images"
        )
    return images, torch.zeros(len(images), dtype=torch.long)
