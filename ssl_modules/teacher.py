"""The teacher: an exponential moving average (EMA) of the student's encoder and heads."""

from copy import deepcopy
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from ssl_modules.encoders import Encoder, SplitBatchNorm2d
from ssl_modules.encoders.split_norm import split_batch_norms
from ssl_modules.encoders.views import encode
from ssl_modules.extractions.base import Extraction, MomentumSchedule, check_momentum


class Teacher(nn.Module):
    """Copies of an encoder and its heads, updated as a moving average of them, without gradient.

    At each update  teacher <- m teacher + (1 - m) student  for all parameters. Batch-norm statistics are not averaged:
    the teacher computes its own from its own batches, as in the code of the papers. No optimiser updates the teacher.
    Weights that are loaded into the student later don't reach it: pass the module a network that already has them.

    Args:
        encoder: the student's encoder, which is copied.
        heads: the student's heads, which are copied.
        momentum: m of the first update, in [0, 1].
        schedule: "constant"; or "cosine" or "cosine-endpoint", from ``momentum`` to 1 (see :func:`momentum_at`).
        batch_norm_splits: number of parts that the copy's batch norms normalise separately; None = as the encoder's.

    Raises:
        ValueError: if ``momentum`` or ``schedule`` is invalid, or the batch norms can't be split.

    Example:
        >>> student = nn.Linear(1, 1, bias=False)
        >>> teacher = Teacher(student, nn.Identity(), momentum=0.9, schedule="constant")
        >>> before = student.weight.item()
        >>> with torch.no_grad():
        ...     _ = student.weight.add_(1)
        >>> teacher.update(student, nn.Identity(), step=0, steps=10)
        >>> round(teacher.encoder.weight.item() - before, 4)
        0.1
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: nn.Module,
        momentum: float,
        schedule: MomentumSchedule,
        batch_norm_splits: int | None = None,
    ) -> None:
        super().__init__()
        check_momentum(momentum, schedule)
        self.momentum = momentum
        self.schedule = schedule
        self.encoder: Any = deepcopy(encoder)
        if batch_norm_splits is not None:
            split_batch_norms(self.encoder, batch_norm_splits, "teacher_batch_norm_splits")
        self.heads = deepcopy(heads)
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, SplitBatchNorm2d):
                module.interleaved = True

    @torch.no_grad()
    def forward(self, view: Tensor) -> Any:
        """Return the output of the teacher's heads for a view."""
        return self.heads(encode(self.encoder, view, self.encoder.spatial_dims))

    @torch.no_grad()
    def update(self, encoder: nn.Module, heads: nn.Module, step: int, steps: float) -> None:
        """Update the average by one step towards the student.

        Args:
            encoder: the student's encoder.
            heads: the student's heads.
            step: number of this update, from 0.
            steps: number of updates in the run.

        Raises:
            ValueError: if the schedule is "cosine" or "cosine-endpoint" and the length of the run is unknown.
        """
        if self.schedule != "constant" and not 0 < steps < float("inf"):  # -1 for a loader without a length
            raise ValueError(
                f'momentum_schedule: "{self.schedule}" needs an end; set Trainer(max_epochs=...), or max_steps for a '
                'loader without a length, or take "constant"'
            )
        if self.schedule == "constant":
            m = self.momentum
        else:
            last = steps if self.schedule == "cosine" else max(1, steps - 1)
            m = momentum_at(step, last, self.momentum)
        own: list[Tensor] = [*self.encoder.parameters(), *self.heads.parameters()]
        student: list[Tensor] = [*encoder.parameters(), *heads.parameters()]
        torch._foreach_mul_(own, m)
        torch._foreach_add_(own, student, alpha=1 - m)


def build_teacher(
    encoder: Encoder, extraction: Extraction, compile: bool = False, batch_norm_splits: int | None = None
) -> Teacher:
    """Build the teacher that an extraction compares with.

    Args:
        encoder: the student's encoder.
        extraction: holds heads, momentum and schedule.
        compile: whether to compile the teacher's encoder, as the copy of a compiled encoder is not compiled.
        batch_norm_splits: see :class:`Teacher`.

    Raises:
        ValueError: if the extraction has no momentum, or the batch norms can't be split.
    """
    if extraction.momentum is None:
        raise ValueError(
            f"momentum: expected that of the teacher's average, as {type(extraction).__name__} compares with a "
            "teacher, got None; give a number such as 0.99"
        )
    heads, momentum, schedule = extraction.heads, extraction.momentum, extraction.momentum_schedule
    teacher = Teacher(encoder, heads, momentum, schedule, batch_norm_splits)
    if compile:
        teacher.encoder.compile_backbone()
    return teacher


def momentum_at(step: int, last: float, first: float) -> float:
    """Return the momentum of an update; it rises from ``first`` to 1 along half a cosine (BYOL, arXiv 2006.07733).

    Args:
        step: number of the update, from 0.
        last: number of the update with momentum 1. In a run of S updates, it is S for "cosine", so that no update
            reaches 1, and S - 1 for "cosine-endpoint".
        first: momentum at step 0.

    Example:
        >>> [round(momentum_at(step, 4, first=0.9), 4) for step in range(5)]
        [0.9, 0.9146, 0.95, 0.9854, 1.0]
    """
    return 1 - (1 - first) * (cos(pi * step / last) + 1) / 2
