"""Rules that rank a queue's keys: by labels, by tables of classes, or by the teacher's similarities (RINCE).

Hoffmann et al.: Ranking Info Noise Contrastive Estimation, AAAI 2022, arXiv 2201.11736.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_modules.contrast import Relation
from ssl_modules.utils.checks import check_number, check_numbers
from ssl_modules.utils.configurable import Configurable, described

_LARGEST = torch.iinfo(torch.int8).max


class Ranks(Configurable, nn.Module, ABC):
    """A rule that ranks a queue's keys for each anchor, instead of treating all as negatives.

    Attributes:
        levels: number of columns of ids that it reads: the image's id, which is unique over all steps, then its labels,
            finer to coarser.
    """

    levels: int = 1
    __repr__ = described

    @abstractmethod
    def forward(self, anchor_ids: Tensor, candidate_ids: Tensor, teacher_scores: Callable[[], Tensor]) -> Tensor:
        """The relation of some anchors to all keys of the queue, int8 ``[R, K]``: see :class:`~ssl_modules.Contrast`.

        It is called for a few anchors at a time, and more than once for each.

        Args:
            anchor_ids: ``[R, levels]``; a label of -1 is unknown and matches nothing.
            candidate_ids: ``[K, levels]``; -1 for places of the queue that are not yet filled.
            teacher_scores: function returning ``[R, K]``, the cosines of the anchors' own keys with the queue's keys;
                each call costs a matrix product.
        """

    def before_step(self, step: int) -> None:
        """Prepare for the training step of a batch. ``step`` is the number of optimiser steps so far."""


class LabelRanks(Ranks):
    """Ranks a key by the finest level at which its label equals the anchor's; a key without such a level is a negative.

    With classes and superclasses, as in CIFAR-100, the same class has rank 1 and other classes of the same superclass
    have rank 2.

    Args:
        label_levels: number of label levels in the loader's targets, finer to coarser.
        cumulative: whether to increase all ranks by one, for a cumulative loss, which reserves rank 1 for the anchor's
            own image; see :class:`~ssl_modules.losses.RINCELoss`.

    Raises:
        ValueError: if ``label_levels`` is below 1.

    Example:
        >>> anchors, keys = torch.tensor([[7, 3, 1]]), torch.tensor([[4, 3, 1], [5, 2, 1], [6, 0, 0], [-1, -1, -1]])
        >>> LabelRanks()(anchors, keys, None)
        tensor([[1, 2, 0, 0]], dtype=torch.int8)
        >>> LabelRanks(cumulative=True)(anchors, keys, None)
        tensor([[2, 3, 0, 0]], dtype=torch.int8)
    """

    def __init__(self, label_levels: int = 2, cumulative: bool = False) -> None:
        super().__init__()
        check_number("label_levels", label_levels, above=0)
        self.levels = 1 + label_levels
        self.cumulative = cumulative

    def forward(self, anchor_ids: Tensor, candidate_ids: Tensor, teacher_scores: Callable[[], Tensor]) -> Tensor:
        ranks = Relation(anchor_ids[:, 1:], candidate_ids[:, 1:])[:]
        return ranks + ranks.clamp(max=1) if self.cumulative else ranks


class RankTable(Ranks):
    """Looks up the rank of a key in a table, by the anchor's class and the key's class.

    Args:
        table: ``[C, C]`` integers, one row per class of the anchor: r >= 1 for a class of rank r, 0 for a negative.

    Raises:
        ValueError: if the table is not square, or an entry is out of range; when called with a class not in the table.

    Example:
        >>> table = RankTable([[1, 2, 0], [2, 1, 0], [0, 0, 1]])
        >>> table(torch.tensor([[7, 1]]), torch.tensor([[4, 0], [5, 1], [6, 2], [-1, -1]]), None)
        tensor([[2, 1, 0, 0]], dtype=torch.int8)
    """

    levels = 2
    table: Tensor

    def __init__(self, table: Sequence[Sequence[int]]) -> None:
        super().__init__()
        ranks = _square("table", table)
        if ranks.min() < 0 or ranks.max() > _LARGEST:
            raise ValueError(f"table: expected integers from 0 to {_LARGEST}, got {ranks.unique().tolist()}")
        # The last row and column are for the unknown label, -1.
        self.register_buffer("table", F.pad(ranks.to(torch.int8), (0, 1, 0, 1)), persistent=False)

    def forward(self, anchor_ids: Tensor, candidate_ids: Tensor, teacher_scores: Callable[[], Tensor]) -> Tensor:
        labels, classes = anchor_ids[:, 1], len(self.table) - 1
        outside = labels[(labels < -1) | (labels >= classes)]
        if len(outside):  # the queue's labels were checked when they were anchors'
            raise ValueError(
                f"targets: expected labels from -1 (unknown) to {classes - 1} for a table of {classes} classes, got "
                f"{int(outside[0])}; give a table of all classes"
            )
        return self.table[labels][:, candidate_ids[:, 1]]


class SimilarityRanks(RankTable):
    """A :class:`RankTable` from thresholds on the similarity of classes, such as of their names; such ranks are noisy.

    The same class has rank 1. Another class has rank r + 1 if the r-th threshold is the first that it reaches.

    Args:
        similarities: ``[C, C]``, similarity of the anchor's class (row) to each class.
        thresholds: decreasing, one for each rank from 2 on; [0.4] in the paper's code.

    Raises:
        ValueError: if the matrix is not square, or the thresholds don't decrease; when called with a class not in the
            table.

    Example:
        >>> ranks = SimilarityRanks([[1, 0.7, 0.3], [0.7, 1, 0.5], [0.3, 0.5, 1]], thresholds=[0.6, 0.4])
        >>> ranks.table[:-1, :-1]
        tensor([[1, 2, 0],
                [2, 1, 3],
                [0, 3, 1]], dtype=torch.int8)
    """

    def __init__(self, similarities: Sequence[Sequence[float]], thresholds: Sequence[float]) -> None:
        matrix = _square("similarities", similarities)
        if not thresholds or any(a <= b for a, b in pairwise(thresholds)):
            raise ValueError(f"thresholds: expected one or more, highest first, got {thresholds}")
        table = torch.zeros(matrix.shape, dtype=torch.int64)
        for rank, threshold in reversed(list(enumerate(thresholds, start=2))):
            table[matrix >= threshold] = rank
        super().__init__(table.fill_diagonal_(1).tolist())


class NeighbourRanks(Ranks):
    """Ranks the keys in the queue without labels, by their similarity to the key of the anchor's own image.

    The key of the anchor's own image has rank 1. The nearest ``neighbours[0]`` keys have rank 2, the next
    ``neighbours[1]`` keys have rank 3, and so on. All others are negatives. This rule is not from the paper, which
    ranks images by their labels.

    The neighbours found by an untrained teacher are poor. During the warm-up, all keys in the queue are therefore
    negatives.

    Args:
        neighbours: number of keys with rank 2, rank 3, and so on.
        warmup_steps: number of optimiser steps in the warm-up.

    Raises:
        ValueError: if an argument is out of range. When called, if there are fewer keys than neighbours.

    Example:
        >>> ranks = NeighbourRanks(neighbours=(1, 2), warmup_steps=0)
        >>> ranks(torch.tensor([[9]]), torch.arange(4)[:, None], lambda: torch.tensor([[0.1, 0.9, 0.5, 0.3]]))
        tensor([[0, 2, 3, 3]], dtype=torch.int8)
    """

    steps: Tensor

    def __init__(self, neighbours: Sequence[int] = (5,), warmup_steps: int = 1000) -> None:
        super().__init__()
        check_numbers("neighbours", neighbours, above=0, fix="give one for each rank from 2 on")
        check_number("warmup_steps", warmup_steps, least=0)
        self.neighbours = list(neighbours)
        self.warmup_steps = warmup_steps
        self.register_buffer("steps", torch.tensor(0))  # saved, so that a resumed run doesn't warm up again

    def forward(self, anchor_ids: Tensor, candidate_ids: Tensor, teacher_scores: Callable[[], Tensor]) -> Tensor:
        wanted, keys = sum(self.neighbours), len(candidate_ids)
        if wanted > keys:
            raise ValueError(f"neighbours: a queue of {keys} keys doesn't have {wanted}; use fewer, or a larger queue")
        ranks = torch.zeros(len(anchor_ids), keys, dtype=torch.int8, device=anchor_ids.device)
        if self.steps < self.warmup_steps:
            return ranks
        empty = candidate_ids[:, 0] < 0
        nearest = teacher_scores().masked_fill(empty, -torch.inf).topk(wanted, dim=1).indices  # [R, neighbours]
        of_place = [rank for rank, number in enumerate(self.neighbours, start=2) for _ in range(number)]
        ranks.scatter_(1, nearest, torch.tensor(of_place, dtype=torch.int8, device=ranks.device).expand_as(nearest))
        return ranks.masked_fill_(empty, 0)  # places of the queue that are not yet filled

    def before_step(self, step: int) -> None:
        self.steps.fill_(step)


def _square(name: str, rows: Sequence[Sequence[float]]) -> Tensor:
    lengths = {len(row) for row in rows}
    if lengths != {len(rows)}:
        raise ValueError(
            f"{name}: expected a row and a column for each class, got {len(rows)} rows of {sorted(lengths)} columns"
        )
    return torch.tensor(rows)
