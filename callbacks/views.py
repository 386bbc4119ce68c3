"""Grid of an augmentation's views."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_modules.batch import read_batch
from ssl_modules.callbacks.base import NamedCallback
from ssl_modules.callbacks.pictures import image_grid, new_figure, publish, to_pixels
from ssl_modules.evaluation.features import undisturbed
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator


class ViewGrid(NamedCallback):
    """Draws the views of a few training images, at the start of the training.

    Each row shows an image and its views. The image is left out if the batch has only views. A view of patches is drawn
    as a grid, and a clip as its middle frame. If the loader makes the views, so that batches are
    ``([view1, view2], ...)``, the callback draws these views. Otherwise, ``augmentation`` makes the views from the
    batch, which is ``(images, ...)``, images alone, or a mapping with a key such as "image". The picture goes to every
    logger that takes images, and to a file if none does. The callback needs matplotlib.

    The callback attaches to any LightningModule. It draws at the first batch of each ``fit`` and does not change random
    states.

    Args:
        augmentation: function ``(images [N, ch, H, W], generator) -> list of views``. None = the attribute
            ``augmentation`` of the module, which all methods of this package have.
        prepare: function that converts a batch of any other form to one of the forms that the callback reads.
        images: number of images to show.
        folder: folder for a file of the picture, even if a logger takes it. None = a file is written only if no logger
            takes images.
        name: name of the picture. Two grids need two names.

    Raises:
        ValueError: if ``images`` is below 1.
        ModuleNotFoundError: if matplotlib isn't installed.

    Example:
        >>> ViewGrid(images=4).name
        'views'
    """

    def __init__(
        self,
        *,
        augmentation: Callable[[Tensor, torch.Generator], Sequence[Tensor]] | None = None,
        prepare: Callable[[Any], Any] | None = None,
        images: int = 8,
        folder: str | Path | None = None,
        name: str = "views",
    ) -> None:
        check_number("images", images, least=1)
        new_figure(1, 1)  # raises before the training if matplotlib is missing
        self.augmentation = augmentation
        self.prepare = prepare
        self.images = images
        self.folder = folder
        self.name = name
        self._drawn = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw again in each run."""
        super().setup(trainer, pl_module, stage)
        self._drawn = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draw at the first batch."""
        if self._drawn or not trainer.is_global_zero:
            return
        self._drawn = True
        publish(self.draw(pl_module, batch), trainer, self.name, self.folder)

    def draw(self, module: Any, batch: Any) -> Any:
        """Return the picture without a Trainer.

        Args:
            module: its ``augmentation`` makes the views, if the grid has none of its own.
            batch: as a loader delivers it.

        Returns:
            A matplotlib figure.

        Raises:
            ValueError: if the batch has no views and nothing makes them.
        """
        with undisturbed(module):
            return self._draw(*self._views(module, batch))

    def _views(self, module: Any, batch: Any) -> tuple[Tensor | None, list[Tensor]]:
        try:
            read = read_batch(batch if self.prepare is None else self.prepare(batch))
        except (TypeError, ValueError) as error:
            error.add_note(
                f"{self.name}: ViewGrid could not read the batch; pass prepare=, a function that takes the batch and "
                "returns (images, ...) or ([view1, view2], ...)"
            )
            raise
        if read.views is not None:
            return None, [view[: self.images] for view in read.views]
        assert read.images is not None
        images = read.images[: self.images]
        augmentation = self.augmentation or getattr(module, "augmentation", None)
        if not callable(augmentation):
            raise ValueError(
                f"augmentation: expected a function, as the batch holds images and no views, got None, and "
                f"{type(module).__name__} has no augmentation; give a function (images, generator) -> list of views"
            )
        return images, list(augmentation(images, derive_generator("views", device=images.device)))

    def _draw(self, images: Tensor | None, views: list[Tensor]) -> Any:
        columns = [to_pixels(_assembled(view)) for view in views]
        titles = [f"view {number}" for number in range(1, len(views) + 1)]
        if images is not None:
            columns, titles = [to_pixels(images), *columns], ["image", *titles]
        rows = [list(row) for row in zip(*columns, strict=True)]
        blank = [[""] * len(columns)] * (len(rows) - 1)
        return image_grid(rows, [titles, *blank], [["black"] * len(columns)] * len(rows))


def _assembled(view: Tensor) -> Tensor:
    """Return the images or clips of a view. Patches ``[N, rows, cols, ch, h, w]`` are joined by white lines."""
    if view.ndim < 6:
        return view
    count, rows, cols, channels, height, width = view.shape
    framed = torch.nn.functional.pad(view, (0, 1, 0, 1), value=1.0)
    grid = framed.permute(0, 3, 1, 4, 2, 5)  # [N, ch, rows, h + 1, cols, w + 1]
    return grid.reshape(count, channels, rows * (height + 1), cols * (width + 1))[:, :, :-1, :-1]
