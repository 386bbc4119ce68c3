"""Online linear probe that learns by gradient descent."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.evaluation.accuracy import accuracies
from ssl_modules.evaluation.batches import endless_batches
from ssl_modules.evaluation.features import undisturbed
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.distributed import total


class OnlineSGDProbe(OnlineProbe):
    """Accuracy of a linear head that learns beside the module.

    After each training step of the module the head makes one step of Adam on the cross-entropy, on a batch of the
    probe's own training data in an order of its own. It reads the features in eval mode; no gradient reaches the
    module. Each step costs one more forward of the module, of one batch of ``train``'s size. Over several processes the
    gradient is that of all their batches. Checkpoints hold the head and its optimiser.

    Logs ``{name}/sgd_top1``, and ``{name}/sgd_top5`` where there are more than 5 classes.
    :class:`~ssl_modules.callbacks.OnlineLinearProbe` needs no steps, and is the better measure of the features of one
    moment.

    Args:
        learning_rate: learning rate of Adam, positive.
        num_classes: number of classes. None = the ``num_classes`` of the datamodule.
        settings: keyword arguments of :class:`~ssl_modules.callbacks.OnlineProbe`, such as train, test and features.

    Example:
        >>> OnlineSGDProbe(num_classes=10).settings()
        {'learning_rate': 0.001, 'bank_size': 5000}
    """

    def __init__(self, *, learning_rate: float = 1e-3, num_classes: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        check_number("learning_rate", learning_rate, above=0)
        if num_classes is not None:
            check_number("num_classes", num_classes, least=1)
        self.learning_rate = learning_rate
        self.num_classes = num_classes
        self._head: tuple[Tensor, Tensor] | None = None  # weight [classes, D], bias [classes]
        self._optimizer: torch.optim.Optimizer | None = None
        self._steps = 0
        self._batches: Iterator[Any] | None = None
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the last result, head, optimiser and number of steps, as tensors and plain values."""
        state = super().state_dict()
        if self._restored is not None:  # no step since
            state["head"] = self._restored
        elif self._head is not None and self._optimizer is not None:
            weight, bias = (tensor.detach() for tensor in self._head)
            state["head"] = {
                "weight": weight,
                "bias": bias,
                "optimizer": self._optimizer.state_dict(),
                "steps": self._steps,
            }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last result; the head is built at the next step, on the module's device.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        super().load_state_dict(state_dict)
        self._restored = state_dict.get("head")
        self._steps = self._restored["steps"] if self._restored else 0
        self._head = self._optimizer = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the data of another run, and its head where a fit begins anew."""
        super().setup(trainer, pl_module, stage)
        self._batches = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send one batch of each loader through the module, and look for the number of classes."""
        super().on_train_start(trainer, pl_module)
        self._class_count(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Make one step of the head, on a batch of the probe's training data."""
        with undisturbed(pl_module):
            if self._batches is None:
                self._batches = endless_batches(self._find_loader("train", trainer), self.bank_size, self._steps)
            features, targets = self._read_batch("train", pl_module, next(self._batches), trainer)
        self._check_targets("train", targets, trainer)
        if self._head is None:
            self._build_head(features, self._class_count(trainer))
        self._step(features, targets)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the workers of its loader go."""
        self._batches = None

    def measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        """Accuracy of the head as it is."""
        queries, targets = self.read("test", module, trainer)
        if self._head is None and self._restored is not None:
            self._build_head(queries, len(self._restored["bias"]))
        if self._head is None:
            raise ValueError(
                f"{self.name}: expected a head that has learned, got none before the first training step; take "
                "OnlineLinearProbe, which needs no steps"
            )
        weight, bias = (tensor.to(queries) for tensor in self._head)
        scores = F.linear(queries, weight, bias)
        return {f"sgd_{metric}": value for metric, value in accuracies(scores, targets).items()}

    def settings(self) -> dict[str, int | float | str | None]:
        """Return ``learning_rate`` and ``bank_size``."""
        return {"learning_rate": self.learning_rate, **super().settings()}

    def _check_targets(self, part: str, labels: Tensor, trainer: Any) -> None:
        """Raise an error if a training target is not a class of the head."""
        classes = self._class_count(trainer)
        if part == "train" and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"num_classes: expected more than every target, got {classes} and training targets from "
                f"{int(labels.min())} to {int(labels.max())}; give num_classes= the number of classes"
            )

    def _class_count(self, trainer: Any) -> int:
        classes = self.num_classes
        for data in (self.datamodule, trainer.datamodule):
            classes = classes or getattr(data, "num_classes", None)
        if classes is None:
            raise ValueError(
                "num_classes: expected the number of classes, got None and no datamodule that has it; give num_classes="
            )
        return classes

    def _build_head(self, features: Tensor, classes: int) -> None:
        with torch.inference_mode(False), torch.no_grad():
            # Zeros: the problem is convex, every process starts alike, and no random number is drawn.
            weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
            bias = torch.zeros(classes, device=features.device, requires_grad=True)
            optimizer = torch.optim.Adam([weight, bias], lr=self.learning_rate)
            if self._restored is not None:
                stored = self._restored["weight"].shape
                if stored != weight.shape:
                    raise ValueError(
                        f"{self.name}: expected a head {list(weight.shape)} from features and num_classes, got "
                        f"{list(stored)} in the checkpoint; resume with the same features= and num_classes="
                    )
                weight.copy_(self._restored["weight"])
                bias.copy_(self._restored["bias"])
                optimizer.load_state_dict(self._restored["optimizer"])
                self._restored = None
        self._head, self._optimizer = (weight, bias), optimizer

    @torch.enable_grad()
    def _step(self, features: Tensor, targets: Tensor) -> None:
        assert self._head is not None
        assert self._optimizer is not None
        loss = F.cross_entropy(F.linear(features.to(self._head[0].dtype), *self._head), targets.long(), reduction="sum")
        count = total(torch.tensor(float(len(targets)), device=features.device))
        for parameter, gradient in zip(self._head, torch.autograd.grad(loss, self._head), strict=True):
            parameter.grad = total(gradient) / count
        self._optimizer.step()
        self._steps += 1
