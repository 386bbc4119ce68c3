from math import exp, log, tanh

import pytest
import torch

from ssl_modules.losses import InfoNCE, logsumexp_by_anchor, masked_logsumexp, negatives_and_positives


def slow_info_nce(scores, relation, *, temperature, clip, l2, mode):
    """Compute the equations one number at a time."""
    terms, squares = [], []
    for row, ranks in zip((scores / temperature).tolist(), relation.tolist(), strict=True):
        squares += [s * s for s, r in zip(row, ranks, strict=True) if r >= 0]
        s = [clip * tanh(x / clip) for x in row] if clip else row
        negatives = sum(exp(x) for x, r in zip(s, ranks, strict=True) if r == 0)
        positives = [exp(x) for x, r in zip(s, ranks, strict=True) if r > 0]
        if mode == "out":
            terms += [-log(p / (p + negatives)) for p in positives]
        elif positives:
            terms.append(-log(sum(positives) / (sum(positives) + negatives)))
    return (sum(terms) / len(terms) if terms else 0.0) + l2 * sum(squares) / len(squares)


@pytest.mark.parametrize("mode", ["out", "in"])
@pytest.mark.parametrize(("temperature", "clip", "l2"), [(0.3, None, 0.0), (1.0, 2.0, 0.05), (0.5, 1.5, 0.1)])
def test_equals_the_equations(problem, mode, temperature, clip, l2):
    scores, relation = problem
    loss = InfoNCE(temperature, clip, l2, mode)
    assert loss(scores, relation).item() == pytest.approx(
        slow_info_nce(scores, relation, temperature=temperature, clip=clip, l2=l2, mode=mode), abs=1e-12
    )


@pytest.mark.parametrize("mode", ["out", "in"])
def test_gradient(problem, mode):
    scores, relation = problem
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: InfoNCE(0.4, clip=3.0, l2=0.05, mode=mode)(s, relation), scores)


@pytest.mark.parametrize("mode", ["out", "in"])
def test_shares_of_blocks_add_up(problem, mode):
    scores, relation = problem
    loss = InfoNCE(0.4, l2=0.05, mode=mode)
    counts = sum(loss.counts(relation[i : i + 2]) for i in range(0, 9, 2))
    assert torch.equal(counts, loss.counts(relation))
    shares = [loss.partial(scores[i : i + 2], relation[i : i + 2], None, counts.double()) for i in range(0, 9, 2)]
    assert sum(shares).item() == pytest.approx(loss(scores, relation).item(), abs=1e-12)


@pytest.mark.parametrize("mode", ["out", "in"])
@pytest.mark.parametrize("relation", [[[0, 0]], [[1, 1]], [[-1, -1]]])
def test_nothing_to_compare_costs_nothing(mode, relation):
    scores = torch.tensor([[3.0, -2.0]], requires_grad=True)
    loss = InfoNCE(mode=mode)(scores, torch.tensor(relation, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["out", "in"])
def test_half_precision_scores_are_computed_in_float32(dtype, mode):
    scores = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, -1.0]], dtype=dtype, requires_grad=True)
    relation = torch.tensor([[1, 0, 0], [0, 1, -1]], dtype=torch.int8)
    loss = InfoNCE(0.01, mode=mode)(scores, relation)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(log(2) / 2, rel=1e-6)
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature: .* got 0"),
        ({"temperature": -0.1}, "temperature: .* got -0.1"),
        ({"clip": 0}, "clip: .* got 0"),
        ({"l2": -1}, "l2: .* got -1"),
        ({"mode": "mean"}, "mode: .* got 'mean'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        InfoNCE(**arguments)


def test_refuses_a_relation_of_another_shape():
    with pytest.raises(ValueError, match=r"relation: expected \[2, 3\] as scores has, got \[2, 2\]"):
        InfoNCE()(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int8))


@pytest.mark.parametrize("candidates", [14, 16])  # multiples of eight use other code
def test_the_parts_are_those_of_the_masked_matrix(candidates):
    g = torch.Generator().manual_seed(1)
    scores = torch.randn(9, candidates, generator=g, dtype=torch.float64, requires_grad=True)
    relation = torch.randint(-1, 3, (9, candidates), generator=g).to(torch.int8)
    relation[5][relation[5] == 0] = 1  # an anchor without negatives
    negatives, positives, anchor = negatives_and_positives(scores, relation, scale=3.0)
    assert torch.equal(anchor, (relation > 0).nonzero()[:, 0])
    torch.testing.assert_close(positives, 3 * scores[relation > 0], rtol=0, atol=0)
    expected = masked_logsumexp(3 * scores, relation == 0)
    torch.testing.assert_close(negatives, expected)

    weights = [torch.randn(len(x), generator=g, dtype=torch.float64) for x in (negatives, positives)]
    gradient = torch.autograd.grad((negatives @ weights[0]) + (positives @ weights[1]), scores)[0]
    slow = torch.autograd.grad((expected @ weights[0]) + (3 * scores[relation > 0] @ weights[1]), scores)[0]
    torch.testing.assert_close(gradient, slow, rtol=0, atol=1e-12)


def test_log_sums_by_anchor_are_those_of_each_group():
    g = torch.Generator().manual_seed(1)
    scores, anchor = 1000 * torch.randn(50, generator=g, dtype=torch.float64), torch.randint(7, (50,), generator=g)
    summed = logsumexp_by_anchor(scores, anchor, 8)
    for a in range(8):
        torch.testing.assert_close(summed[a], scores[anchor == a].logsumexp(0))
