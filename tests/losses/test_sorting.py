from typing import get_args

import pytest
import torch
from diffsort import DiffSortNet
from losses.slow_sorting import bitonic, odd_even, slow_loss

from ssl_modules.losses.sorting import Distribution, odd_even_cauchy, through_diffsort


def pre_ordered(rows, n, negatives):
    x = torch.rand(rows, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) * 2 - 1
    return torch.cat([part.sort(1)[0] for part in x.split([negatives, n - negatives], dim=1)], dim=1)


SHAPES = [(2, 1), (3, 1), (3, 2), (4, 2), (7, 3), (8, 1), (8, 7), (11, 10), (12, 10), (13, 10), (21, 4)]


@pytest.mark.parametrize(("n", "negatives"), SHAPES)
@pytest.mark.parametrize("steepness", [0.3, 1.0, 20.0])
def test_the_indicators_way_is_the_definition(n, negatives, steepness):
    rows = pre_ordered(4, n, negatives)
    expected = [slow_loss(row, negatives, steepness) for row in rows.tolist()]
    assert odd_even_cauchy(rows, negatives, steepness).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distribution", get_args(Distribution))
@pytest.mark.parametrize("network", [odd_even, bitonic])
@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_diffsorts_way_is_the_definition(network, distribution, n):
    rows, negatives = pre_ordered(3, n, n // 2), n // 2
    expected = [slow_loss(row, negatives, 2.0, network, distribution) for row in rows.tolist()]
    losses = through_diffsort(rows, negatives, 2.0, network.__name__, distribution)
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("network", ["odd_even", "bitonic"])
@pytest.mark.parametrize("n", [5, 8, 11])
def test_a_steep_network_sorts(network, n):
    rows = torch.rand(5, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ordered, _ = DiffSortNet(network, n, steepness=1e9)(rows)
    torch.testing.assert_close(ordered, rows.sort(1)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "negatives"), [*SHAPES, (64, 48), (65, 5)])
@pytest.mark.parametrize("steepness", [1.0, 15.0])
def test_both_ways_agree_with_gradient(n, negatives, steepness):
    rows = pre_ordered(6, n, negatives).requires_grad_()
    weights = torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, gradients = [], []
    arguments = rows, negatives, steepness
    for losses in (odd_even_cauchy(*arguments), through_diffsort(*arguments, "odd_even", "cauchy")):
        values.append(losses.detach())
        gradients.append(torch.autograd.grad(losses @ weights, rows)[0])
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "negatives"), [(3, 1), (6, 4), (7, 3)])
def test_gradient(n, negatives):
    rows = pre_ordered(3, n, negatives)
    rows[0] = rows[0, 0]  # all values equal
    assert torch.autograd.gradcheck(lambda x: odd_even_cauchy(x, negatives, 3.0), rows.requires_grad_())


def test_rows_stay_as_they_are_and_may_be_of_any_strides():
    rows = pre_ordered(5, 7, 3).T.contiguous().T.requires_grad_()
    before = rows.detach().clone()
    loss = odd_even_cauchy(rows, 3, 1.0).sum()
    first = torch.autograd.grad(loss, rows, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, rows)[0], first, rtol=0, atol=0)
    torch.testing.assert_close(rows.detach(), before, rtol=0, atol=0)
    plain = before.contiguous().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(odd_even_cauchy(plain, 3, 1.0).sum(), plain)[0], first)


@pytest.mark.parametrize(("steepness", "rtol"), [(1e3, 1e-4), (1e5, 1e-2), (1e6, 0.3)])
def test_the_gradient_of_badly_sorted_rows_in_single_precision_is_that_in_double(steepness, rtol):
    rows = torch.tensor([[-0.9, 0.9, 0.8], [0.9, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    [expected] = torch.autograd.grad(odd_even_cauchy(rows, 2, steepness).sum(), rows)
    single = rows.detach().float().requires_grad_()
    [found] = torch.autograd.grad(odd_even_cauchy(single, 2, steepness).sum(), single)
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=1e-3)


@pytest.mark.parametrize("steepness", [1e8, 1e12])
def test_shares_that_are_rounded_away_have_no_gradient(steepness):
    rows = torch.tensor([[-0.9, 0.9, 0.8], [0.9, 1.0, -1.0]], requires_grad=True)
    [gradient] = torch.autograd.grad(odd_even_cauchy(rows, 2, steepness).sum(), rows)
    assert gradient.abs().max() < 100  # as with exact arithmetic


@pytest.mark.parametrize("steepness", [1e-3, 1e3, 1e9])
@pytest.mark.parametrize("distribution", ["cauchy", "logistic"])
def test_extreme_steepness_is_finite_in_single_precision(steepness, distribution):
    rows = torch.tensor([[-1.0, 0.0, 1.0], [0.9, 1.0, -1.0], [0.5, 0.5, 0.5]], requires_grad=True)
    if distribution == "cauchy":
        losses = odd_even_cauchy(rows, 2, steepness)
    else:
        losses = through_diffsort(rows, 2, steepness, "odd_even", distribution)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert rows.grad.isfinite().all()
