from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_modules import Contrast
from ssl_modules.losses import InfoNCE, RINCELoss
from ssl_modules.objective import chance_level, objective
from ssl_modules.similarities import Cosine, Dot

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [0, 1, 3]
MODES = {"out": "out", "in": "in", "out_in": "out-in"}


def queue_contrast(v, q, cumulative=False):
    """Compare queries with their own keys and a queue; other keys of the batch are ignored."""
    own = 2 * torch.eye(len(q), dtype=torch.int8) - 1
    ranks = torch.tensor(v["ranks"]).to(torch.int8)
    if cumulative:  # rank 1 is only the same image
        ranks = ranks + (ranks > 0).to(torch.int8)
    candidates = torch.cat([torch.tensor(v["k"]), torch.tensor(v["queue"])])
    return Contrast(q, candidates, torch.cat([own, ranks], dim=1))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("mode", ["in", "out_in"])
def test_cifar_loss_and_gradient_are_the_official_ones(mode, cumulative, block):
    v = np.load(REFERENCE / f"rince_{mode}.npz")
    name = "cumulative" if cumulative else "strict"
    q = torch.tensor(v["q"], requires_grad=True)
    loss_fn = RINCELoss(v["taus"].tolist(), MODES[mode], cumulative)
    loss = objective([queue_contrast(v, q, cumulative)], Dot(), loss_fn, block)
    loss.backward()
    assert loss.item() == pytest.approx(v[f"loss_{name}"].item(), abs=1e-10)
    np.testing.assert_allclose(q.grad.numpy(), v[f"grad_q_{name}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradient_of_four_ranks_are_the_official_ones(mode, block):
    v = np.load(REFERENCE / "rince_multi_4ranks.npz")
    loss_fn = RINCELoss(v["taus"].tolist(), MODES[mode])
    for similarity, gradient in ((Dot(), "grad_q"), (Cosine(), "grad_raw")):
        q = torch.tensor(v["q"], requires_grad=True)
        loss = objective([queue_contrast(v, q)], similarity, loss_fn, block)
        loss.backward()
        assert loss.item() == pytest.approx(v[f"loss_{mode}"].item(), abs=1e-10)
        np.testing.assert_allclose(q.grad.numpy(), v[f"{gradient}_{mode}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_per_rank_takes_each_ranks_term(mode):
    v = np.load(REFERENCE / "rince_multi_4ranks.npz")
    modes = {"out": ["out"] * 4, "in": ["in"] * 4, "out_in": ["out", "in", "in", "in"]}[mode]
    loss = objective([queue_contrast(v, torch.tensor(v["q"]))], Dot(), RINCELoss(v["taus"].tolist(), modes))
    assert loss.item() == pytest.approx(v[f"per_rank_{mode}"].mean(), abs=1e-10)


def slow_rince(scores, relation, *, temperatures, modes, cumulative):
    """Compute the equations one number at a time."""
    total = 0.0
    for r, (temperature, mode) in enumerate(zip(temperatures, modes, strict=True), start=1):
        of_rank = set(range(1 if r == 1 else 2, r + 2)) if cumulative else {r}
        terms = []
        for row, ranks in zip((scores / temperature).tolist(), relation.tolist(), strict=True):
            negatives = sum(exp(s) for s, k in zip(row, ranks, strict=True) if k == 0 or k > max(of_rank))
            positives = [exp(s) for s, k in zip(row, ranks, strict=True) if k in of_rank]
            if mode == "out":
                terms += [-log(p / (p + negatives)) for p in positives]
            elif positives:
                terms.append(-log(sum(positives) / (sum(positives) + negatives)))
        total += sum(terms) / len(terms) if terms else 0.0
    return total / len(temperatures)


@pytest.fixture
def problem(draw):
    scores, relation = draw(15, farthest=3)
    relation[2] = relation[2].clamp(max=0)  # an anchor without positives
    relation[4] = 3  # one with only the farthest rank
    relation[5][relation[5] == 2] = 0  # one without rank 2
    relation[7] = -1  # one without positives and negatives
    return scores, relation


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("modes", [("out", "out", "out"), ("in", "in", "in"), ("in", "out", "in")])
def test_equals_the_equations(problem, modes, cumulative):
    temperatures = (0.3, 0.5, 0.8)[: 2 if cumulative else 3]
    modes = modes[: len(temperatures)]
    expected = slow_rince(*problem, temperatures=temperatures, modes=modes, cumulative=cumulative)
    assert RINCELoss(temperatures, modes, cumulative)(*problem).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mode", ["out", "in"])
def test_one_rank_is_info_nce(problem, mode):
    scores, relation = problem
    relation = relation.clamp(max=1)
    torch.testing.assert_close(
        RINCELoss([0.2], mode)(scores, relation), InfoNCE(0.2, mode=mode)(scores, relation), rtol=0, atol=1e-12
    )


def test_modes_are_equal_for_one_positive_per_rank():
    scores = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    relation = torch.tensor([[0, 2, 0, 1, 0, 3, -1, 0, 0]], dtype=torch.int8).repeat(6, 1)
    out, inside, mixed = (RINCELoss((0.1, 0.2, 0.3), m)(scores, relation) for m in ("out", "in", "out-in"))
    torch.testing.assert_close(inside, out, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed, out, rtol=0, atol=1e-12)


def test_a_rank_that_nobody_has_contributes_zero(problem):
    scores, relation = problem
    relation = relation.clamp(max=2)
    two, three = RINCELoss((0.3, 0.5))(scores, relation), RINCELoss((0.3, 0.5, 0.8))(scores, relation)
    torch.testing.assert_close(3 * three, 2 * two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("modes", ["out", "in", "out-in"])
@pytest.mark.parametrize("cumulative", [False, True])
def test_gradient(problem, modes, cumulative):
    scores, relation = problem
    loss = RINCELoss((0.4, 0.6) if cumulative else (0.4, 0.6, 0.9), modes, cumulative)
    assert torch.autograd.gradcheck(lambda s: loss(s, relation), scores.requires_grad_())


@pytest.mark.parametrize("modes", ["out", "in", "out-in"])
def test_shares_of_blocks_add_up(problem, modes):
    scores, relation = problem
    loss = RINCELoss((0.3, 0.5, 0.8), modes)
    blocks = [slice(i, i + 2) for i in range(0, 9, 2)]
    counts = sum(loss.counts(relation[rows]) for rows in blocks)
    assert torch.equal(counts, loss.counts(relation))
    shares = [loss.partial(scores[rows], relation[rows], None, counts.double()) for rows in blocks]
    assert sum(shares).item() == pytest.approx(loss(scores, relation).item(), abs=1e-12)


@pytest.mark.parametrize("modes", ["out", "in"])
@pytest.mark.parametrize("relation", [[[0, 0]], [[1, 1]], [[2, -1]], [[-1, -1]]])
def test_nothing_to_compare_costs_nothing(modes, relation):
    scores = torch.tensor([[3.0, -2.0]], requires_grad=True)
    loss = RINCELoss((0.1, 0.2), modes)(scores, torch.tensor(relation, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("modes", ["out", "in"])
def test_half_precision_scores_are_computed_in_float32(modes, dtype):
    scores = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, -1.0]], dtype=dtype, requires_grad=True)
    relation = torch.tensor([[1, 2, 0], [0, 1, -1]], dtype=torch.int8)
    loss = RINCELoss((0.01, 0.02), modes)(scores, relation)
    loss.backward()
    # Rank 1 gives 0 and log 2. Rank 2 has one anchor, whose positive is 1.5 below the negative.
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((log(2) / 2 + 75) / 2, rel=1e-6)
    assert scores.grad.isfinite().all()


def test_chance_level_is_the_mean_over_ranks():
    z = torch.randn(2, 3)
    relation = torch.tensor([[1, 2, 0, 0, 0], [0, 0, 1, 2, 0]], dtype=torch.int8)
    chance = chance_level([Contrast(z, torch.randn(5, 3), relation)], RINCELoss((0.1, 0.225)))
    assert chance.item() == pytest.approx((log(5) + log(4)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperatures": []}, r"temperatures: .* got \[\]"),
        ({"temperatures": (0.1, -0.2)}, r"temperatures: .* got \(0.1, -0.2\)"),
        ({"temperatures": (0.1, 0)}, r"temperatures: .* got \(0.1, 0\)"),
        ({"temperatures": (0.1, 0.2), "modes": ["out"]}, r"modes: expected 2, one per temperature, got 1: \['out'\]"),
        ({"temperatures": (0.1,), "modes": ["out", "in"]}, r"modes: expected 1, one per temperature, got 2"),
        ({"temperatures": (0.1, 0.2), "modes": "mean"}, "modes: .* got 'mean'"),
        ({"temperatures": (0.1, 0.2), "modes": ["out", "out-in"]}, r"modes: .* got \['out', 'out-in'\]"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        RINCELoss(**arguments)


@pytest.mark.parametrize(("cumulative", "limit"), [(False, 2), (True, 3)])
def test_refuses_a_rank_without_a_temperature(cumulative, limit):
    loss = RINCELoss((0.1, 0.2), cumulative=cumulative)
    relation = torch.tensor([[0, 1, limit, -1]], dtype=torch.int8)
    assert loss(torch.zeros(1, 4), relation).isfinite()
    with pytest.raises(ValueError, match=rf"relation: expected ranks up to {limit} .* got {limit + 1}; give"):
        loss(torch.zeros(1, 4), relation.masked_fill(relation == limit, limit + 1))
