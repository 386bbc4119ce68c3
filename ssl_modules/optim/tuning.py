"""A mixin with all that Lightning's LearningRateFinder and BatchSizeFinder need in a module."""

import inspect
from functools import partial
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn

from ssl_modules.utils.lightning import attached_trainer, reads_a_search


class Tunable:
    """Mixin for LightningModules that lets Lightning's finders search for the learning rate and the batch size.

    After its search, a finder restores weights, optimiser and loops from a file. This class then builds optimiser and
    schedule again, because the learning rate and the number of steps depend on the value that was found. A subclass
    that overrides one of these hooks must call ``super()``.
    """

    _searched = False  # whether a finder has finished a search for the next fit

    @property
    def lr(self: Any) -> float:
        """The learning rate of ``optimizer``, for ``base_batch_size`` images.

        Setting it also sets ``base_batch_size`` to None, because a finder tries rates at the actual batch size.
        """
        parameter = inspect.signature(self.optimizer).parameters.get("lr")
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise AttributeError(
                f"optimizer: expected a function with an argument lr, such as partial(torch.optim.SGD, lr=0.1), "
                f"to read its learning rate, got {self.optimizer!r}"
            )
        return parameter.default

    @lr.setter
    def lr(self, value: float) -> None:
        module: Any = self
        module.optimizer = partial(module.optimizer, lr=float(value))
        module.base_batch_size = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        module: Any = self
        trainer = attached_trainer(module)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self._searched = reads_a_search(trainer)

    def on_fit_start(self) -> None:
        super().on_fit_start()  # type: ignore[misc]
        if self._searched:
            self._searched = False
            module: Any = self
            module.trainer.strategy.setup_optimizers(module.trainer)
