"""Differentiable sorting of scores in two groups: the share of each score that is sorted into its own group.

A sorting network has layers of comparators. Each comparator orders the values a, b on two wires i < j. A soft one mixes
them instead, with steepness s and a distribution function f:

    (a, b) <- (α a + (1 - α) b, (1 - α) a + α b),    α = f(s (b - a))

Q, the product of the layers' mixing matrices, is a soft permutation: Q_rc is the share of input r that arrives at place
c, in ascending order. The first ``negatives`` inputs of a row belong in the first places, the others in the last ones.
A row's loss is the cross-entropy, the mean over its inputs r of

    -log m_r,    m_r = sum of Q_rc over the places c of r's own group

[1] Petersen, Borgelt, Kuehne, Deussen: Differentiable Sorting Networks for Scalable Sorting and Ranking Supervision,
    ICML 2021, arXiv 2105.04019.
[2] Petersen, Borgelt, Kuehne, Deussen: Monotonic Differentiable Sorting Networks, ICLR 2022, arXiv 2203.09630 (the
    Cauchy distribution).
"""

from functools import lru_cache
from math import pi
from typing import Any, Literal

import torch
from diffsort import DiffSortNet
from torch import Tensor

from ssl_modules.losses.base import first_derivative

Network = Literal["odd_even", "bitonic"]
Distribution = Literal["cauchy", "logistic", "logistic_phi", "gaussian", "reciprocal", "optimal"]


def odd_even_cauchy(rows: Tensor, negatives: int, steepness: float) -> Tensor:
    """The losses of rows for the odd-even network with the Cauchy distribution, f(v) = 1/2 + atan(v) / π.

    Q is never formed. As m = Q g for the groups' indicator g, a row needs O(n) numbers in each of O(n) layers, so O(n²)
    time; a product of matrices needs O(n⁴). In float32 the losses are exact to 1e-3 if steepness times the differences
    of scores is below 1e5.

    Args:
        rows: ``[R, n]``, first ``negatives`` scores, then positive ones, each group in ascending order.
        negatives: how many of a row's n scores belong to the lower group.
        steepness: s, > 0.

    Returns:
        ``[R]``.

    Example:
        >>> odd_even_cauchy(torch.tensor([[-1.0, 0.0, 1.0], [1.0, 1.0, -1.0]]), negatives=2, steepness=1.0)
        tensor([0.1575, 1.0081])
    """
    return _OddEvenCauchy.apply(rows, negatives, steepness)


def through_diffsort(
    rows: Tensor, negatives: int, steepness: float, network: Network, distribution: Distribution
) -> Tensor:
    """The losses of rows for any network and distribution of the package diffsort, which forms Q.

    Args:
        rows: ``[R, n]``, as for :func:`odd_even_cauchy`.
        negatives: how many of a row's n scores belong to the lower group.
        steepness: s, > 0.
        network: "odd_even" or "bitonic".
        distribution: f, as named in the package.

    Returns:
        ``[R]``.

    Example:
        >>> rows = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 1.0, -1.0]])
        >>> through_diffsort(rows, 2, 1.0, "odd_even", "cauchy")
        tensor([0.1575, 1.0081])
    """
    _, permutation = _diffsort_net(network, rows.shape[1], rows.device, steepness, distribution)(rows)  # [R, n, n]
    mass = torch.cat([permutation[:, :negatives, :negatives].sum(2), permutation[:, negatives:, negatives:].sum(2)], 1)
    return -mass.clamp(min=torch.finfo(mass.dtype).tiny).log().mean(1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # it is cached, and inference tensors can't be used in training
def _diffsort_net(network: str, n: int, device: torch.device, steepness: float, distribution: str) -> DiffSortNet:
    return DiffSortNet(network, n, device, steepness, distribution=distribution)


class _OddEvenCauchy(torch.autograd.Function):
    """Computes the gradient in the forward pass, as a row's loss depends only on that row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, negatives: int, steepness: float) -> Tensor:
        losses, gradient = _losses_and_gradient(rows, negatives, steepness, ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @first_derivative
    def backward(ctx: Any, of_losses: Tensor) -> tuple[Tensor | None, ...]:
        return of_losses[:, None] * ctx.saved_tensors[0], None, None


def _losses_and_gradient(
    rows: Tensor, negatives: int, steepness: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Losses ``[R]`` and their gradient ``[R, n]``, in four sweeps over the layers.

    All steps of a sweep update ``wires`` in place. With w = 1 - α, a comparator moves w (b - a) from one wire to the
    other. Its matrix is symmetric, so the same update applies to the values, to g (from the last layer to the first)
    and to the gradient of m.
    """
    n = rows.shape[1]
    layers = _light_cone(n, negatives)
    sizes = [count for _, count in layers]
    wires = rows.T.mul(steepness).contiguous()  # [n, R]
    pairs = [(wires[i : i + 2 * p : 2], wires[i + 1 : i + 2 * p : 2]) for i, p in layers]  # [p, R] each
    d, w, v, g = rows.new_empty(4, sum(sizes), rows.shape[0]).unbind()  # for all comparators
    one = rows.new_ones(())

    # The values: d = b - a.
    for (a, b), d_, w_ in zip(pairs, d.split(sizes), w.split(sizes), strict=True):
        torch.sub(b, a, out=d_)
        torch.atan2(one, d_, out=w_).mul_(1 / pi)  # 1/2 - atan(d)/π without rounding to 0
        _mix(a, b, w_, d_)

    # The groups' indicator: v = g_b - g_a.
    wires[:negatives] = 0
    wires[negatives:] = 1
    for (a, b), v_, w_ in zip(pairs[::-1], v.split(sizes)[::-1], w.split(sizes)[::-1], strict=True):
        torch.sub(b, a, out=v_)
        _mix(a, b, w_, v_)
    torch.sub(1, wires[:negatives], out=wires[:negatives])
    tiny = torch.finfo(wires.dtype).tiny
    mass = wires.clamp_(min=tiny)
    losses = -mass.log().mean(0)
    if not with_gradient:
        return losses, None

    # The gradient of m, then that of w, which is -g v.
    is_clamped = mass == tiny
    wires = mass.mul_(-n).reciprocal_().masked_fill_(is_clamped, 0)
    wires[:negatives].neg_()
    for (a, b), g_, w_ in zip(pairs, g.split(sizes), w.split(sizes), strict=True):
        torch.sub(b, a, out=g_)
        _mix(a, b, w_, g_)

    # The gradient of the values. The derivative of w d is w + w' d with w' = -1 / (π (1 + d²)).
    slope = d.square().add_(1).mul_(-pi).reciprocal_()
    of_w = g.mul_(v).mul_(slope)
    of_d = w.addcmul_(d, slope)
    wires.zero_()
    for (a, b), of_w_, of_d_ in zip(pairs[::-1], of_w.split(sizes)[::-1], of_d.split(sizes)[::-1], strict=True):
        moved = torch.addcmul(of_w_, of_d_, b - a)
        a.add_(moved)
        b.sub_(moved)
    return losses, wires.mul_(steepness).T


def _mix(a: Tensor, b: Tensor, w: Tensor, difference: Tensor) -> None:
    a.addcmul_(w, difference)
    b.addcmul_(w, difference, value=-1)


@lru_cache(maxsize=64)
def _light_cone(n: int, negatives: int) -> list[tuple[int, int]]:
    """The odd-even network's layers as (first wire, number of comparators), without comparators of no effect.

    Layer l of n compares the wires (i, i + 1) for i of l's parity. Going back from the last layer, the step of g
    spreads by one wire per layer on each side. Elsewhere g is constant, and a comparator of equal values does nothing.
    """
    layers = []
    for layer in range(n):
        reach = n - layer - 1
        first = max(negatives - 1 - reach, 0)
        first += (first - layer) % 2
        last = min(negatives - 1 + reach, n - 2)
        if first <= last:
            layers.append((first, (last - first) // 2 + 1))
    return layers
