"""Aspect 5, loss: what all losses share."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ssl_modules.configurable import Configurable


class Loss(Configurable, nn.Module, ABC):
    """A mean over pairs or anchors of a score matrix, computable a block of rows at a time.

    A loss says what it counts and what a block of rows adds to the mean, given the counts of all rows. So a large
    score matrix never has to exist at once, and processes with unevenly many positives agree on one mean. It holds no
    learned state.
    """

    @abstractmethod
    def counts(self, relation: Tensor) -> Tensor:
        """What the loss averages over, as int64 ``[n]``; adds up over blocks of rows and over processes.

        Args:
            relation: int8 ``[A, C]``, rows of a :class:`~ssl_modules.contrast.Relation`.
        """

    @abstractmethod
    def partial(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None, counts: Tensor) -> Tensor:
        """The rows' share of the loss; the shares of all rows add up to it.

        Args:
            scores: ``[A, C]``.
            relation: int8 ``[A, C]``.
            reference_scores: ``[A, C]`` scores of a teacher's anchors, or None.
            counts: :meth:`counts` of all rows, as floating point.
        """

    def forward(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None = None) -> Tensor:
        """The loss of a whole score matrix, in float32 or better.

        Args:
            scores: ``[A, C]``.
            relation: int8 ``[A, C]``: r >= 1 positive of rank r, 0 negative, -1 ignored.
            reference_scores: ``[A, C]`` scores of a teacher's anchors, or None.

        Returns:
            Scalar.

        Raises:
            ValueError: if the shapes differ.
        """
        if scores.shape != relation.shape:
            raise ValueError(f"relation: expected {list(scores.shape)} as scores has, got {list(relation.shape)}")
        scores = full_precision(scores)
        reference_scores = None if reference_scores is None else full_precision(reference_scores)
        return self.partial(scores, relation, reference_scores, self.counts(relation).to(scores.dtype))


def full_precision(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def masked_logsumexp(scores: Tensor, mask: Tensor) -> Tensor:
    """``log sum exp`` over the entries of each row in the mask: ``[A, C]`` to ``[A]``.

    A row without any gives the most negative number rather than -inf, whose gradient would be NaN.
    """
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).logsumexp(dim=1)


def mean(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, and zero for the empty sum over zero items."""
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)
