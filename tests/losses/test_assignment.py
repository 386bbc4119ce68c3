from math import exp, log

import pytest
import torch

from ssl_modules.extractions import Queue
from ssl_modules.losses import AssignmentLoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine


def slow_loss(scores, relation, reference, temperatures, ranks_taken):
    """Compute the equation one number at a time, over the candidates that have one of the given ranks."""
    temperature, target_temperature = temperatures
    terms = []
    for row, ranks, target in zip(scores.tolist(), relation.tolist(), reference.tolist(), strict=True):
        taken = [c for c, r in enumerate(ranks) if r in ranks_taken]
        if taken:
            s, t = [exp(row[c] / temperature) for c in taken], [exp(target[c] / target_temperature) for c in taken]
            terms.append(-sum(y / sum(t) * log(x / sum(s)) for x, y in zip(s, t, strict=True)))
    return sum(terms) / len(terms)


CANDIDATES = {"all": {0, 1, 2}, "negatives": {0}}
each = pytest.mark.parametrize("candidates", CANDIDATES)


def reference_like(scores):
    return torch.randn(scores.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@each
@pytest.mark.parametrize(("temperature", "target_temperature"), [(0.5, 1.0), (1.0, 0.3)])
def test_the_loss_equals_its_equation(problem, candidates, temperature, target_temperature):
    scores, relation = problem
    reference = reference_like(scores)
    expected = slow_loss(scores, relation, reference, (temperature, target_temperature), CANDIDATES[candidates])
    loss = AssignmentLoss(temperature, target_temperature, candidates)
    assert loss(scores, relation, reference).item() == pytest.approx(expected, rel=1e-12)


@each
def test_gradient(problem, candidates):
    scores, relation = problem
    reference = reference_like(scores).requires_grad_()
    loss = AssignmentLoss(0.4, 0.5, candidates)
    assert torch.autograd.gradcheck(lambda s: loss(s, relation, reference), scores.requires_grad_())
    loss(scores, relation, reference).backward()
    assert reference.grad is None


@each
def test_shares_of_blocks_add_up(problem, candidates):
    scores, relation = problem
    reference, loss = reference_like(scores), AssignmentLoss(0.4, 0.5, candidates)
    counts = sum(loss.counts(relation[i : i + 2]) for i in range(0, 9, 2))
    rows = [slice(i, i + 2) for i in range(0, 9, 2)]
    shares = [loss.partial(scores[r], relation[r], reference[r], counts.double()) for r in rows]
    torch.testing.assert_close(sum(shares), loss(scores, relation, reference), rtol=0, atol=1e-12)


def test_the_smallest_loss_is_the_entropy_of_the_targets(problem):
    scores, _ = problem
    relation, target = torch.zeros(scores.shape, dtype=torch.int8), (scores / 0.2).softmax(dim=1)
    entropy = -(target * target.log()).sum(dim=1).mean()
    torch.testing.assert_close(AssignmentLoss(0.2, 0.2)(scores, relation, scores), entropy)
    assert AssignmentLoss(0.2, 0.2)(scores + reference_like(scores), relation, scores) > entropy


@pytest.mark.parametrize("block", [0, 2, None])
def test_ressl_compares_only_with_the_queue(block):
    """Neither softmax contains the keys of the batch, so the loss depends only on the keys in the queue."""
    g = torch.Generator().manual_seed(0)
    extraction = Queue(out_dim=5, size=8, reference=True)
    extraction.build(out_channels=(6,))
    extraction.double()
    student, teacher = torch.randn(2, 4, 5, generator=g, dtype=torch.float64)
    [contrast] = extraction([student.requires_grad_()], [teacher], torch.arange(4)[:, None], None)
    loss = AssignmentLoss(0.1, 0.04, "negatives")
    found = objective([contrast], Cosine(), loss, block)
    scores, targets = (Cosine()(x, extraction.keys) for x in (student, teacher))
    expected = -((targets / 0.04).softmax(dim=1) * (scores / 0.1).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    of_found, of_expected = (torch.autograd.grad(x, student, retain_graph=True)[0] for x in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=0, atol=1e-12)


def test_bad_input():
    for name in ("temperature", "target_temperature"):
        with pytest.raises(ValueError, match=f"^{name}: expected a positive number, got 0"):
            AssignmentLoss(**{name: 0})
    with pytest.raises(ValueError, match=r"candidates: expected .*, got 'positives'"):
        AssignmentLoss(candidates="positives")
    with pytest.raises(ValueError, match=r"reference_scores: .* got None; use an extraction .* such as Prototypes\(\)"):
        AssignmentLoss()(torch.zeros(2, 2), torch.eye(2, dtype=torch.int8))
