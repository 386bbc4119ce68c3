"""Tests that every loss must pass."""

import pytest
import torch

from ssl_modules import Contrast
from ssl_modules.losses import (
    Alignment,
    AssignmentLoss,
    AveragePrecisionLoss,
    GroCoLoss,
    InfoNCE,
    RINCELoss,
    SCELoss,
    SupConLoss,
)
from ssl_modules.losses.sorting import _diffsort_net
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

LOSSES = {
    "InfoNCE": InfoNCE(0.2),
    "InfoNCE in": InfoNCE(0.2, mode="in"),
    "Alignment": Alignment(),
    "Assignment": AssignmentLoss(0.2),
    "Assignment to negatives": AssignmentLoss(0.2, 0.1, "negatives"),
    "SCE": SCELoss(),
    "RINCE": RINCELoss((0.2, 0.3)),
    "SupCon": SupConLoss(),
    "SupCon in": SupConLoss(mode="in"),
    "smooth AP": AveragePrecisionLoss(temperature=0.1),
    "binned AP": AveragePrecisionLoss("binned"),
    "GroCo": GroCoLoss(2),
    "GroCo, bitonic": GroCoLoss(2, network="bitonic"),
    "GroCo, logistic": GroCoLoss(2, distribution="logistic"),
}
RELATION = torch.tensor([[1, 0, 0, -1, 0], [0, 2, 0, 0, -1], [0, 0, 1, 0, 0]], dtype=torch.int8)

every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def scores(seed=0):
    return torch.rand(RELATION.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def value(loss, x):
    return loss(x, RELATION, scores(1))


@every
def test_a_direct_call_under_autocast_is_computed_in_full(loss):
    with torch.autocast("cpu", torch.bfloat16):
        found = value(loss, scores())
    assert torch.equal(found, value(loss, scores()))


@every
def test_what_ran_in_inference_mode_trains_later(loss):
    _diffsort_net.cache_clear()
    with torch.inference_mode():
        value(loss, scores())
    x = scores().requires_grad_()
    value(loss, x).backward()
    assert x.grad.isfinite().all()


@every
@pytest.mark.parametrize("shape", [(3, 0), (0, 5), (0, 0)])
def test_without_pairs_it_is_zero(loss, shape):
    x = torch.zeros(shape, requires_grad=True)
    found = loss(x, torch.zeros(shape, dtype=torch.int8), torch.zeros(shape))
    found.backward()
    assert found == 0


PLAIN = [
    "Alignment",
    "Assignment",
    "Assignment to negatives",
    "SupCon",
    "SupCon in",
    "GroCo, bitonic",
    "GroCo, logistic",
]  # losses whose gradient autograd computes


def gradient(loss, x, **options):
    return torch.autograd.grad(loss(x.exp(), RELATION, scores(1).double()), x, **options)[0]


@pytest.mark.parametrize("name", PLAIN)
def test_a_second_derivative_is_right(name):
    loss, x = LOSSES[name], scores().double().requires_grad_()
    [found] = torch.autograd.grad(gradient(loss, x, create_graph=True).sum(), x)
    for place in ((0, 1), (1, 1), (2, 4)):
        step = torch.zeros_like(found)
        step[place] = 1e-5
        up, down = (gradient(loss, (x + sign * step).detach().requires_grad_()).sum() for sign in (1, -1))
        assert found[place].item() == pytest.approx((up - down).item() / 2e-5, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in PLAIN])
def test_a_second_derivative_is_refused_where_there_is_none(name):
    with pytest.raises(RuntimeError, match="no second derivative; leave out create_graph=True"):
        gradient(LOSSES[name], scores().double().requires_grad_(), create_graph=True)


@pytest.mark.parametrize("block", [None, 1])
def test_an_objective_in_blocks_refuses_second_derivatives(block):
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    relation = torch.eye(6, dtype=torch.int8).roll(3, dims=1)
    loss = objective([Contrast(z, z, relation)], Cosine(), Alignment(), block)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss, z, create_graph=True)
