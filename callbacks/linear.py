"""Online linear probe."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.evaluation.accuracy import accuracies
from ssl_modules.evaluation.batches import endless_batches
from ssl_modules.evaluation.features import undisturbed
from ssl_modules.evaluation.linear import ridge_classifier
from ssl_modules.utils.distributed import total


class OnlineLinearProbe(OnlineProbe):
    """Accuracy of a linear classifier of a module's features, while it trains.

    Logs ``{name}/linear_top1``, and ``{name}/linear_top5`` where there are more than 5 classes. The classifier learns
    from labelled, un-augmented training images in eval mode, and is judged on the test images:

    - ``fit="ridge"``: solved anew in closed form at each evaluation; see
      :func:`~ssl_modules.evaluation.ridge_classifier`. Deterministic, and always that of the present features.
    - ``fit="sgd"``: a head that learns beside the module: one step of Adam on the cross-entropy per training batch, on
      a batch of the probe's own training data in an order of its own. It needs one more forward of the module per step,
      of one batch of ``train``'s size. Over several processes the gradient is that of all their batches.

    What it attaches to, where the data come from, and the hooks are those of
    :class:`~ssl_modules.callbacks.OnlineKNNProbe`, and with ``fit="sgd"`` also ``on_train_batch_end``.

    Args:
        train: labelled loader of the images to learn from, with ``test``.
        test: labelled loader of the images to judge on, with ``train``.
        datamodule: set up by the probe, unless it is the Trainer's.
        features: None for ``module(images)``; the dotted name of a submodule whose output is taken; or, from Python, a
            function ``(module, images) -> [N, D]``.
        prepare: function of a loader's batch that returns ``(images as the module expects them, targets)``; None takes
            the first two of a tuple as they are.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.
        bank_size: number of training images to use, a fixed random choice; None for all.
        fit: ``"ridge"`` or ``"sgd"``.
        penalty: of the ridge, positive, relative to the variance of a feature and the number of samples.
        learning_rate: of ``fit="sgd"``, positive.
        num_classes: rows of the head of ``fit="sgd"``; None for the ``num_classes`` of the datamodule.
        every_n_epochs: judges when n epochs or more have passed since it last did, and in the last epoch.
        name: first part of the metrics' names; must differ between two probes of one class.

    Raises:
        ValueError: for arguments that do not go together.

    Example:
        >>> images, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> OnlineLinearProbe(train=loader, test=loader).evaluate(torch.nn.Identity())
        {'probe/linear_top1': 1.0}
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
        fit: Literal["ridge", "sgd"] = "ridge",
        penalty: float = 1e-2,
        learning_rate: float = 1e-3,
        num_classes: int | None = None,
        every_n_epochs: int = 1,
        name: str = "probe",
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
        if fit not in ("ridge", "sgd"):
            raise ValueError(f'fit must be "ridge" or "sgd", but got {fit!r}')
        if penalty <= 0:
            raise ValueError(f"penalty must be positive, but got {penalty}")
        if learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, but got {learning_rate}")
        self.fit = fit
        self.penalty = penalty
        self.learning_rate = learning_rate
        self.num_classes = num_classes
        self._head: tuple[Tensor, Tensor] | None = None  # weight [classes, D], bias [classes]
        self._optimizer: torch.optim.Optimizer | None = None
        self._steps = 0
        self._batches: Iterator[Any] | None = None
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The last result, and with ``fit="sgd"`` head, optimiser and number of steps; tensors and plain values."""
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
        """Takes :meth:`state_dict` back; the head is built at the next step, on the module's device.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        super().load_state_dict(state_dict)
        self._restored = state_dict.get("head")
        self._steps = self._restored["steps"] if self._restored else 0
        self._head = self._optimizer = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks for the data anew in each run."""
        super().setup(trainer, pl_module, stage)
        self._batches = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes one batch through the module; a head needs its number of classes."""
        super().on_train_start(trainer, pl_module)
        if self.fit == "sgd":
            self._class_count(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """With ``fit="sgd"``, one step of the head on a batch of the probe's training data."""
        if self.fit != "sgd":
            return
        with undisturbed(pl_module):
            if self._batches is None:
                self._batches = endless_batches(self._find_loader("train", trainer), self.bank_size, self._steps)
            features, targets = self._of_batch("train", pl_module, next(self._batches), trainer)
        classes = self._class_count(trainer)
        if not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            raise ValueError(
                f"num_classes={classes} but the training data have targets from {int(targets.min())} to "
                f"{int(targets.max())}; give num_classes= the number of classes"
            )
        if self._head is None:
            self._build_head(features, classes)
        self._step(features, targets)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the workers of its loader go."""
        self._batches = None

    def _measure(self, module: nn.Module, trainer: Any) -> dict[str, float]:
        queries, targets = self._read("test", module, trainer)
        weight, bias = self._ridge(module, trainer) if self.fit == "ridge" else self._present_head(queries)
        scores = F.linear(queries, weight, bias)
        return {f"linear_{metric}": value for metric, value in accuracies(scores, targets).items()}

    def _ridge(self, module: nn.Module, trainer: Any) -> tuple[Tensor, Tensor]:
        bank, labels = self._read("train", module, trainer)
        self._check_classes(labels, trainer)
        return ridge_classifier(bank, labels, int(labels.max()) + 1, penalty=self.penalty)

    def _present_head(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        if self._head is None and self._restored is not None:
            self._build_head(queries, len(self._restored["bias"]))
        if self._head is None:
            raise ValueError('fit="sgd" has no head before the first training step; take fit="ridge"')
        weight, bias = self._head
        return weight.to(queries), bias.to(queries)

    def _protocol(self) -> dict[str, int | float | str | None]:
        choice = {"penalty": self.penalty} if self.fit == "ridge" else {"learning_rate": self.learning_rate}
        return {"fit": self.fit, **choice, "bank_size": self.bank_size}

    def _class_count(self, trainer: Any) -> int:
        classes = self.num_classes
        for data in (self.datamodule, trainer.datamodule):
            classes = classes or getattr(data, "num_classes", None)
        if classes is None:
            raise ValueError('fit="sgd" must know the number of classes before it has seen them all; give num_classes=')
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
                        f"{self.name}: the checkpoint's head is {list(stored)} but features and num_classes now make "
                        f"it {list(weight.shape)}; resume with the same features= and num_classes="
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
