"""Extraction that compares views with learned prototypes. The targets are assignments of other views to prototypes."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_modules.contrast import Contrast, Paired, Rows
from ssl_modules.extractions.base import Extraction, at_least_two
from ssl_modules.extractions.heads import PooledMLP
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.distributed import gather, world_size


class Prototypes(Extraction):
    """Compares views with K learned unit vectors, the prototypes (SwAV).

    Views are the anchors, and prototypes are the candidates. The first ``assigned`` views are assigned to the
    prototypes. The assignment of a view is the target of the other views of its image. For the scores S of an assigned
    view, the assignment is Q = softmax(S / epsilon + g). The offsets g, one for each prototype, come from Sinkhorn's
    algorithm; see :func:`sinkhorn`. The offsets give each prototype about the same number of views, counted over all
    processes and the queue.

    A contrast's ``reference`` is a function from rows to the scores S / epsilon + g.
    :class:`~ssl_modules.losses.AssignmentLoss` computes the targets from these scores. For other losses and for the
    metrics, the positive in a contrast's relation is the most likely prototype of each target.

    Embeddings are normalised to unit vectors. Before each training step, the prototypes are normalised too, in place.
    The gradient of the prototypes is not projected onto the sphere.

    The queue has embeddings of each assigned view from earlier batches. It is used only when it is full. Every process
    holds the full queue. The prototypes, the queue and the number of steps are saved with the weights.

    Args:
        hidden_dim: width of the projector's hidden layers.
        out_dim: width of the embedding, D.
        layers: number of the projector's linear layers.
        prototypes: number of prototypes, K, 2 or more.
        batch_norm: whether the projector's hidden layers have batch norm.
        assigned: number of leading views that are assigned.
        epsilon: divisor of the scores in the assignment, > 0. A smaller value makes assignments harder.
        iterations: number of iterations of Sinkhorn's algorithm.
        queue: number of embeddings of each assigned view in the queue. 0 = no queue.
        queue_after: number of optimiser steps after which the queue begins to fill. A float in [0, 1] is a share of the
            run.
        frozen_steps: number of optimiser steps at the start in which the prototypes are not trained. A float in [0, 1]
            is a share of the run.

    Raises:
        ValueError: in one of these cases:

            - An argument is out of range.
            - There is only one view, or there are fewer views than ``assigned``.
            - A batch has more embeddings than fit in the queue.
            - An argument is a share of the run, but the length of the run is unknown.

    Example:
        >>> extraction = Prototypes(hidden_dim=16, out_dim=8, prototypes=5)
        >>> extraction.build(out_channels=(32,))
        >>> views = [extraction.heads((torch.rand(3, 32, 1, 1),)) for _ in range(2)]
        >>> first, second = extraction(views, None, torch.arange(3)[:, None], None)
        >>> first.anchors.shape, first.candidates.shape, first.reference(slice(0, 2)).shape, first.weight
        (torch.Size([3, 8]), torch.Size([5, 8]), torch.Size([2, 5]), 0.5)
    """

    older: Tensor
    filled: Tensor
    steps: Tensor
    replicated_buffers = ("older", "filled", "steps")

    def __init__(
        self,
        hidden_dim: int = 2048,
        out_dim: int = 128,
        layers: int = 2,
        prototypes: int = 3000,
        *,
        batch_norm: bool = True,
        assigned: int = 2,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        queue_after: int | float = 0,
        frozen_steps: int | float = 0,
    ) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("out_dim", out_dim), ("layers", layers)):
            check_number(name, value, above=0)
        check_number("prototypes", prototypes, least=2)
        check_number("assigned", assigned, least=1)
        check_number("epsilon", epsilon, above=0)
        check_number("iterations", iterations, least=1)
        check_number("queue", queue, least=0)
        for name, amount in (("queue_after", queue_after), ("frozen_steps", frozen_steps)):
            check_number(name, amount, least=0, most=1 if isinstance(amount, float) else None)
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.layers = layers
        self.number = prototypes
        self.batch_norm = batch_norm
        self.assigned = assigned
        self.epsilon = epsilon
        self.iterations = iterations
        self.queue = queue
        self.queue_after = queue_after
        self.frozen_steps = frozen_steps
        # Numbers of optimiser steps. on_fit_start computes them from shares.
        self._fills_after = queue_after if isinstance(queue_after, int) else 0
        self._frozen = frozen_steps if isinstance(frozen_steps, int) else 0
        self._waiting: list[Tensor] | None = None

    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        widths = [out_channels[-1], *[self.hidden_dim] * (self.layers - 1), self.out_dim]
        self.heads = PooledMLP(*widths, batch_norm=self.batch_norm, bias=True)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(self.number, self.out_dim), dim=1))
        self.register_buffer("older", torch.zeros(self.assigned, self.queue, self.out_dim))  # newest first
        self.register_buffer("filled", torch.tensor(0))  # number of embeddings in the queue
        self.register_buffer("steps", torch.tensor(0))  # number of optimiser steps

    def student_views(self, views: int) -> Sequence[int]:
        """Return the indices of the student's views, which are all views."""
        if self.assigned > at_least_two(views).stop:
            raise ValueError(f"assigned: expected at most the {views} views there are, got {self.assigned}")
        return range(views)

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        views, learns = len(self.student_views(len(student))), self.training and torch.is_grad_enabled()
        with torch.autocast(ids.device.type, enabled=False):
            precision = torch.promote_types(self.prototypes.dtype, torch.float32)
            embeddings = [F.normalize(z.to(precision), dim=1) for z in student]  # [N, D] each
            prototypes = self._unit_prototypes(learns)
            if learns and self.queue and self.steps >= self._fills_after:
                self._stage([z.detach() for z in embeddings[: self.assigned]])
            return [
                self._contrast(
                    torch.cat([z for v, z in enumerate(embeddings) if v != i]),
                    prototypes,
                    self._assignments(i, embeddings[i], prototypes.to(precision)).repeat(views - 1, 1),
                )
                for i in range(self.assigned)
            ]

    def _unit_prototypes(self, learns: bool) -> Tensor:
        """Normalise the prototypes: in place if ``learns``, else return a normalised copy."""
        own = self.prototypes.detach()
        length = own.norm(dim=1, keepdim=True)
        # Normalising a unit vector again would change its last digits, and frozen prototypes would drift.
        is_unit = (length - 1).abs() < 4 * torch.finfo(own.dtype).eps
        unit = torch.where(is_unit, own, F.normalize(own, dim=1))
        if not learns:
            return unit
        with torch.no_grad():
            self.prototypes.copy_(unit)
        return self.prototypes

    @torch.no_grad()
    def _assignments(self, view: int, embeddings: Tensor, prototypes: Tensor) -> Tensor:
        """Return scores ``[N, K]`` whose softmax is the assignment of each image's view."""
        scores = embeddings @ prototypes.T / self.epsilon
        is_full = self.queue > 0 and self.filled >= self.queue
        others = self.older[view].to(scores.dtype) @ prototypes.T / self.epsilon if is_full else None
        return scores + sinkhorn(scores, self.iterations, others)

    def _contrast(self, anchors: Tensor, prototypes: Tensor, targets: Tensor) -> Contrast:
        relation = Paired(targets.argmax(dim=1), len(prototypes))
        return Contrast(anchors, prototypes, relation, _rows_of(targets), weight=1 / self.assigned)

    def _stage(self, embeddings: list[Tensor]) -> None:
        rows = len(embeddings[0]) * world_size()
        if rows > self.queue:
            raise ValueError(
                f"queue: a queue of {self.queue} can't take the {rows} embeddings of a batch; give it {rows} or more, "
                "use smaller batches, or pass 0 for no queue"
            )
        self._waiting = embeddings

    def on_fit_start(self, images: int | None, steps: int | float, steps_per_epoch: int | float) -> None:
        """Convert shares of the run to steps.

        Warn if the prototypes never learn, if the queue never fills, or if there are more prototypes than images.
        """
        if images is not None and self.number > images:
            rank_zero_warn(
                f"prototypes: got {self.number} for {images} training images, so most prototypes get no image; use "
                "fewer prototypes than images"
            )
        self._frozen = _number_of("frozen_steps", self.frozen_steps, steps)
        self._fills_after = _number_of("queue_after", self.queue_after, steps) if self.queue else 0
        for name, number in (("frozen_steps", self._frozen), ("queue_after", self._fills_after)):
            if 0 < steps <= number:
                rank_zero_warn(f"{name}: got {number}, but the run ends after {steps} steps; give a smaller number")

    def before_step(self, step: int) -> None:
        """Store the number of optimiser steps so far."""
        self.steps.fill_(step)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Drop the gradient of frozen prototypes, and store the embeddings of the last training batch."""
        if self.steps < self._frozen:
            self.prototypes.grad = None
        if self._waiting is None:
            return
        new = torch.stack([gather(z) for z in self._waiting])  # [assigned, W N, D]
        self._waiting = None
        self.older.copy_(torch.cat([new, self.older], dim=1)[:, : self.queue])
        self.filled.add_(new.shape[1]).clamp_(max=self.queue)


def _number_of(name: str, amount: int | float, steps: int | float) -> int:
    if isinstance(amount, int):
        return amount
    if not 0 < steps < float("inf"):
        raise ValueError(
            f"{name}: {amount} is a share of the run, but its length is unknown; give a number of steps, or set "
            "Trainer(max_epochs=...), or Trainer(max_steps=...) for a loader without a length"
        )
    return round(amount * steps)


def _rows_of(scores: Tensor) -> Callable[[Rows], Tensor]:
    return lambda rows: scores[rows]


@torch.no_grad()
def sinkhorn(scores: Tensor, iterations: int, others: Tensor | None = None) -> Tensor:
    """Return the offsets of the prototypes for an even assignment of rows, by Sinkhorn's algorithm.

    Each row of the assignment Q = softmax(S + g) sums to 1. After enough iterations, all columns of Q have about the
    same sum. Each iteration computes

        g_k <- - log sum_n exp(S_nk - r_n),   r_n = log sum_k exp(S_nk + g_k)

    In the first iteration, r is 0. The sum over n includes the rows of all processes. The algorithm works on
    logarithms, so nothing overflows.

    Args:
        scores: scores S, ``[N, K]``, the rows of this process.
        iterations: number of iterations, at least 1.
        others: further rows, ``[L, K]``. They are equal in all processes and are counted only once.

    Returns:
        The offsets g, ``[K]``, equal in all processes.

    Example:
        Both rows have the highest score for the first prototype. The even assignment gives each row its own prototype.

        >>> scores = torch.tensor([[9.0, 5.0], [8.0, 0.0]])
        >>> (scores + sinkhorn(scores, iterations=20)).softmax(dim=1).round(decimals=2)
        tensor([[0.1200, 0.8800],
                [0.8800, 0.1200]])
    """
    offsets = scores.new_zeros(scores.shape[1])
    for iteration in range(iterations):
        sums = [
            (s - (s + offsets).logsumexp(dim=1, keepdim=True) if iteration else s).logsumexp(dim=0, keepdim=True)
            for s in ((scores,) if others is None else (scores, others))
        ]
        offsets = -torch.cat([gather(sums[0]), *sums[1:]]).logsumexp(dim=0)
    return offsets
