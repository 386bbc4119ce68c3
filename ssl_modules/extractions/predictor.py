"""Extraction in which the student predicts an embedding of another view, either the teacher's or its own."""

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from ssl_modules.contrast import Contrast, Paired
from ssl_modules.extractions.base import Extraction, MomentumSchedule, TeacherUpdate, at_least_two, check_momentum
from ssl_modules.extractions.heads import MLP, PooledMLP, with_output_norm
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.distributed import gather, rank


class Predictor(Extraction):
    """Projects pooled deepest maps, and predicts the embeddings of other views (BYOL, SimSiam).

    For every ordered pair of different views, the student's prediction from the first view is an anchor. Its positive
    is the teacher's embedding of the second view. Its negatives are the teacher's embeddings of all other images, of
    all processes. :class:`~ssl_modules.losses.Alignment` doesn't use negatives (BYOL),
    :class:`~ssl_modules.losses.InfoNCE` does (MoCo v3). With two views, both pairs have weight 1, as in BYOL's paper.
    With V views, each of the V (V - 1) pairs has weight 2 / (V (V - 1)), so that losses are comparable for any V.

    With ``momentum=None``, there is no teacher (SimSiam). The targets are then the student's own embeddings, which have
    no gradient if ``stop_gradient`` is True.

    Args:
        hidden_dim: width of the projector's hidden layers. None = the channels of the deepest map.
        out_dim: width of the embedding.
        predictor_dim: width of the predictor's hidden layer.
        layers: number of the projector's linear layers.
        output_norm: whether the projector ends in a batch norm without parameters. Its last linear layer then has no
            bias.
        stop_gradient: whether to detach the targets. False needs ``momentum=None``. With
            :class:`~ssl_modules.losses.Alignment`, the representation then collapses.
        momentum: momentum of the teacher's moving average, in [0, 1]; see :class:`~ssl_modules.teacher.Teacher`. None =
            no teacher.
        momentum_schedule: "constant", "cosine" or "cosine-endpoint"; see :class:`~ssl_modules.extractions.Extraction`.
        teacher_update: "after" or "before"; see :class:`~ssl_modules.extractions.Extraction`.

    Raises:
        ValueError: if an argument is out of range, or there is only one view. When called, if ``momentum`` is given
            but the teacher's embeddings are not.

    Example:
        >>> extraction = Predictor(hidden_dim=16, out_dim=8, predictor_dim=16)
        >>> extraction.build(out_channels=(32,))
        >>> views = [extraction.heads((torch.rand(3, 32, 1, 1),)) for _ in range(2)]
        >>> contrasts = extraction(views, [z.detach() for z in views], torch.arange(3)[:, None], None)
        >>> len(contrasts), contrasts[0].weight
        (2, 1.0)
        >>> contrasts[0].relation[:]
        tensor([[1, 0, 0],
                [0, 1, 0],
                [0, 0, 1]], dtype=torch.int8)
    """

    def __init__(
        self,
        hidden_dim: int | None = 4096,
        out_dim: int = 256,
        predictor_dim: int = 4096,
        *,
        layers: int = 2,
        output_norm: bool = False,
        stop_gradient: bool = True,
        momentum: float | None = 0.996,
        momentum_schedule: MomentumSchedule = "cosine",
        teacher_update: TeacherUpdate = "after",
    ) -> None:
        super().__init__()
        numbers = {"hidden_dim": hidden_dim, "out_dim": out_dim, "predictor_dim": predictor_dim, "layers": layers}
        for name, value in numbers.items():
            if value is not None:
                check_number(name, value, above=0)
        if not stop_gradient and momentum is not None:
            raise ValueError(
                f"stop_gradient: got False with momentum={momentum}, but a teacher's embeddings have no gradient; pass "
                "momentum=None, so that the targets are the student's own embeddings"
            )
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.predictor_dim = predictor_dim
        self.layers = layers
        self.output_norm = output_norm
        self.stop_gradient = stop_gradient
        if momentum is not None:
            check_momentum(momentum, momentum_schedule)
        self.momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.teacher_update = teacher_update

    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        features = out_channels[-1]
        widths = [features, *[self.hidden_dim or features] * (self.layers - 1), self.out_dim]
        self.heads = with_output_norm(PooledMLP(*widths, bias=not self.output_norm), self.out_dim, self.output_norm)
        self.predictor = MLP(self.out_dim, self.predictor_dim, self.out_dim, bias=True)

    def student_views(self, views: int) -> Sequence[int]:
        """Indices of the student's views: all."""
        return at_least_two(views)

    def teacher_views(self, views: int) -> Sequence[int]:
        """Return the indices of the teacher's views: all views, or none if there is no teacher."""
        return () if self.momentum is None else range(views)

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        if self.momentum is None:
            teacher = [z.detach() for z in student] if self.stop_gradient else student
        elif teacher is None:
            raise ValueError("teacher: got None, but the predictor needs a teacher's embeddings to predict")
        views = len(self.student_views(len(student)))
        predictions = self.over_views(self.predictor, student)
        targets = [gather(z) for z in teacher]  # [W N, D] each
        own = rank() * len(ids) + torch.arange(len(ids), device=ids.device)
        relation = Paired(own, candidates=len(targets[0]))
        pairs = list(permutations(range(views), 2))
        return [Contrast(predictions[i], targets[j], relation, weight=2 / len(pairs)) for i, j in pairs]
