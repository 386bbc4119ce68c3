"""Plot of a module's features in two dimensions."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ssl_modules.callbacks.drawing import DrawingProbe
from ssl_modules.callbacks.pictures import names_of_classes, new_figure
from ssl_modules.callbacks.probe_data import datamodule_of
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator


class EmbeddingPlot(DrawingProbe):
    """Draws a module's features of the test images as points in the plane, coloured by class, while it trains.

    The features are L2-normalised and projected to two dimensions, by PCA or t-SNE. The picture goes to every logger
    that takes images, and to a file if none does. The callback needs matplotlib.

    The callback logs no metric. It reads no training images, so ``train`` and ``bank_size`` change nothing. But if
    ``test`` is given, ``train`` must be given too. The callback and the probes share one pass through the module.

    Args:
        size: number of images to plot, at least 2. They are chosen at random. Each picture shows the same images.
        projection: ``"pca"``, which is deterministic and takes milliseconds, or ``"tsne"``, which takes seconds.
        class_names: names of the classes for the legend, as a list in the order of the labels, or a dict from label to
            name. None uses the names of the datamodule, or the labels if the datamodule has no names.
        folder: folder for a file of the picture, even if a logger takes it. None = a file is written only if no logger
            takes images.
        name: name of the picture.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Raises:
        ModuleNotFoundError: if matplotlib isn't installed.

    Example:
        >>> plot = EmbeddingPlot(every_n_epochs=10)
        >>> plot.project(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).abs().round(decimals=4)
        tensor([[0.7071, 0.0000],
                [0.7071, 0.0000]])
    """

    parts = ("test",)

    def __init__(
        self,
        *,
        size: int = 2_000,
        projection: Literal["pca", "tsne"] = "pca",
        name: str = "embedding",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, **settings)
        check_number("size", size, least=2)
        self.size = size
        self.projection = projection

    def project(self, features: Tensor) -> Tensor:
        """Return the features as points in the plane.

        Args:
            features: ``[N, D]``, N >= 2.

        Returns:
            ``[N, 2]`` on the CPU; principal components in falling order, the largest entry of each positive.
        """
        x = torch.nn.functional.normalize(features.double().cpu(), dim=1)
        x = x - x.mean(dim=0)
        _, _, axes = torch.linalg.svd(x, full_matrices=False)  # [min(N, D), D]
        points = x @ axes[:2].T
        points = torch.nn.functional.pad(points, (0, 2 - points.shape[1]))
        points = points * points.gather(0, points.abs().argmax(dim=0, keepdim=True)).sign()
        if self.projection == "tsne":
            from sklearn.manifold import TSNE  # noqa: PLC0415  (a second to import)

            start = (points / points.std().clamp(min=1e-12) * 1e-4).numpy()
            perplexity = min(30.0, (len(x) - 1) / 3)
            points = torch.from_numpy(TSNE(init=start, perplexity=perplexity, random_state=0).fit_transform(x.numpy()))
        return points.float()

    def _draw(self, points: Tensor, targets: Tensor, names: dict[int, str]) -> Any:
        """The figure of points ``[N, 2]`` with their classes."""
        import matplotlib  # noqa: PLC0415

        figure = new_figure(7.5, 5.5)
        axis = figure.subplots()
        classes = targets.unique().tolist()
        palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "nipy_spectral"]
        tints = palette(np.arange(len(classes)) if len(classes) <= 10 else np.linspace(0.05, 0.95, len(classes)))
        size = min(40, 4 + 8_000 / len(points))
        for target, tint in zip(classes, tints, strict=True):
            own = points[targets == target].numpy()
            axis.scatter(own[:, 0], own[:, 1], s=size, color=tint, alpha=0.8, linewidths=0, label=names[target])
        if len(classes) <= 40:  # more would not fit beside the plot
            legend = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
            axis.legend(**legend, markerscale=(50 / size) ** 0.5, ncols=1 + len(classes) // 21)
        axis.set(xticks=[], yticks=[], title=f"{len(points):,} images, by {_PROJECTIONS[self.projection]}")
        return figure

    def _figure(self, module: nn.Module, trainer: Any) -> Any:
        queries, targets = self.read("test", module, trainer)
        if (trainer is not None and not trainer.is_global_zero) or len(queries) < 2:
            return None
        chosen = torch.randperm(len(queries), generator=derive_generator("embedding"))[: self.size]
        targets = targets.cpu()[chosen]
        names = names_of_classes(targets, datamodule_of(self, trainer), self.level, self.class_names)
        return self._draw(self.project(queries[chosen.to(queries.device)]), targets, names)

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``projection`` and ``size``."""
        return {"projection": self.projection, "size": self.size}


_PROJECTIONS = {"pca": "principal components", "tsne": "t-SNE"}
