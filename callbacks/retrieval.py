"""Online retrieval probe."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.callbacks.probe_data import is_fast_dev_run
from ssl_modules.evaluation.retrieval import retrieval


class OnlineRetrieval(OnlineProbe):
    """Measures during training how well a module's features retrieve images of the same class.

    The queries are the labelled test images. Images are ranked by cosine; see
    :func:`~ssl_modules.evaluation.retrieval`. The callback logs a recall for each ``k``, such as
    ``{name}/recall_at_1``, and the mean average precision, ``{name}/map``. For hierarchical targets, use a callback for
    each level. These callbacks share one pass through the module.

    Args:
        gallery: where to search: ``"train"``, the training images, or ``"test"``, the other test images.
        k: values of k for recall@k, each at most the number of images to search.
        centre: whether to subtract the mean of each part from its features, as is usual for videos.
        name: first part of the names of the metrics.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Example:
        >>> import torch
        >>> images, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> OnlineRetrieval(train=loader, test=loader, k=(1,)).evaluate(torch.nn.Identity())
        {'retrieval/recall_at_1': 1.0, 'retrieval/map': 1.0}
    """

    def __init__(
        self,
        *,
        gallery: Literal["train", "test"] = "train",
        k: Sequence[int] = (1, 5, 10),
        centre: bool = False,
        name: str = "retrieval",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, **settings)
        if not k or min(k) < 1:
            raise ValueError(f"k: expected one or more numbers of at least 1, got {list(k)}")
        self.gallery = gallery
        self.k = tuple(k)
        self.centre = centre
        self.parts = ("train", "test") if gallery == "train" else ("test",)
        self.compared = gallery

    def min_samples(self, part: str) -> int:
        """Return the largest ``k`` for the gallery."""
        return max(self.k) + (self.gallery == "test") if part == self.gallery else 1

    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Recall at each ``k``, and mean average precision."""
        queries = self.read("test", module, trainer)
        gallery = self.read("train", module, trainer) if self.gallery == "train" else None
        _, labels = gallery or queries
        self._check_classes(labels, trainer)
        size = len(labels) - (gallery is None)
        ks = {k: min(k, size) if is_fast_dev_run(trainer) else k for k in self.k}
        found = retrieval(*queries, *(gallery or ()), k=tuple(ks.values()), centre=self.centre)
        return {f"recall_at_{k}": found[f"recall@{read}"] for k, read in ks.items()} | {"map": found["map"]}

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``gallery``, and ``bank_size`` if the gallery is the training images."""
        return {"gallery": self.gallery, "bank_size": self.bank_size if self.gallery == "train" else None}
