from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from ssl_modules import Contrast, Relation
from ssl_modules.losses import AveragePrecisionLoss
from ssl_modules.losses import average_precision as module
from ssl_modules.losses.average_precision import exact_average_precision
from ssl_modules.objective import chance_level, objective
from ssl_modules.similarities import Cosine

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [0, 1, 3]
VECTORS = {"smooth": "s2r2_smooth_4views.npz", "binned": "s2r2_quant_5views_20bins.npz"}
LOSSES = [AveragePrecisionLoss(temperature=0.1), AveragePrecisionLoss("binned", bins=7, low=-0.9, high=0.8)]


def all_views(z, ids):
    ids = ids[:, None]
    return Contrast(z, z, Relation(ids, ids, excluded=torch.arange(len(z))[:, None]))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("image_major", [False, True])
@pytest.mark.parametrize("surrogate", VECTORS)
def test_loss_and_gradient_are_the_reference_in_either_order_of_views(surrogate, image_major, block):
    v = np.load(REFERENCE / VECTORS[surrogate])
    z = torch.tensor(v["z"], requires_grad=True)  # [V, N, D]
    views, images, _ = z.shape
    ids = torch.arange(images).repeat(views)
    x = z.flatten(0, 1)
    if image_major:
        ids = torch.arange(images).repeat_interleave(views)
        x = z.transpose(0, 1).flatten(0, 1)
    loss = objective([all_views(x, ids)], Cosine(), AveragePrecisionLoss(surrogate), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["loss"].item(), abs=1e-10)
    np.testing.assert_allclose(z.grad.numpy(), v["grad"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("surrogate", VECTORS)
def test_average_precision_of_each_query_is_the_reference(surrogate):
    v = np.load(REFERENCE / VECTORS[surrogate])
    z = torch.tensor(v["z"]).flatten(0, 1)
    contrast = all_views(z, torch.arange(v["z"].shape[1]).repeat(len(v["z"])))
    scores, relation = Cosine()(z, z), contrast.relation[:]
    loss = AveragePrecisionLoss(surrogate)
    of_each = [1 - loss(scores[[q]], relation[[q]]).item() for q in range(len(z))]
    np.testing.assert_allclose(of_each, v["ap"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(exact_average_precision(scores, relation), v["ap_exact"], rtol=0, atol=1e-10)


def slow_smooth(scores, relation, temperature):
    """Compute the equation one number at a time."""

    def soft(difference):
        return 1 / (1 + exp(-difference / temperature))

    precisions = []
    for row, ranks in zip(scores.tolist(), relation.tolist(), strict=True):
        everybody = [j for j, r in enumerate(ranks) if r >= 0]
        positives = [j for j in everybody if ranks[j] > 0]
        terms = []
        for i in positives:
            among = 1 + sum(soft(row[j] - row[i]) for j in positives if j != i)
            terms.append(among / (1 + sum(soft(row[j] - row[i]) for j in everybody if j != i)))
        if terms:
            precisions.append(sum(terms) / len(terms))
    return 1 - sum(precisions) / len(precisions)


def slow_binned(scores, relation, bins, low, high):
    width = (high - low) / (bins - 1)
    precisions = []
    for row, ranks in zip(scores.tolist(), relation.tolist(), strict=True):
        shares = []  # of each candidate in every bin, highest bin first
        for s in row:
            kept = min(max(s, low), high)
            shares.append([max(0, 1 - abs(kept - (high - m * width)) / width) for m in range(bins)])
        everybody = [j for j, r in enumerate(ranks) if r >= 0]
        positives = [j for j in everybody if ranks[j] > 0]
        precision = 0.0
        for m in range(bins):
            among = sum(sum(shares[j][: m + 1]) for j in positives)
            if among > 0:
                here = sum(shares[j][m] for j in positives)
                precision += here * among / sum(sum(shares[j][: m + 1]) for j in everybody)
        if positives:
            precisions.append(precision / len(positives))
    return 1 - sum(precisions) / len(precisions)


@pytest.fixture
def problem():
    """Uneven numbers of positives. Some scores are tied, and some lie beyond the bins."""
    g = torch.Generator().manual_seed(2)
    scores = torch.rand(9, 24, generator=g, dtype=torch.float64) * 2 - 1
    relation = torch.randint(-1, 4, (9, 24), generator=g).to(torch.int8)
    scores[0, ::3] = 0.123
    relation[1] = relation[1].clamp(max=0)  # an anchor without positives
    relation[2] = relation[2].abs().clamp(min=1)  # one without negatives
    relation[3] = -1  # one without positives and negatives
    relation[4] = 0
    relation[4, 7] = 2  # one with a single positive, and all others negatives
    relation[5] = 1
    relation[5, 7] = 0  # one with a single negative
    return scores, relation


def test_smooth_equals_the_equation(problem):
    expected = slow_smooth(*problem, temperature=0.1)
    assert AveragePrecisionLoss(temperature=0.1)(*problem).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("bins", "low", "high"), [(20, -1.0, 1.0), (7, -0.9, 0.8), (2, 0.0, 0.5)])
def test_binned_equals_the_equation(problem, bins, low, high):
    loss = AveragePrecisionLoss("binned", bins=bins, low=low, high=high)
    assert loss(*problem).item() == pytest.approx(slow_binned(*problem, bins, low, high), abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(problem, loss):
    scores, relation = problem
    assert torch.autograd.gradcheck(lambda s: loss(s, relation), scores.requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_at_a_time_are_all_rows(problem, loss, monkeypatch):
    scores, relation = problem
    results = []
    for numbers in (2**17, 100, 1):
        monkeypatch.setattr(module, "_CACHED", numbers)
        x = scores.clone().requires_grad_()
        value = loss(x, relation)
        value.backward()
        results.append((value.detach(), x.grad))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_shares_of_blocks_add_up(problem, loss):
    scores, relation = problem
    blocks = [slice(i, i + 2) for i in range(0, 9, 2)]
    counts = sum(loss.counts(relation[rows]) for rows in blocks)
    assert torch.equal(counts, loss.counts(relation))
    assert counts.tolist() == [7]
    shares = [loss.partial(scores[rows], relation[rows], None, counts.double()) for rows in blocks]
    assert sum(shares).item() == pytest.approx(loss(scores, relation).item(), abs=1e-12)


@pytest.mark.parametrize("surrogate", VECTORS)
def test_every_anchor_counts_alike_whatever_its_number_of_positives(surrogate):
    scores = torch.rand(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    relation = torch.zeros(2, 16, dtype=torch.int8)
    relation[0, 3] = relation[1, 4:] = 1
    loss = AveragePrecisionLoss(surrogate)
    apart = [loss(scores[[q]], relation[[q]]) for q in range(2)]
    torch.testing.assert_close(loss(scores, relation), torch.stack(apart).mean(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("surrogate", VECTORS)
@pytest.mark.parametrize("relation", [[[0, 0]], [[1, 1]], [[2, -1]], [[-1, -1]], [[0, -1]]])
def test_nothing_to_compare_costs_nothing(surrogate, relation):
    scores = torch.tensor([[0.03, 0.02]], requires_grad=True)
    loss = AveragePrecisionLoss(surrogate)(scores, torch.tensor(relation, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))


def test_two_views_are_the_reciprocal_rank_of_the_other_view():
    z = torch.randn(12, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    contrast = all_views(z, torch.arange(6).repeat(2))
    scores = Cosine()(z, z).fill_diagonal_(-2)
    rank = (scores >= scores.gather(1, torch.arange(12).roll(6)[:, None])).sum(1)
    loss = objective([contrast], Cosine(), AveragePrecisionLoss(temperature=1e-6))
    assert loss.item() == pytest.approx(1 - rank.double().reciprocal().mean().item(), abs=1e-12)


def test_an_anchor_may_find_itself():
    """In Smooth-AP's code, the query is one of its own candidates."""
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ids = torch.arange(4).repeat(2)[:, None]
    contrast = Contrast(z, z, Relation(ids, ids))
    scores, relation = Cosine()(z, z), (ids == ids.T).to(torch.int8)
    loss = objective([contrast], Cosine(), AveragePrecisionLoss())
    assert loss.item() == pytest.approx(slow_smooth(scores, relation, 0.01), abs=1e-12)


@pytest.mark.parametrize(("surrogate", "precision"), [("smooth", 1.5 / 4.5), ("binned", 2 / 8)])
def test_all_alike(surrogate, precision):
    """Two of eight equal scores are positives. "smooth" counts a tie as half a rank; "binned" puts all in one bin."""
    relation = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]], dtype=torch.int8)
    loss = AveragePrecisionLoss(surrogate, low=0.0)
    assert loss(torch.ones(1, 8), relation).item() == pytest.approx(1 - precision)
    z = torch.randn(1, 3)
    chance = chance_level([Contrast(z, torch.randn(8, 3), relation)], loss)
    assert chance.item() == pytest.approx(1 - precision)


@pytest.mark.parametrize("surrogate", VECTORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_computed_in_float32(surrogate, dtype):
    scores = torch.tensor([[1.0, -1.0, 0.5, -1.0], [-1.0, 1.0, -1.0, 1.0]], dtype=dtype, requires_grad=True)
    relation = torch.tensor([[1, 2, 0, -1], [1, 0, 1, 0]], dtype=torch.int8)
    loss = AveragePrecisionLoss(surrogate, bins=5)(scores, relation)
    loss.backward()
    assert loss.dtype == torch.float32
    tied_at_the_end = (1.5 / 3.5 + 1.5 / 3.5) / 2 if surrogate == "smooth" else 2 / 4
    assert loss.item() == pytest.approx(1 - ((1 + 2 / 3) / 2 + tied_at_the_end) / 2, rel=1e-6)
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("surrogate", VECTORS)
@pytest.mark.parametrize("column", [0, 1])
def test_not_a_number_is_not_hidden(surrogate, column):
    scores = torch.tensor([[0.5, -0.5, 0.2]])
    scores[0, column] = torch.nan
    scores.requires_grad_()
    loss = AveragePrecisionLoss(surrogate)(scores, torch.tensor([[1, 0, 0]], dtype=torch.int8))
    loss.backward()
    assert loss.isnan()
    assert scores.grad.isnan().any()


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_and_relation_may_have_any_strides(problem, loss):
    scores, relation = problem
    results = []
    for s, r in ((scores, relation), (scores.T.contiguous().T, relation.T.contiguous().T)):
        x = s.detach().requires_grad_()
        value = loss(x, r)
        value.backward()
        results.append((value.detach(), x.grad))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


def test_scores_beyond_the_bins_count_as_at_their_ends_and_get_no_gradient():
    relation = torch.tensor([[1, 0, 1, 0]], dtype=torch.int8)
    scores = torch.tensor([[0.3, 9.0, 0.44, -7.0]], requires_grad=True)
    at_the_ends = scores.detach().clamp(0, 0.5)
    loss = AveragePrecisionLoss("binned", bins=6, low=0.0, high=0.5)
    value = loss(scores, relation)
    value.backward()
    assert value.item() == pytest.approx(loss(at_the_ends, relation).item(), abs=1e-6)
    assert scores.grad[0, [1, 3]].tolist() == [0, 0]
    assert (scores.grad[0, [0, 2]].abs() > 0.01).all()


def test_exact_average_precision_is_scikit_learns(problem):
    scores, relation = problem
    scores = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))  # without ties
    expected = []
    for row, ranks in zip(scores, relation, strict=True):
        kept = ranks >= 0
        found = bool((ranks > 0).any())
        expected.append(average_precision_score(ranks[kept] > 0, row[kept]) if found else np.nan)
    np.testing.assert_allclose(exact_average_precision(scores, relation), expected, rtol=0, atol=1e-6)


def test_exact_average_precision_counts_ties_half_a_place():
    relation = torch.tensor([[1, 0, 0, -1]], dtype=torch.int8)
    values = [exact_average_precision(torch.tensor([s]), relation).item() for s in ([0.3] * 4, [0.3, 0.3, 0.2, 0.3])]
    assert values == pytest.approx([1 / 2, 1 / 1.5])
    lowest = torch.tensor([[-torch.inf, 0.1, -torch.inf, 0.5]])  # ignored candidates don't count as ties
    assert exact_average_precision(lowest, relation).item() == pytest.approx(1 / 2.5)


def test_exact_average_precision_of_many_candidates_in_half_precision():
    g = torch.Generator().manual_seed(0)
    scores = torch.rand(4, 5_000, generator=g).bfloat16()
    relation = (torch.rand(4, 5_000, generator=g) < 0.01).to(torch.int8)
    expected = exact_average_precision(scores.double(), relation)
    torch.testing.assert_close(exact_average_precision(scores, relation).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("row", [[torch.nan, 0.2, 0.1], [0.5, torch.nan, 0.1], [torch.nan] * 3])
def test_an_anchor_with_a_score_that_is_nan_has_found_nothing(row):
    relation = torch.tensor([[1, 0, 0], [-1, -1, 1]], dtype=torch.int8)
    assert exact_average_precision(torch.tensor([row, [row[0], row[0], 0.3]]), relation).tolist() == [0, 1]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.3e38, -torch.inf])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_ignored_score_may_be_anything(loss, value):
    scores = torch.tensor([[0.3, 0.4, 0.1, value]], requires_grad=True)
    relation = torch.tensor([[1, 0, 1, -1]], dtype=torch.int8)
    found = loss(scores, relation)
    found.backward()
    without = scores.detach()[:, :3].requires_grad_()
    expected = loss(without, relation[:, :3])
    expected.backward()
    assert found.item() == expected.item()
    torch.testing.assert_close(scores.grad, torch.cat([without.grad, torch.zeros(1, 1)], dim=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"surrogate": "hard"}, "surrogate: expected 'smooth' or 'binned', got 'hard'"),
        ({"temperature": 0.0}, "temperature: .* got 0.0"),
        ({"surrogate": "binned", "bins": 1}, "bins: expected a number of at least 2, got 1"),
        ({"surrogate": "binned", "bins": 20.0}, "bins: .* got 20.0"),
        ({"temperature": float("nan")}, "temperature: .* got nan"),
        ({"temperature": "0.1"}, "temperature: .* got '0.1'"),
        ({"surrogate": "binned", "low": 1.0}, r"low and high: expected two numbers low < high, got 1.0 and 1.0"),
        ({"surrogate": "binned", "high": float("inf")}, "high: expected a finite number, got inf"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        AveragePrecisionLoss(**arguments)
