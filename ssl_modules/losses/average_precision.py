"""Average precision as a loss: every anchor is a query, and its positives should come first among the candidates.

[1] Brown, Xie, Kalogeiton, Zisserman: Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, ECCV 2020,
    arXiv 2007.12163 ("smooth").
[2] Cakir, He, Xia, Kulis, Sclaroff: Deep Metric Learning to Rank (FastAP), CVPR 2019 ("binned").
[3] Revaud, Almazan, Rezende, de Souza: Learning with Average Precision: Training Image Retrieval with a Listwise Loss,
    ICCV 2019, arXiv 1906.07589 ("binned").
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_modules.losses.base import (
    Loss,
    first_derivative,
    full_precision,
    has_positive,
    mean,
    positive_pairs,
)
from ssl_modules.utils.checks import check_number

# (scores [A, C], relation [A, C], out [A, C] | None) -> 1 - average precision of each row [A], 0 for a row without
# positives. The gradient is written to out.
Surrogate = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_CACHED, _HELD = 2**17, 2**24  # soft comparisons per block: on a CPU (fits its cache), and elsewhere


class AveragePrecisionLoss(Loss):
    """One minus the mean average precision of all anchors, with soft ranks.

    With s_j the score of candidate j, P the positives of an anchor and O all its candidates:

        AP = 1/|P| sum_{i in P} (1 + #{j in P: s_j > s_i}) / (1 + #{j in O: s_j > s_i}),    loss = 1 - mean over anchors

    smooth [1]: the step s_j > s_i becomes sigmoid((s_j - s_i) / temperature). Ties count as half a place. Scores much
    farther apart than the temperature get no gradient, even in the wrong order.

    binned [2, 3]: each score is split linearly between the two nearest of ``bins`` equally spaced bins. With h_m and
    h+_m the mass of all candidates and of the positives in bin m, highest first, and H_m and H+_m in bins 1 .. m:

        AP = 1/|P| sum_m h+_m H+_m / H_m

    The order inside a bin doesn't matter. Scores outside [low, high] are clipped and get no gradient.

    A candidate that the relation ignores is in neither P nor O; extractions exclude the anchor itself this way. Ranks
    of positives are treated alike. Anchors without a positive are skipped.

    The loss is one minus the soft average precision; :func:`~ssl_modules.objective.ranking` computes the exact one. On
    a GPU, "binned" adds up in no fixed order, unless ``torch.use_deterministic_algorithms(True)`` is set.

    Args:
        surrogate: "smooth" or "binned".
        temperature: temperature of the sigmoid, > 0; in units of the scores.
        bins: number of bins, at least 2, the first at ``high`` and the last at ``low``.
        low: lower end of the histogram; smaller scores are clipped.
        high: upper end of the histogram; larger scores are clipped.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        The positives come first and third: AP = (1/1 + 2/3) / 2.

        >>> scores = torch.tensor([[0.9, 0.5, 0.1, -0.3]])
        >>> relation = torch.tensor([[1, 0, 1, 0]], dtype=torch.int8)
        >>> AveragePrecisionLoss()(scores, relation)
        tensor(0.1667)
    """

    def __init__(
        self,
        surrogate: Literal["smooth", "binned"] = "smooth",
        temperature: float = 0.01,
        bins: int = 20,
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        check_number("bins", bins, least=2)
        if low >= high:
            raise ValueError(f"low and high: expected two numbers low < high, got {low} and {high}")
        self.missed: Surrogate = functools.partial(_smooth, temperature=temperature)
        if surrogate == "binned":
            self.missed = functools.partial(_binned, bins=bins, low=low, high=high)

    def counts(self, relation: Tensor) -> Tensor:
        """The number of anchors with a positive: int64 ``[1]``."""
        return has_positive(relation).sum()[None]

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        return mean(_Missed.apply(scores, relation, self.missed).sum(), counts[0])


class _Missed(torch.autograd.Function):
    """One minus each anchor's average precision; saves only its gradient, and no intermediate results."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, relation: Tensor, surrogate: Surrogate) -> Tensor:
        gradient = torch.empty_like(scores) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(gradient)
        return surrogate(scores, relation, gradient)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, of_missed: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_missed[:, None], None, None


def exact_average_precision(scores: Tensor, relation: Tensor) -> Tensor:
    """The average precision of each anchor ``[A]``; NaN for an anchor without a positive. Ties count as half a place.

    An anchor with a NaN score gets 0.

    Args:
        scores: ``[A, C]``.
        relation: int8 ``[A, C]``.

    Example:
        >>> exact_average_precision(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0, 1, 0]], dtype=torch.int8))
        tensor([0.5000])
    """
    scores = full_precision(scores)  # half precision can't count places exactly
    positive = relation > 0
    p, n = _above(scores, positive) + 0.5, _above(scores, relation == 0)  # a positive ties with itself
    total = (p / (p + n)).masked_fill(~positive, 0).sum(dim=1)
    return total.masked_fill(has_nan(scores, relation), 0) / positive.sum(dim=1)


def has_nan(scores: Tensor, relation: Tensor) -> Tensor:
    """Which anchors ``[A]`` have a NaN score for a candidate that is not ignored."""
    return (scores.isnan() & (relation >= 0)).any(dim=1)


def _above(scores: Tensor, group: Tensor) -> Tensor:
    """For each candidate ``[A, C]``, how many of a group have a larger score; equal scores count half."""
    # Candidates outside the group come first, among them any scores of -inf.
    members = scores.masked_fill(~group, -torch.inf).sort(dim=1).values
    below, up_to = (torch.searchsorted(members, scores.contiguous(), right=right) for right in (False, True))
    below = torch.maximum(below, (~group).sum(dim=1, keepdim=True))
    return scores.shape[1] - (below + up_to).to(scores.dtype) / 2


def _smooth(scores: Tensor, relation: Tensor, gradient: Tensor | None, *, temperature: float) -> Tensor:
    """Mean of ``n_i / (p_i + n_i)``, with p_i positives (including i) and n_i negatives above positive i."""
    row, column = positive_pairs(relation)
    number = row.bincount(minlength=len(scores))
    slot = torch.arange(len(row), device=row.device) - (number.cumsum(0) - number)[row]
    most = int(number.max()) if len(number) else 0
    # Rows with fewer positives are padded, such that sigmoids of the padding are zero.
    positives = scores.new_full((len(scores), most), torch.inf)  # [A, P]
    positives[row, slot] = scores[row, column] / temperature
    weight = 1 / number.clamp(min=1).to(scores.dtype)[:, None]
    of_positives = torch.empty_like(positives)
    missed = scores.new_empty(len(scores))
    for rows in _blocks(scores, most):
        item = positives[rows, :, None]  # [R, P, 1]
        other = item.masked_fill(item.isinf(), -torch.inf).mT
        negatives = (scores[rows] / temperature).masked_fill_(relation[rows].bool(), -torch.inf)
        before = (other - item).sigmoid_()  # [R, P, P]
        above = (negatives[:, None] - item).sigmoid_()  # [R, P, C]
        p, n = before.sum(2) + 0.5, above.sum(2)  # [R, P]; an item ties with itself
        missed[rows] = (weight[rows] * n / (p + n)).sum(1)
        if gradient is not None:
            slope = weight[rows] / (temperature * (p + n).square())
            # sigmoid_backward(g, y) = g y (1 - y), in one pass
            of_above = torch.ops.aten.sigmoid_backward((slope * p)[:, :, None].expand_as(above), above)
            of_before = torch.ops.aten.sigmoid_backward((-slope * n)[:, :, None].expand_as(before), before)
            torch.sum(of_above, 1, out=gradient[rows])
            of_positives[rows] = of_before.sum(1) - of_before.sum(2) - of_above.sum(2)
    if gradient is not None:
        gradient[row, column] = of_positives[row, slot]
    return missed


def _binned(scores: Tensor, relation: Tensor, gradient: Tensor | None, *, bins: int, low: float, high: float) -> Tensor:
    """``1/|P| sum_m h+_m H-_m / (H+_m + H-_m)``, with h+_m, H+_m and H-_m for positives and negatives."""
    width = (high - low) / (bins - 1)
    cells = bins + 1  # one above the first bin, one between any two, one below the last
    missed = scores.new_empty(len(scores))
    for rows in _blocks(scores, 1):
        group = (relation[rows].clamp(max=1) + 1).to(scores.dtype)  # ignored, negative, positive
        place = ((high - scores[rows]) / width + 1).clamp_(0, bins)
        cell = place.nan_to_num(1).add_(group, alpha=cells).long()  # [R, C]; any cell for NaN, as its share is NaN
        of_higher = 1 - place.frac_()  # share of the higher bin
        sums = scores.new_zeros(2, len(cell), 3 * cells)
        sums[0].scatter_add_(1, cell, scores.new_ones(()).expand_as(place))
        sums[1].scatter_add_(1, cell, of_higher)
        number, part = sums.view(2, -1, 3, cells)[:, :, 1:]
        n, p = (number.cumsum(2)[:, :, :-1] + part[:, :, 1:]).unbind(1)  # H-, H+ [R, bins]
        weight = 1 / number[:, 1].sum(1, keepdim=True).clamp(min=1)
        h = p.diff(dim=1, prepend=torch.zeros_like(weight))
        total = (p + n).clamp(min=torch.finfo(p.dtype).tiny)
        share = n / total
        missed[rows] = (weight * h * share).sum(1)
        if gradient is not None:
            slope = weight * h / total / total
            of_sums = scores.new_zeros(len(cell), 3, cells)
            of_sums[:, 1, 1:bins] = (slope * p / width)[:, :-1]
            of_sums[:, 2, 1:bins] = -weight / width * share.diff(dim=1) - (slope * n / width)[:, :-1]
            torch.gather(of_sums.flatten(1), 1, cell, out=gradient[rows])
    return missed


def _blocks(scores: Tensor, layers: int) -> Iterator[slice]:
    """Blocks of rows with at most _CACHED (on a CPU) or _HELD numbers, where each score takes ``layers`` numbers."""
    anchors, candidates = scores.shape
    step = max(1, (_CACHED if scores.device.type == "cpu" else _HELD) // max(1, layers * candidates))
    return (slice(start, start + step) for start in range(0, anchors, step))
