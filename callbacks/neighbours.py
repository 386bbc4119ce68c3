"""Grid of images with their nearest neighbours."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from ssl_modules.callbacks.drawing import DrawingProbe
from ssl_modules.callbacks.pictures import image_grid, names_of_classes, shortened, to_pixels
from ssl_modules.callbacks.probe_data import datamodule_of
from ssl_modules.evaluation.batches import samples
from ssl_modules.evaluation.features import images_and_targets, undisturbed
from ssl_modules.evaluation.knn import nearest_neighbours
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator


class NeighbourGrid(DrawingProbe):
    """Draws a few test images beside the training images whose features are nearest, while a module trains.

    Each row shows a test image and its nearest neighbours, the most similar first. The title of the test image is its
    class. The title of a neighbour is its class and its cosine, green if the class is right and red if it is wrong. The
    picture goes to every logger that takes images, and to a file if none does. The callback needs matplotlib.

    The callback logs no metric. It shares one pass through the module with the probes. The loaders must be over
    map-style data sets.

    Args:
        queries: number of test images to show. Each picture shows the same images.
        k: number of neighbours to show.
        class_names: names of the classes, as a list in the order of the labels, or a dict from label to name. None
            uses the names of the datamodule, or the labels if the datamodule has no names.
        folder: folder for a file of the picture, even if a logger takes it. None = a file is written only if no logger
            takes images.
        name: name of the picture.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Raises:
        ModuleNotFoundError: if matplotlib isn't installed.

    Example:
        >>> NeighbourGrid(queries=4, k=8).name
        'neighbours'
    """

    def __init__(self, *, queries: int = 8, k: int = 8, name: str = "neighbours", **settings: Any) -> None:
        super().__init__(name=name, **settings)
        check_number("queries", queries, least=1)
        check_number("k", k, least=1)
        self.queries = queries
        self.k = k

    def min_samples(self, part: str) -> int:
        """Return ``k`` for the training data."""
        return self.k if part == "train" else 1

    def _try(self, part: str, module: nn.Module, trainer: Trainer) -> None:
        super()._try(part, module, trainer)
        with undisturbed(module):
            self._images(part, [0], trainer)

    def _figure(self, module: nn.Module, trainer: Any) -> Any:
        queries, targets = self.read("test", module, trainer)
        bank, labels = self.read("train", module, trainer)
        if trainer is not None and not trainer.is_global_zero:
            return None
        order = torch.randperm(len(queries), generator=derive_generator("neighbours"))
        chosen = order[: self.queries].sort().values.to(queries.device)
        cosines, rows = nearest_neighbours(bank, queries[chosen], k=min(self.k, len(bank)))
        with undisturbed(module):
            shown = self._images("test", chosen.tolist(), trainer)
            near = self._images("train", rows.flatten().tolist(), trainer)
        found = torch.cat([targets, labels])
        names = names_of_classes(found, datamodule_of(self, trainer), self.level, self.class_names)
        near = near.reshape(*rows.shape, *near.shape[1:])  # [queries, k, H, W(, 3)]
        images = [[image, *found] for image, found in zip(shown, near, strict=True)]
        return self._draw(images, torch.cat([targets[chosen, None], labels[rows]], dim=1), cosines, names)

    def _images(self, part: str, places: list[int], trainer: Any) -> np.ndarray:
        batch = samples(self._find_loader(part, trainer), places, self._size(part))
        return to_pixels(images_and_targets(batch, self.prepare)[0])

    def _draw(self, images: list[list[np.ndarray]], labels: Tensor, cosines: Tensor, names: dict[int, str]) -> Any:
        """Rows of images ``[queries, 1 + k]`` with their classes, and the cosines ``[queries, k]``."""
        names = {label: shortened(name) for label, name in names.items()}
        titles, colors = [], []
        for (own, *found), row in zip(labels.tolist(), cosines.tolist(), strict=True):
            near = [f"{names[label]}\n{cosine:.3f}" for label, cosine in zip(found, row, strict=True)]
            titles.append([f"{names[own]}\ntest image", *near])
            colors.append(["black", *("green" if label == own else "red" for label in found)])
        return image_grid(images, titles, colors)

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``k`` and ``bank_size``."""
        return {"k": self.k, **super().settings()}
