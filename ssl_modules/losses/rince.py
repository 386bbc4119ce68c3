"""Ranked InfoNCE: positives have ranks, and closer ranks should get more similar embeddings.

Hoffmann, Behrmann, Gall, Brox, Noroozi: Ranking Info Noise Contrastive Estimation: Boosting Contrastive Learning via
Ranked Positives, AAAI 2022, arXiv 2201.11736. Not to be confused with robust InfoNCE (Chuang et al., 2022), also
called RINCE.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ssl_modules.losses.base import Loss
from ssl_modules.losses.info_nce import InfoNCE
from ssl_modules.utils.checks import check_numbers

Mode = Literal["out", "in"]


class RINCELoss(Loss):
    """The mean over ranks r = 1 .. R of an InfoNCE that contrasts rank r with all farther candidates.

        loss = 1/R sum_r InfoNCE(temperature_r, mode_r),    positives: rank r,    negatives: rank > r or rank 0

    Term r ignores nearer ranks. Temperatures that increase with the rank make nearer positives more similar. A rank
    without pairs contributes zero. With one positive per rank (the paper's "uni") the modes are equal.

    The authors' commands for CIFAR-100 compute the cumulative form: first a class, then its superclass including that
    class. The anchor's own image is a positive only in the first term, so it has its own rank: rank 1 is the own image
    and rank r + 1 the r-th degree of relatedness, so there is one rank more than temperatures. The positives of term r
    are the ranks 2 .. r + 1; the first term also has rank 1.

    Args:
        temperatures: one per rank, nearest first, > 0; (0.1, 0.225) in the paper's code.
        modes: "out" or "in" for all ranks; "out-in" for "out" at rank 1 and "in" at all others (if only rank 1 is
            clean); or one of "out" and "in" per rank; see :class:`~ssl_modules.losses.InfoNCE`.
        cumulative: whether a rank's positives include the positives of nearer ranks.

    Raises:
        ValueError: if an argument is outside its range; when called with a rank that has no temperature.

    Example:
        One positive of rank 1, one of rank 2, one negative, and equal scores give the mean of log 3 and log 2.

        >>> RINCELoss((0.1, 0.225))(torch.zeros(1, 3), torch.tensor([[1, 2, 0]], dtype=torch.int8))
        tensor(0.8959)
    """

    def __init__(
        self,
        temperatures: Sequence[float],
        modes: Mode | Literal["out-in"] | Sequence[Mode] = "out-in",
        cumulative: bool = False,
    ) -> None:
        super().__init__()
        check_numbers("temperatures", temperatures, above=0, fix="give one per rank")
        terms = len(temperatures)
        if isinstance(modes, str):
            first: Mode = "out" if modes == "out-in" else modes
            others: Mode = "in" if modes == "out-in" else modes
            by_rank = [first] + [others] * (terms - 1)
        else:
            by_rank = list(modes)
        if len(by_rank) != terms:
            raise ValueError(f"modes: expected {terms}, one per temperature, got {len(by_rank)}: {modes!r}")
        self.terms = [InfoNCE(t, mode=m) for t, m in zip(temperatures, by_rank, strict=True)]
        self.ranks = [(r, r) for r in range(1, terms + 1)]  # nearest and farthest positives of each term
        if cumulative:
            self.ranks = [(1, 2)] + [(2, r + 1) for r in range(2, terms + 1)]

    def counts(self, relation: Tensor) -> Tensor:
        """The counts of each term's InfoNCE, int64 ``[3 R]``."""
        _, farthest = self.ranks[-1]
        if relation.numel() and relation.max() > farthest:
            raise ValueError(
                f"relation: expected ranks up to {farthest} for {len(self.terms)} temperatures, got "
                f"{int(relation.max())}; give RINCELoss a temperature for each rank"
            )
        return torch.cat([term.counts(_of_ranks(relation, *r)) for term, r in zip(self.terms, self.ranks, strict=True)])

    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        terms = zip(self.terms, self.ranks, counts.view(-1, 3), strict=True)
        return torch.stack([term.partial(scores, _of_ranks(relation, *r), None, n) for term, r, n in terms]).mean()


def _of_ranks(relation: Tensor, nearest: int, farthest: int) -> Tensor:
    """A relation with these ranks as positives, farther ranks as negatives, and nearer ranks ignored."""
    ignored = relation.clamp(max=0) - _between(relation, 1, nearest - 1)
    return ignored + _between(relation, nearest, farthest)


def _between(relation: Tensor, low: int, high: int) -> Tensor:
    """1 for the ranks low .. high, else 0, as int8; clamps are ten times as fast as comparisons and masks."""
    return relation.clamp(low - 1, low) - relation.clamp(high, high + 1) + (high - low + 1)
