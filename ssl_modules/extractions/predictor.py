"""The student predicts the teacher's embedding of another view, without any negatives."""

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from ssl_modules.contrast import Contrast, Paired
from ssl_modules.extractions.base import Extraction, at_least_two
from ssl_modules.extractions.heads import MLP, PooledMLP


class Predictor(Extraction):
    """Pooled deepest maps through a projector, and the student's through a predictor as well (BYOL).

    For every pair of two different views, one is an anchor, predicted by the student, and the other one, as the
    teacher sees it, its only candidate. Other images don't enter, neither here nor from other processes. Both
    directions of two views have weight 1, as in the paper; with V views each of the V (V - 1) pairs has
    2 / (V (V - 1)), so that a loss means the same whatever V.

    Args:
        hidden_dim: width of the projector's hidden layer.
        out_dim: width of the embedding.
        predictor_dim: width of the predictor's hidden layer.

    Raises:
        ValueError: if a number is not positive; for one view; without a teacher.

    Example:
        >>> extraction = Predictor(hidden_dim=16, out_dim=8, predictor_dim=16)
        >>> extraction.build(out_channels=(32,))
        >>> views = [extraction.heads((torch.rand(3, 32, 1, 1),)) for _ in range(2)]
        >>> contrasts = extraction(views, [z.detach() for z in views], torch.arange(3)[:, None], None)
        >>> len(contrasts), contrasts[0].weight
        (2, 1.0)
        >>> contrasts[0].relation[:]
        tensor([[ 1, -1, -1],
                [-1,  1, -1],
                [-1, -1,  1]], dtype=torch.int8)
    """

    def __init__(self, hidden_dim: int = 4096, out_dim: int = 256, predictor_dim: int = 4096) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("out_dim", out_dim), ("predictor_dim", predictor_dim)):
            if value < 1:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.predictor_dim = predictor_dim

    def build(self, out_channels: Sequence[int]) -> None:
        self.heads = PooledMLP(out_channels[-1], self.hidden_dim, self.out_dim, bias=True)
        self.predictor = MLP(self.out_dim, self.predictor_dim, self.out_dim, bias=True)

    def student_views(self, views: int) -> Sequence[int]:
        """Which of the views go through the student: all."""
        return at_least_two(views)

    def teacher_views(self, views: int) -> Sequence[int]:
        """Which of the views go through the teacher: all."""
        return range(views)

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        if teacher is None:
            raise ValueError("teacher: got None, but the predictor needs a teacher's embeddings to predict")
        views = len(self.student_views(len(student)))
        predictions = [self.predictor(z) for z in student]
        images = len(ids)
        relation = Paired(own=torch.arange(images, device=ids.device), candidates=images, ignored=images)
        pairs = list(permutations(range(views), 2))
        return [Contrast(predictions[i], teacher[j], relation, weight=2 / len(pairs)) for i, j in pairs]
