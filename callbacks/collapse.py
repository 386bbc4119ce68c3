"""Monitor of representational collapse."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssl_modules.callbacks.base import MeasuringCallback
from ssl_modules.evaluation.collapse import feature_std, rankme, uniformity
from ssl_modules.evaluation.features import as_vectors, device_of, find_submodule
from ssl_modules.evaluation.shared_features import gather_in_order
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.distributed import rank, world_size

COLLAPSED = 0.1  # features below this std are nearly the same; untrained encoders in training mode give more than 0.3


class CollapseMonitor(MeasuringCallback):
    """Measures whether a module's features collapse, on the features that its training step computes anyway.

    The monitor attaches to any LightningModule. It needs neither labels nor another forward pass. It reads the features
    from the dict that ``training_step`` returns, ``{"loss": loss, "features": h.detach()}``. All methods of this
    package return this dict. ``key`` chooses another entry of the dict. Alternatively, the monitor reads the output of
    a submodule that the step calls. If the step returns only its loss, the monitor warns once and measures nothing. At
    the end of each training epoch, it measures the last ``size`` features of all processes:

    - ``{name}/std``: :func:`~ssl_modules.evaluation.feature_std`, times the square root of the dimension. It is about 1
      if the features spread over all directions, and 0 if all features are the same.
    - ``{name}/rankme``: :func:`~ssl_modules.evaluation.rankme`, the number of dimensions that the features fill.
    - ``{name}/uniformity``: :func:`~ssl_modules.evaluation.uniformity`. It is 0 if all features are the same.

    The monitor warns once if ``{name}/std`` falls below 0.1, because the features are then nearly the same for all
    images.

    Args:
        features: None reads the entry ``key`` of the dict that the step returns. The dotted name of a submodule reads
            the submodule's output in its first call of the step. Features are ``[N, D]``, or ``[N, D, 1, 1]``.
        key: the entry of the dict that holds the features; unused if ``features`` names a submodule.
        size: number of features to measure, at least 2. The monitor keeps them on the module's device.
        name: first part of the names of the metrics. Two monitors need two names.

    Raises:
        TypeError: for an argument of another type than its annotation.
        ValueError: for a size below 2.

    Example:
        >>> monitor = CollapseMonitor(size=512)
        >>> [metric.removeprefix("repr/") for metric in monitor.measure(torch.eye(4))]
        ['std', 'rankme', 'uniformity']
    """

    def __init__(
        self, *, features: str | None = None, key: str = "features", size: int = 2_048, name: str = "repr"
    ) -> None:
        check_number("size", size, least=2)
        if features is not None and not isinstance(features, str):
            raise TypeError(
                f"features: expected the name of a submodule that the step calls, or None, got {features!r}; to log "
                'other features, let training_step return {"loss": loss, "features": h.detach()}'
            )
        self.features = features
        self.key = key
        self.size = size
        self.name = name
        self._batches: deque[tuple[int, Tensor]] = deque()  # numbers and features of the last steps
        self._output: Any = None  # of the submodule in this step
        self._hook: RemovableHandle | None = None
        self._warned = False

    def measure(self, features: Tensor) -> dict[str, float]:
        """Return the metrics of features, by name.

        Args:
            features: ``[N, D]``, N >= 2.

        Raises:
            ValueError: for features that are not finite ``[N, D]``, or fewer than two.
        """
        return {
            f"{self.name}/std": feature_std(features) * features.shape[1] ** 0.5,
            f"{self.name}/rankme": rankme(features),
            f"{self.name}/uniformity": uniformity(features),
        }

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the features of the last epoch."""
        self._batches.clear()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Hook the submodule for this step."""
        if self.features is not None:
            self._hook = find_submodule(pl_module, self.features).register_forward_hook(self._listen)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the features of the step."""
        self._stop_listening()
        if self.features is None and isinstance(outputs, Mapping):
            self._output = outputs.get(self.key)
        output, self._output = self._output, None
        if self.features is None and isinstance(outputs, Mapping) and set(outputs) == {"loss"}:  # or a bare loss
            if not self._warned:
                self._warned = True
                rank_zero_warn(f"{self.name}: nothing is measured; {self._complaint(outputs)}")
            return
        if output is None and not outputs and pl_module.automatic_optimization:  # a step that training_step skipped
            return
        features = as_vectors(output)
        if features is None:
            raise ValueError(f"{self.name}: {self._complaint(outputs if self.features is None else output)}")
        self._batches.append((batch_idx, features.detach()))
        while sum(len(kept) for _, kept in self._batches) - len(self._batches[0][1]) >= self._share:
            self._batches.popleft()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the hook from the module."""
        self._stop_listening()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        features, numbers = self._gathered(device_of(pl_module))
        self._batches.clear()
        if len(features) < 2:  # nothing was trained, or one image in a fast_dev_run
            return
        broken = ~features.isfinite().all(dim=1)
        if broken.any():
            raise ValueError(
                f"{self.name}: expected finite features, got NaN or infinity in batch {numbers[broken].min()} of epoch "
                f"{trainer.current_epoch}; has the training diverged?"
            )
        measured = self.measure(features)
        self._log(trainer, pl_module, measured)
        spread = measured[f"{self.name}/std"]
        if spread < COLLAPSED and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{self.name}: the features collapse. After epoch {trainer.current_epoch}, {self.name}/std is "
                f"{spread:.2g}; for evenly spread features it is 1. Check the part of the method that prevents "
                "collapse, such as negatives, teacher or stop-gradient, or lower the learning rate"
            )

    def _listen(self, part: nn.Module, arguments: Any, output: Any) -> None:
        if self._output is None:
            self._output = output

    def _stop_listening(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _complaint(self, found: Any) -> str:
        if self.features is not None:
            return (
                f"features: expected vectors [N, D] from {self.features!r} in the training step, got "
                f"{_describe(found)}; name a submodule that the step calls and that pools its output"
            )
        return (
            f'training_step: expected a dict with "{self.key}" [N, D], got {_describe(found)}; return '
            f'{{"loss": loss, "{self.key}": features.detach()}}, or pass key= the name of the entry that holds '
            "features [N, D], or features= the name of the submodule that computes them"
        )

    @property
    def _share(self) -> int:
        """Return the number of features to keep in this process."""
        return -(-self.size // world_size())

    def _gathered(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the last features of all processes, and the numbers of their batches."""
        if not self._batches:
            self._batches.append((0, torch.zeros(0, 0, device=device)))
        own = torch.cat([features for _, features in self._batches])[-self._share :]
        numbers = torch.cat([torch.full((len(features),), number) for number, features in self._batches])
        order = torch.arange(len(own), device=own.device) * world_size() + rank()
        features, numbers = gather_in_order(own, numbers[-self._share :].to(own.device), order)
        return features[-self.size :], numbers[-self.size :]


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict {{{', '.join(f'{key!r}: {_describe(item)}' for key, item in value.items())}}}"
    return f"a {type(value).__name__}"
