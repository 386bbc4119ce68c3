"""Base classes of the callbacks: they give each callback a name, and run callbacks that log metrics before others."""

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_modules.utils.checks import Checked
from ssl_modules.utils.lightning import state_key


class NamedCallback(Checked, Callback):
    """A callback with a ``name``; callbacks of the same class in one Trainer need different names."""

    name: str
    _is_set_up = False

    @property
    def state_key(self) -> str:
        """The key of the callback's state in a checkpoint; it contains the ``name``.

        Before :meth:`setup`, the key also contains the object's id. A Trainer therefore accepts two callbacks with the
        same name, and :meth:`setup` can raise an error that says what to change.
        """
        return state_key(self, name=self.name) if self._is_set_up else state_key(self, name=self.name, id=id(self))

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Raise if the Trainer has another callback of the same class and name."""
        for other in trainer.callbacks:
            if other is not self and type(other) is type(self) and other.name == self.name:
                raise ValueError(
                    f"name: expected another name for each {type(self).__name__} of a Trainer, got {self.name!r} "
                    f'twice; give one of them a name of its own, such as name="{self.name}_2"'
                )
        self._is_set_up = True


class MeasuringCallback(NamedCallback):
    """A callback that logs metrics; it runs before the callbacks that read them, wherever the user lists it."""

    _logged: dict[str, float]

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Move all measuring callbacks to the front of the Trainer's list, and forget the metrics of an earlier run.

        At the front, they run before other callbacks that read the metrics in the same hook. They also run before
        Lightning's ``WeightAveraging``, which restores the trained weights at the end of a validation.
        """
        super().setup(trainer, pl_module, stage)
        self._logged = {}
        # Assign a new list, because the Trainer is iterating over the old one.
        trainer.callbacks = sorted(trainer.callbacks, key=lambda it: not isinstance(it, MeasuringCallback))

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float], on_bar: str | None = None
    ) -> None:
        """Log metrics that have the same values in all processes; the progress bar shows the metric ``on_bar``.

        Raises:
            ValueError: if the module or another callback logs a metric of the same name.
        """
        for metric in metrics:
            found, own = trainer.callback_metrics.get(metric), self._logged.get(metric)
            if found is not None and (own is None or not np.isclose(found.item(), own, rtol=1e-6, equal_nan=True)):
                raise ValueError(self._collision(metric))
        try:
            for metric, value in metrics.items():
                bar = metric == on_bar
                # Reducing by the maximum keeps the value exact; a mean might round it.
                pl_module.log(metric, value, bar, on_step=False, on_epoch=True, reduce_fx="max", sync_dist=True)
        except Exception as error:  # Lightning raises if the module logs a metric with other options in the same hook
            if "twice" in str(error):
                raise ValueError(self._collision(" or ".join(metrics))) from error
            raise
        self._logged = metrics

    def _collision(self, metric: str) -> str:
        return (
            f"name: expected metrics that nothing else logs, got {metric!r}, which the module or another callback logs "
            f'as well; give this {type(self).__name__} another name, such as name="{self.name}_2"'
        )
