"""Online linear probe in closed form."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.evaluation.accuracy import accuracies
from ssl_modules.evaluation.labels import number_classes
from ssl_modules.evaluation.linear import ridge_classifier
from ssl_modules.utils.checks import check_number


class OnlineLinearProbe(OnlineProbe):
    """Accuracy of a linear classifier of a module's features, solved in closed form while the module trains.

    A ridge regression on the classes is solved anew at each evaluation, on the labelled training images; see
    :func:`~ssl_modules.evaluation.ridge_classifier`. It is deterministic and depends only on the current features. Logs
    ``{name}/linear_top1``, and ``{name}/linear_top5`` where there are more than 5 classes.

    :class:`~ssl_modules.callbacks.OnlineSGDProbe` trains a linear head beside the module instead.

    Args:
        penalty: penalty of the ridge regression, positive, relative to the variance of a feature and the number of
            samples.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Example:
        >>> import torch
        >>> images, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> OnlineLinearProbe(train=loader, test=loader).evaluate(torch.nn.Identity())
        {'probe/linear_top1': 1.0}
    """

    compared = "train"

    def __init__(self, *, penalty: float = 1e-2, **settings: Any) -> None:
        if "fit" in settings:
            raise TypeError(
                f'fit: expected no such argument, got {settings["fit"]!r}; OnlineLinearProbe is what fit="ridge" was, '
                'and OnlineSGDProbe what fit="sgd" was'
            )
        super().__init__(**settings)
        check_number("penalty", penalty, above=0)
        self.penalty = penalty

    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Accuracy of the ridge regression."""
        queries, targets = self.read("test", module, trainer)
        bank, labels = self.read("train", module, trainer)
        self._check_classes(labels, trainer)
        labels, targets, classes = number_classes(labels, targets)
        weight, bias = ridge_classifier(bank, labels, classes, penalty=self.penalty)
        scores = F.linear(queries, weight, bias)
        return {f"linear_{metric}": value for metric, value in accuracies(scores, targets).items()}

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``penalty`` and ``bank_size``."""
        return {"penalty": self.penalty, **super().settings()}
