"""Aspect 4, similarity: scores [A, C] of anchors [A, D] and candidates [C, D]; larger is closer.

Temperature and clipping are part of the loss, not of the similarity.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ssl_modules.utils.checks import check_number
from ssl_modules.utils.configurable import Configurable, described


class Similarity(Configurable, nn.Module, ABC):
    """Base class of all similarities; they have no learned state."""

    __repr__ = described

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores ``[A, C]`` of anchors ``[A, D]`` and candidates ``[C, D]``."""


class InnerProduct(Similarity):
    """Inner product of vectors that :meth:`embed` maps one by one; base class of all similarities in this package.

    A subclass implements ``embed``, which is called once per vector, even if scores are computed in blocks.

    Example:
        >>> import torch
        >>> class Signs(InnerProduct):
        ...     def embed(self, x):
        ...         return x.sign()
        >>> Signs()(torch.tensor([[0.3, -2.0]]), torch.tensor([[1.0, 1.0], [5.0, -5.0]])).tolist()
        [[0.0, 2.0]]
    """

    def embed(self, x: Tensor) -> Tensor:
        """Vectors ``[N, D]`` whose inner products are the scores."""
        return x

    def _factor(self, dim: int) -> float:
        """Factor of the inner products of ``dim``-dimensional vectors; private, so that subclasses can use the name."""
        return 1.0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self._factor(x.shape[1]) * self.embed(x)) @ self.embed(y).T


class Dot(InnerProduct):
    """Inner product <x, y>.

    Example:
        >>> import torch
        >>> Dot()(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[11.]])
    """


class ScaledDot(InnerProduct):
    """Inner product divided by the root of the dimension, <x, y> / sqrt(D): of order 1 for unit-variance channels.

    Example:
        >>> import torch
        >>> ScaledDot()(torch.ones(1, 16), torch.ones(1, 16))
        tensor([[4.]])
    """

    def _factor(self, dim: int) -> float:
        return dim**-0.5


class Cosine(InnerProduct):
    """Cosine of the angle, <x, y> / (|x| |y|), in [-1, 1].

    Args:
        eps: length below which a vector counts as zero; it then scores 0 and gets no gradient.

    Raises:
        ValueError: if ``eps`` is not positive.

    Example:
        >>> import torch
        >>> Cosine()(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        tensor([[1., 0.]])
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        check_number("eps", eps, above=0)
        self.eps = eps

    def embed(self, x: Tensor) -> Tensor:
        length = x.norm(dim=1, keepdim=True)
        # Not x / eps, whose gradient of 1 / eps would overflow in half precision.
        return x * length.clamp(min=self.eps).reciprocal().masked_fill(length < self.eps, 0)
