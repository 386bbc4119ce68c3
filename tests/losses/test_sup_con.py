from math import exp, log

import pytest
import torch
from torch.nn.functional import normalize

from ssl_modules.contrast import Contrast
from ssl_modules.losses import InfoNCE, SupConLoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine


def slow_sup_con(scores, relation, temperature, mode):
    """Compute the equations one number at a time."""
    terms = []
    for row, ranks in zip(scores.tolist(), relation.tolist(), strict=True):
        total = sum(exp(s / temperature) for s, r in zip(row, ranks, strict=True) if r >= 0)
        shares = [exp(s / temperature) / total for s, r in zip(row, ranks, strict=True) if r > 0]
        if shares:
            n = len(shares)
            terms.append(sum(-log(share) for share in shares) / n if mode == "out" else -log(sum(shares) / n))
    return sum(terms) / len(terms)


both = pytest.mark.parametrize("mode", ["out", "in"])


@both
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_the_loss_equals_the_equations(problem, mode, temperature):
    scores, relation = problem
    expected = slow_sup_con(scores, relation, temperature, mode)
    assert SupConLoss(temperature, mode)(scores, relation).item() == pytest.approx(expected, rel=1e-12)


@both
def test_gradient(problem, mode):
    scores, relation = problem
    assert torch.autograd.gradcheck(lambda s: SupConLoss(0.4, mode)(s, relation), scores.requires_grad_())


@both
def test_shares_of_blocks_add_up(problem, mode):
    scores, relation = problem
    loss = SupConLoss(0.4, mode)
    counts = sum(loss.counts(relation[i : i + 2]) for i in range(0, 9, 2))
    assert torch.equal(counts, loss.counts(relation))
    shares = [loss.partial(scores[i : i + 2], relation[i : i + 2], None, counts.double()) for i in range(0, 9, 2)]
    torch.testing.assert_close(sum(shares), loss(scores, relation), rtol=0, atol=1e-12)


@both
def test_with_one_positive_per_anchor_the_loss_equals_info_nce(problem, mode):
    scores, _ = problem
    relation = torch.eye(9, 14, dtype=torch.int8)
    torch.testing.assert_close(SupConLoss(0.2, mode)(scores, relation), InfoNCE(0.2)(scores, relation))


def test_with_more_positives_the_loss_differs_from_both_modes_of_info_nce(problem):
    scores, relation = problem
    for mode in ("out", "in"):
        for other in ("out", "in"):
            assert SupConLoss(0.2, mode)(scores, relation) != InfoNCE(0.2, mode=other)(scores, relation)


@both
def test_large_scores_stay_finite(mode):
    scores = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=torch.float16, requires_grad=True)
    relation = torch.tensor([[1, 1, 0], [1, 0, 1]], dtype=torch.int8)
    loss = SupConLoss(0.001, mode)(scores, relation)
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def labelled(dtype=torch.float64):
    """Return two views of 12 images of 4 classes, and the relation in which views of the same class are positives."""
    g = torch.Generator().manual_seed(2)
    labels = torch.randint(4, (12,), generator=g).repeat(2)
    vectors = normalize(torch.randn(24, 5, generator=g, dtype=dtype), dim=1).requires_grad_()
    return vectors, labels, (labels[:, None] == labels).to(torch.int8).fill_diagonal_(-1)


def test_the_loss_equals_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    vectors, labels, relation = labelled()
    expected = losses.SupConLoss(temperature=0.1)(vectors, labels)
    [wanted] = torch.autograd.grad(expected, vectors)
    found = objective([Contrast(vectors, vectors, relation)], Cosine(), SupConLoss(0.1))
    [gradient] = torch.autograd.grad(found, vectors)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"temperature": -1.0}])
def test_a_temperature_that_is_not_positive_raises_an_error(arguments):
    with pytest.raises(ValueError, match="temperature: expected"):
        SupConLoss(**arguments)
