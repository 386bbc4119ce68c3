"""Online k-nearest-neighbour probe."""

from typing import Any

from torch import nn

from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.callbacks.probe_data import is_fast_dev_run
from ssl_modules.evaluation.accuracy import accuracies
from ssl_modules.evaluation.knn import knn_scores
from ssl_modules.evaluation.labels import number_classes
from ssl_modules.utils.checks import check_number


class OnlineKNNProbe(OnlineProbe):
    """Weighted k-NN accuracy of a module's features, while it trains.

    Labelled test images are classified by the k most similar labelled training images (Wu et al., CVPR 2018):
    L2-normalised features, cosine, votes ``exp(s / temperature)``. Logs ``{name}/knn_top1``, and ``{name}/knn_top5``
    where there are more than 5 classes.

    Args:
        k: number of neighbours, at most the number of training images used; in a ``fast_dev_run`` fewer will do.
        temperature: temperature of the votes, positive. None = all votes are equal.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Example:
        >>> import torch
        >>> images, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> OnlineKNNProbe(train=loader, test=loader, k=2).evaluate(torch.nn.Identity())
        {'probe/knn_top1': 1.0}
    """

    compared = "train"

    def __init__(self, *, k: int = 20, temperature: float | None = 0.07, **settings: Any) -> None:
        super().__init__(**settings)
        check_number("k", k, least=1)
        if temperature is not None:
            check_number("temperature", temperature, above=0)
        self.k = k
        self.temperature = temperature

    def min_samples(self, part: str) -> int:
        """Return ``k`` for the training data."""
        return self.k if part == "train" else 1

    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Accuracy of the neighbours' votes."""
        queries, targets = self.read("test", module, trainer)
        bank, labels = self.read("train", module, trainer)
        self._check_classes(labels, trainer)
        k = min(self.k, len(bank)) if is_fast_dev_run(trainer) else self.k
        labels, targets, classes = number_classes(labels, targets)
        scores = knn_scores(bank, labels, queries, classes, k=k, temperature=self.temperature)
        return {f"knn_{metric}": value for metric, value in accuracies(scores, targets).items()}

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``k``, ``temperature`` and ``bank_size``."""
        return {"k": self.k, "temperature": self.temperature, **super().settings()}
