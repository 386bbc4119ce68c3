"""The base of probes that draw instead of measuring."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_modules.callbacks.pictures import new_figure, publish
from ssl_modules.callbacks.probe import OnlineProbe


class DrawingProbe(OnlineProbe):
    """An :class:`OnlineProbe` that draws a picture and logs no metric. A subclass implements ``_figure``.

    Args:
        class_names: names of the classes, as a list in the order of the labels, or a dict from label to name. None
            uses the names of the datamodule, or the labels if the datamodule has no names.
        folder: folder for a file of the picture, even if a logger takes it. None = a file is written only if no logger
            takes images.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Raises:
        ModuleNotFoundError: if matplotlib isn't installed.
    """

    def __init__(
        self, *, class_names: list[str] | None = None, folder: str | Path | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        new_figure(1, 1)  # raises before the training if matplotlib is missing
        if class_names is not None and not class_names:
            raise ValueError("class_names: expected names of the classes, got none; give None for those of the data")
        self.class_names = class_names
        self.folder = folder

    @torch.no_grad()
    def draw(self, module: nn.Module) -> Any:
        """Return the picture of a module without a Trainer, for example in a notebook or for a checkpoint.

        The data are the callback's own, or those it found in the last run.

        Args:
            module: any module, on its device; it is left as it was.

        Returns:
            A matplotlib figure.

        Raises:
            ValueError: if the callback has no data, or they do not fit the module.
        """
        try:
            return self._figure(module, None)
        finally:
            self._without_trainer.clear()

    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Draw and publish the picture; there is no metric."""
        if trainer is None:
            raise ValueError(f"{self.name}: expected a Trainer, got None; without one, take draw(module)")
        figure = self._figure(module, trainer)  # in every process: the pass is shared out
        if figure is not None:
            publish(figure, trainer, self.name, self.folder)
        return {}

    @abstractmethod
    def _figure(self, module: nn.Module, trainer: Any) -> Any:
        """The figure; None where there is too little to draw, and in all processes but the first."""
