"""Aspect 5, loss: the base class and shared functions."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_modules.contrast import Contrast
from ssl_modules.similarities import Similarity
from ssl_modules.utils.configurable import Configurable, described


class Loss(Configurable, nn.Module, ABC):
    """A mean over pairs or anchors of a score matrix, which can be computed in blocks of rows.

    A loss defines its counts, and what a block of rows adds to the mean, given the counts of all rows. So a large score
    matrix need not exist in full, and processes with different numbers of positives compute the same mean. A loss of
    this package has no learned state.

    Attributes:
        min_images: smallest number of images, over all processes; validation skips smaller batches.
    """

    min_images: int = 2
    __repr__ = described

    @abstractmethod
    def counts(self, relation: Tensor) -> Tensor:
        """Counts of the items that the loss averages over, int64 ``[n]``; they add up over blocks and processes.

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

    def fused(self, contrast: Contrast, similarity: Similarity) -> Tensor | None:
        """Each anchor's loss ``[A]``, computed from the contrast without a score matrix; optional.

        Args:
            contrast: a contrast whose vectors are already embedded, in float32 or float64.
            similarity: the similarity still to apply.

        Returns:
            ``[A]``, whose mean over anchors must be the loss; None, the default, if there is no such form for this
            contrast.
        """
        return None

    def forward(self, scores: Tensor, relation: Tensor, reference_scores: Tensor | None = None) -> Tensor:
        """The loss of a full score matrix, in float32 or float64.

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
        if not scores.numel():
            return scores.sum()
        reference_scores = None if reference_scores is None else full_precision(reference_scores)
        with torch.autocast(scores.device.type, enabled=False):
            return self.partial(scores, relation, reference_scores, self.counts(relation).to(scores.dtype))


def first_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a handwritten backward, which has no second derivative.

    It raises if ``create_graph=True`` asks for a second derivative. Torch's ``once_differentiable`` raises only if the
    incoming gradient requires grad. A loss's incoming gradient doesn't, so torch would silently treat the result as
    constant.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph: this loss has a gradient, but no second derivative; leave out create_graph=True"
            )
        return backward(ctx, *gradients)

    return checked


def full_precision(x: Tensor) -> Tensor:
    """The tensor as float32; float64 stays float64."""
    return x if x.dtype == torch.float64 else x.float()


def is_positive(relation: Tensor) -> Tensor:
    """Which pairs are positives, bool ``[A, C]``."""
    return relation.clamp(min=0).bool()  # ten times as fast as comparing int8 with a number


def has_positive(relation: Tensor) -> Tensor:
    """Which anchors have a positive, bool ``[A]``."""
    return is_positive(relation).sum(dim=1, dtype=torch.int32) > 0


def count_pairs(relation: Tensor) -> Tensor:
    """The number of pairs of an anchor and a positive, int64 ``[1]``.

    Example:
        >>> count_pairs(torch.tensor([[1, 0], [2, -1]], dtype=torch.int8))
        tensor([2])
    """
    return is_positive(relation).sum(dim=1, dtype=torch.int32).sum()[None]


def masked_logsumexp(scores: Tensor, mask: Tensor) -> Tensor:
    """``log sum exp`` over each row's entries in the mask: ``[A, C]`` to ``[A]``.

    A row without entries gives the most negative number, as the gradient of -inf would be NaN.
    """
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).logsumexp(dim=1)


def negatives_and_positives(scores: Tensor, relation: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """The terms of most contrastive losses, in as few passes over the scores as possible.

    Args:
        scores: ``[A, C]``.
        relation: int8 ``[A, C]``.
        scale: factor of the scores, such as ``1 / temperature``.

    Returns:
        ``log sum exp`` of each anchor's scaled negatives ``[A]`` (the most negative number if there are none); the
        scaled scores of all pairs of an anchor and a positive ``[P]``; the anchors of these pairs ``[P]``.

    Example:
        >>> scores, relation = torch.tensor([[3.0, 1.0, 1.0]]), torch.tensor([[1, 0, 0]], dtype=torch.int8)
        >>> negatives_and_positives(scores, relation)
        (tensor([1.6931]), tensor([3.]), tensor([0]))
    """
    pairs = positive_pairs(relation)
    negatives, positives = _NegativesAndPositives.apply(scores, relation, scale, pairs)
    return negatives, positives, pairs[0]


def positive_pairs(relation: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each positive, ``[P]`` and ``[P]``, row by row.

    Example:
        >>> positive_pairs(torch.tensor([[1, 0], [2, -1]], dtype=torch.int8))
        (tensor([0, 1]), tensor([0, 0]))
    """
    positive = is_positive(relation)
    rows, columns = positive.shape
    if positive.device.type != "cpu" or columns % 8 or not positive.numel():
        row, column = positive.nonzero(as_tuple=True)
        return row, column
    # Few are true: on a CPU, test eight bools at once.
    flat = positive.reshape(-1)
    row, word = flat.view(torch.int64).view(rows, -1).nonzero(as_tuple=True)
    entry, byte = flat.view(rows, -1, 8)[row, word].nonzero(as_tuple=True)
    return row[entry], 8 * word[entry] + byte


class _NegativesAndPositives(torch.autograd.Function):
    """Saves only the softmax over the negatives, which is the gradient, and no intermediate results."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, relation: Tensor, scale: float, pairs: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        lowest = torch.finfo(scores.dtype).min
        negative_scores = (scores * scale).masked_fill_(relation.bool(), lowest)
        top = negative_scores.amax(dim=1)
        share = negative_scores.softmax(dim=1)
        ctx.save_for_backward(share, top > lowest, *pairs)
        ctx.scale = scale
        return top - share.amax(dim=1).log(), scores[pairs] * scale

    @staticmethod
    @first_derivative
    def backward(ctx: Any, of_negatives: Tensor, of_positives: Tensor) -> tuple[Tensor | None, ...]:
        share, has_negatives, *pairs = ctx.saved_tensors
        gradient = share * (ctx.scale * of_negatives * has_negatives)[:, None]
        gradient[tuple(pairs)] = ctx.scale * of_positives  # positives are not in the softmax
        return gradient, None, None, None


def logsumexp_by_anchor(scores: Tensor, anchor: Tensor, anchors: int) -> Tensor:
    """``log sum exp`` of each anchor's scores ``[P]``: ``[anchors]``, -inf for an anchor without scores.

    Args:
        scores: scores of pairs, ``[P]``.
        anchor: index of each pair's anchor, ``[P]``.
        anchors: number of anchors.

    Example:
        >>> logsumexp_by_anchor(torch.tensor([1.0, 1.0, 5.0]), torch.tensor([0, 0, 2]), 3)
        tensor([1.6931,   -inf, 5.0000])
    """
    top = scores.new_zeros(anchors).scatter_reduce(0, anchor, scores.detach(), "amax", include_self=False)
    return top + scores.new_zeros(anchors).index_add(0, anchor, (scores - top[anchor]).exp()).log()


def mean(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, or zero if both are zero."""
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)
