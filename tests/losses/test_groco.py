import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from losses.slow_sorting import bitonic, odd_even, slow_loss

from ssl_modules import Contrast
from ssl_modules.extractions import AllViews
from ssl_modules.losses import GroCoLoss
from ssl_modules.objective import chance_level, objective
from ssl_modules.similarities import Cosine, Dot

REFERENCE = Path(__file__).parents[1] / "reference"
NETWORKS = {"odd_even": odd_even, "bitonic": bitonic}


def official(name):
    """Return embeddings [V, N, D], contrasts, our loss, and the official loss with its gradient."""
    v = np.load(REFERENCE / f"groco_{name}.npz")
    parameters = json.loads(str(v["meta"]))["params"]
    extraction = AllViews(same_view_negatives=True, positive_count=parameters["n_pos_views"], stop_gradient=True)
    z = torch.tensor(v["z"], requires_grad=True)
    contrasts = extraction(list(z), None, torch.arange(z.shape[1])[:, None], None)
    return z, contrasts, GroCoLoss(parameters["topk_neg"], parameters["steepness"]), v


def image_major(c, views, images):
    """Reorder a contrast so that all views of an image are adjacent."""
    rows = torch.arange(len(c.anchors)).view(-1, images).T.flatten()
    columns = torch.arange(len(c.candidates)).view(views, images).T.flatten()
    return Contrast(c.anchors[rows], c.candidates[columns], c.relation[:][rows][:, columns], weight=c.weight)


@pytest.mark.parametrize("form", ["as extracted", "dense", "image-major", "blocks of 1", "blocks of 5"])
@pytest.mark.parametrize("name", ["2views_default", "multicrop"])
def test_loss_and_gradient_are_the_official_ones(name, form):
    z, contrasts, loss_fn, v = official(name)
    assert len(contrasts) == (1 if name == "2views_default" else 2)
    block = int(form.split()[-1]) if form.startswith("blocks") else 0
    if form == "dense":
        contrasts = [replace(c, relation=c.relation[:]) for c in contrasts]
    if form == "image-major":
        contrasts = [image_major(c, *z.shape[:2]) for c in contrasts]
    loss = objective(contrasts, Cosine(), loss_fn, block)
    loss.backward()
    assert loss.item() == pytest.approx(v["loss"].item(), abs=1e-10)
    np.testing.assert_allclose(z.grad.numpy(), v["grad"], rtol=0, atol=1e-10)


def slow_groco(scores, relation, negatives, steepness=1.0, **kinds):
    """Compute the equation one anchor at a time."""
    losses = []
    for row, ranks in zip(scores.tolist(), relation.tolist(), strict=True):
        positives = sorted(s for s, r in zip(row, ranks, strict=True) if r > 0)
        hardest = sorted(s for s, r in zip(row, ranks, strict=True) if r == 0)[-negatives:]
        if positives:
            losses.append(slow_loss(hardest + positives, negatives, steepness, **kinds))
    return sum(losses) / len(losses)


def make_problem(anchors=9, candidates=15, seed=1):
    """Draw anchors with different numbers of positives, also none, and with at least three negatives."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(anchors, candidates, generator=g, dtype=torch.float64)
    relation = torch.randint(-1, 3, (anchors, candidates), generator=g).to(torch.int8)
    relation[:, :3] = 0
    relation[2] = relation[2].clamp(max=0)
    relation[7] = -1
    return scores, relation


@pytest.mark.parametrize("negatives", [1, 2, 3])
@pytest.mark.parametrize("steepness", [1.0, 8.0])
@pytest.mark.parametrize("candidates", [15, 80, 163])  # with and without a first comparison of groups
def test_equals_the_equation(candidates, negatives, steepness):
    scores, relation = make_problem(candidates=candidates)
    assert len(set((relation > 0).sum(1).tolist())) > 3
    loss = GroCoLoss(negatives, steepness)(scores, relation)
    assert loss.item() == pytest.approx(slow_groco(scores, relation, negatives, steepness), abs=1e-12)


@pytest.mark.parametrize(
    ("network", "distribution"),
    [("bitonic", "cauchy"), ("odd_even", "logistic"), ("odd_even", "optimal"), ("bitonic", "logistic_phi")],
)
def test_equals_the_equation_with_other_networks(network, distribution):
    scores, relation = make_problem()
    loss = GroCoLoss(3, 2.0, network, distribution)(scores, relation)
    expected = slow_groco(scores, relation, 3, 2.0, network=NETWORKS[network], distribution=distribution)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("candidates", [15, 163])
def test_ties(candidates):
    scores, relation = make_problem(candidates=candidates)
    scores = (2 * scores).round() / 2
    loss = GroCoLoss(3)(scores, relation)
    assert loss.item() == pytest.approx(slow_groco(scores, relation, 3), abs=1e-12)
    alike = torch.zeros_like(scores)
    assert GroCoLoss(3)(alike, relation).item() == pytest.approx(slow_groco(alike, relation, 3), abs=1e-12)


def test_only_the_hardest_negatives_matter():
    scores = torch.tensor([[0.3, -0.2, 0.1, -0.9, 0.7]], requires_grad=True)
    relation = torch.tensor([[0, 0, 0, -1, 1]], dtype=torch.int8)
    GroCoLoss(2)(scores, relation).backward()
    assert scores.grad[0].bool().tolist() == [True, False, True, False, True]
    assert (scores.grad[0, [0, 2]] > 0).all()  # pushed away
    assert scores.grad[0, 4] < 0  # pulled closer


def test_order_within_a_group_is_free():
    scores, relation = make_problem()
    shuffle = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    loss = GroCoLoss(3)
    torch.testing.assert_close(loss(scores[:, shuffle], relation[:, shuffle]), loss(scores, relation), rtol=0, atol=0)
    swapped = relation.masked_fill(relation > 0, 1)  # all ranks are treated alike
    torch.testing.assert_close(loss(scores, swapped), loss(scores, relation), rtol=0, atol=0)


@pytest.mark.parametrize(("network", "distribution"), [("odd_even", "cauchy"), ("bitonic", "logistic")])
def test_gradient(network, distribution):
    scores, relation = make_problem()
    loss = GroCoLoss(3, 2.0, network, distribution)
    assert torch.autograd.gradcheck(lambda s: loss(s, relation), scores.requires_grad_())


def test_shares_of_blocks_add_up():
    scores, relation = make_problem()
    loss = GroCoLoss(3)
    blocks = [slice(i, i + 2) for i in range(0, 9, 2)]
    counts = sum(loss.counts(relation[rows]) for rows in blocks)
    assert torch.equal(counts, torch.tensor([7]))
    assert torch.equal(counts, loss.counts(relation))
    shares = [loss.partial(scores[rows], relation[rows], None, counts.double()) for rows in blocks]
    assert sum(shares).item() == pytest.approx(loss(scores, relation).item(), abs=1e-12)


@pytest.mark.parametrize("relation", [[[0, 0]], [[-1, 0]], [[-1, -1]]])
def test_nothing_to_sort_costs_nothing(relation):
    scores = torch.tensor([[3.0, -2.0]], requires_grad=True)
    loss = GroCoLoss(10)(scores, torch.tensor(relation, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_computed_in_float32(dtype):
    scores = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, -1.0]], dtype=dtype, requires_grad=True)
    relation = torch.tensor([[1, 0, 0], [0, 1, -1]], dtype=torch.int8)
    loss = GroCoLoss(1, steepness=100.0)(scores, relation)
    loss.backward()
    assert loss.dtype == torch.float32
    expected = slow_groco(scores.detach().double(), relation, 1, 100.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert scores.grad.isfinite().all()


def test_chance_level_is_the_loss_of_equal_scores():
    z = torch.randn(2, 12, 3)
    [c] = AllViews(same_view_negatives=True)(list(z), None, torch.arange(12)[:, None], None)
    assert chance_level([c], GroCoLoss()).item() == pytest.approx(slow_loss([0.0] * 11, 10), rel=1e-6)


def test_chance_level_of_multi_crop_is_the_mean_over_both_lengths():
    z = torch.randn(8, 12, 3)
    extraction = AllViews(same_view_negatives=True, positive_count=2)
    contrasts = extraction(list(z), None, torch.arange(12)[:, None], None)
    expected = (2 * slow_loss([0.0] * 11, 10) + 6 * slow_loss([0.0] * 12, 10)) / 8
    assert chance_level(contrasts, GroCoLoss()).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("block", [None, 0, 3])
def test_refuses_more_negatives_than_there_are(block):
    z = list(torch.randn(2, 8, 3))
    contrasts = AllViews(same_view_negatives=True)(z, None, torch.arange(8)[:, None], None)
    assert objective(contrasts, Cosine(), GroCoLoss(7), block).isfinite()
    with pytest.raises(
        ValueError, match=r"negatives: expected at most the 7 .* got 8; use larger batches, with drop_last=True"
    ):
        objective(contrasts, Cosine(), GroCoLoss(8), block)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": 0}, "negatives: expected a number of at least 1, got 0"),
        ({"negatives": 10.0}, "negatives: expected int, got 10.0"),
        ({"negatives": "10"}, "negatives: expected int, got '10'"),
        ({"steepness": 0}, "steepness: expected a positive number, got 0"),
        ({"steepness": float("inf")}, "steepness: expected a finite number, got inf"),
        ({"network": "bubble"}, "network: expected 'odd_even' or 'bitonic', got 'bubble'"),
        ({"distribution": "uniform"}, "distribution: expected 'cauchy', .* or 'optimal', got 'uniform'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        GroCoLoss(**arguments)


def test_numbers_may_be_numpys():
    scores, relation = torch.tensor([[0.1, -0.7, 0.0, 0.9]]), torch.tensor([[0, 0, 0, 1]], dtype=torch.int8)
    loss = GroCoLoss(np.int64(2), np.float32(4))
    assert loss(scores, relation) == GroCoLoss(2, 4.0)(scores, relation)


def test_a_loss_shows_its_arguments():
    assert repr(GroCoLoss(5)) == "GroCoLoss(negatives=5, steepness=1.0, network='odd_even', distribution='cauchy')"


def test_the_fused_form_is_the_plain_one_of_each_anchor():
    g = torch.Generator().manual_seed(4)
    z = torch.randn(3, 6, 5, generator=g, dtype=torch.float64, requires_grad=True)
    [contrast] = AllViews(same_view_negatives=True)(list(z), None, torch.arange(6)[:, None], None)
    unit = replace(contrast, anchors=Cosine().embed(contrast.anchors), candidates=Cosine().embed(contrast.candidates))
    loss = GroCoLoss(negatives=3)
    fused = loss.fused(unit, Dot())
    scores, relation = unit.anchors @ unit.candidates.T, unit.relation[:]
    plain = torch.stack([loss(scores[i, None], relation[i, None]) for i in range(18)])
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-12)
    weight = torch.randn(18, generator=g, dtype=torch.float64)
    gradients = [torch.autograd.grad((weight * x).sum(), z, retain_graph=True)[0] for x in (fused, plain)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    assert loss.fused(unit, Cosine()) is None
