"""Online retrieval probe."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from ssl_modules.callbacks.probe import OnlineProbe, is_fast_dev_run
from ssl_modules.evaluation.retrieval import retrieval


class OnlineRetrieval(OnlineProbe):
    """Recall and mean average precision of finding images of a class by a module's features, while it trains.

    Every labelled test image is looked up by cosine; see :func:`~ssl_modules.evaluation.retrieval`. Logs
    ``{name}/recall_at_1``, one for each ``k``, and ``{name}/map``. A callback for each level of hierarchical targets
    costs no further pass through the module.

    What it attaches to, where the data come from, and the hooks are those of
    :class:`~ssl_modules.callbacks.OnlineKNNProbe`.

    Args:
        train: labelled loader of the images to search, with ``test``.
        test: labelled loader of the images to look up, with ``train``.
        datamodule: set up by the probe, unless it is the Trainer's.
        features: None for ``module(images)``; the dotted name of a submodule whose output is taken; or, from Python, a
            function ``(module, images) -> [N, D]``.
        prepare: function of a loader's batch that returns ``(images as the module expects them, targets)``; None takes
            the first two of a tuple as they are.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.
        bank_size: number of training images to search, a fixed random choice; None for all.
        gallery: where to search: ``"train"``, the training images, or ``"test"``, the other test images.
        k: numbers of images that count as first, each at most the number of images to search.
        every_n_epochs: judges when n epochs or more have passed since it last did, and in the last epoch.
        name: first part of the metrics' names; must differ between two probes of one class.

    Raises:
        ValueError: for arguments that do not go together.

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
        train: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        datamodule: LightningDataModule | None = None,
        features: str | Callable[[Any, Any], Tensor] | None = None,
        prepare: Callable[[Any], tuple[Any, Tensor]] | None = None,
        level: int | None = None,
        bank_size: int | None = 5_000,
        gallery: Literal["train", "test"] = "train",
        k: Sequence[int] = (1, 5, 10),
        every_n_epochs: int = 1,
        name: str = "retrieval",
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
        if gallery not in ("train", "test"):
            raise ValueError(f'gallery must be "train" or "test", but got {gallery!r}')
        if not k or min(k) < 1:
            raise ValueError(f"k must be numbers >= 1, but got {list(k)}")
        self.gallery = gallery
        self.k = tuple(k)

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("train", "test") if self.gallery == "train" else ("test",)

    def _least(self, part: str) -> int:
        return max(self.k) + (self.gallery == "test") if part == self.gallery else 1

    def _measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        queries = self._read("test", module, trainer)
        gallery = self._read("train", module, trainer) if self.gallery == "train" else None
        _, labels = gallery or queries
        self._check_classes(labels, trainer)
        size = len(labels) - (gallery is None)
        ks = {k: min(k, size) if is_fast_dev_run(trainer) else k for k in self.k}
        found = retrieval(*queries, *(gallery or ()), k=tuple(ks.values()))
        return {f"recall_at_{k}": found[f"recall@{read}"] for k, read in ks.items()} | {"map": found["map"]}

    def _protocol(self) -> dict[str, int | float | str | None]:
        return {"gallery": self.gallery, "bank_size": self.bank_size if self.gallery == "train" else None}
