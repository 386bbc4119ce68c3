"""What the callbacks have in common: a name of their own, and for those that log metrics, their place in the order."""

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_modules.utils.checks import Checked
from ssl_modules.utils.lightning import state_key


class NamedCallback(Checked, Callback):
    """A callback that differs by its ``name`` from others of its class in a Trainer."""

    name: str
    _is_set_up = False

    @property
    def state_key(self) -> str:
        """The key of the state in a checkpoint; callbacks of the same class differ by their names.

        Before :meth:`setup`, each object has a key of its own. So a Trainer takes two callbacks of the same name, and
        :meth:`setup` can say what to change.
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
    """A callback that logs metrics, before other callbacks may read them, wherever it is in the Trainer's list."""

    _logged: dict[str, float]

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Move the callbacks that measure to the front of the Trainer's list, and start a new run.

        There they run before callbacks that read their metrics in the same hook, and before those that undo at the end
        of a validation what they did for it, such as Lightning's ``WeightAveraging``.
        """
        super().setup(trainer, pl_module, stage)
        self._logged = {}
        # A new list, because the Trainer iterates over the old one.
        trainer.callbacks = sorted(trainer.callbacks, key=lambda it: not isinstance(it, MeasuringCallback))

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float], on_bar: str | None = None
    ) -> None:
        """Log metrics, whose values are the same in every process; the progress bar shows the metric ``on_bar``.

        Raises:
            ValueError: if something else logs a metric of the same name.
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
        except Exception as error:  # Lightning's own, if the module logs one with other options in the same hook
            if "twice" in str(error):
                raise ValueError(self._collision(" or ".join(metrics))) from error
            raise
        self._logged = metrics

    def _collision(self, metric: str) -> str:
        return (
            f"name: expected metrics that nothing else logs, got {metric!r}, which the module or another callback logs "
            f'as well; give this {type(self).__name__} another name, such as name="{self.name}_2"'
        )
