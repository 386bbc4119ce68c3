from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_modules import Contrast
from ssl_modules.losses import Alignment
from ssl_modules.objective import chance_level, objective
from ssl_modules.similarities import Cosine

REFERENCE = Path(__file__).parents[1] / "reference"
DIAGONAL = 2 * torch.eye(4, dtype=torch.int8) - 1  # each is its own positive; others are ignored


@pytest.mark.parametrize("block", [0, 1, 3])
def test_byol_loss_and_gradient_are_the_official_ones(block):
    v = np.load(REFERENCE / "byol_1_symmetric.npz")
    p1, p2 = (torch.tensor(v[name], requires_grad=True) for name in ("p1", "p2"))
    contrasts = [Contrast(p1, torch.tensor(v["z2"]), DIAGONAL), Contrast(p2, torch.tensor(v["z1"]), DIAGONAL)]
    loss = objective(contrasts, Cosine(), Alignment(), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["solo_total"].item(), abs=1e-10)
    assert loss.item() == pytest.approx(v["bolts_total"].item() + 4, abs=1e-10)
    for p, official in ((p1, ("solo_dp1", "bolts_dp1")), (p2, ("solo_dp2", "bolts_dp2"))):
        for name in official:
            np.testing.assert_allclose(p.grad.numpy(), v[name], rtol=0, atol=1e-10)


def test_equals_the_equation(problem):
    scores, relation = problem
    terms = [2 - 2 * scores[a, c].item() for a in range(9) for c in range(14) if relation[a, c] > 0]
    assert Alignment()(scores, relation).item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_gradient(problem):
    scores, relation = problem
    assert torch.autograd.gradcheck(lambda s: Alignment()(s, relation), scores.requires_grad_())


def test_shares_of_blocks_add_up(problem):
    scores, relation = problem
    loss = Alignment()
    counts = sum(loss.counts(relation[i : i + 2]) for i in range(0, 9, 2))
    assert torch.equal(counts, loss.counts(relation))
    shares = [loss.partial(scores[i : i + 2], relation[i : i + 2], None, counts.double()) for i in range(0, 9, 2)]
    assert sum(shares).item() == pytest.approx(loss(scores, relation).item(), abs=1e-12)


def test_nothing_to_compare_costs_nothing():
    scores = torch.tensor([[3.0, -2.0]], requires_grad=True)
    loss = Alignment()(scores, torch.tensor([[0, -1]], dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_computed_in_float32(dtype):
    scores = torch.tensor([[0.5, -1.0], [1.0, -0.25]], dtype=dtype, requires_grad=True)
    loss = Alignment()(scores, torch.tensor([[1, -1], [-1, 1]], dtype=torch.int8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == 1.75
    assert torch.equal(scores.grad, torch.tensor([[-1, 0], [0, -1]], dtype=dtype))


def test_chance_level_is_that_of_orthogonal_vectors():
    z = torch.randn(4, 3)
    assert chance_level([Contrast(z, z, DIAGONAL)], Alignment()).item() == 2
