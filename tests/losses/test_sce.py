import json
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ssl_modules import Contrast
from ssl_modules.contrast import Paired
from ssl_modules.losses import InfoNCE, SCELoss, sce
from ssl_modules.objective import chance_level, objective
from ssl_modules.similarities import Cosine, Dot

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [None, 0, 1, 3]  # None: the fused form
TARGETS = ["masked", "zero"]


def queue_contrast(q, k, queue, weight=1.0):
    """Compare queries with their own keys and a queue; other keys of the batch are ignored."""
    n = len(q)
    relation = Paired(own=torch.arange(n), candidates=n + len(queue), ignored=n)
    return Contrast(q, torch.cat([k, queue]), relation, reference=k, weight=weight)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("file", ["sce_queue_default", "sce_lambda1_infonce"])
def test_loss_and_gradient_are_the_official_ones(file, target, block):
    v = np.load(REFERENCE / f"{file}.npz")
    meta = json.loads(str(v["meta"]))
    loss_fn = SCELoss(meta["temp"], meta["temp_m"], meta["coeff_lambda"], target)
    name = {"masked": "masked", "zero": "zero_slot"}[target]
    k, queue = torch.tensor(v["k"]), torch.tensor(v["queue"])
    q = torch.tensor(v["q"], requires_grad=True)
    loss = objective([queue_contrast(q, k, queue)], Dot(), loss_fn, block)
    loss.backward()
    assert loss.item() == pytest.approx(v[f"loss_{name}"].item(), abs=1e-10)
    np.testing.assert_allclose(q.grad.numpy(), v[f"grad_q_{name}"], rtol=0, atol=1e-10)

    # The official gradient, passed back through the normalisation.
    tangent = v[f"grad_q_{name}"] - (v[f"grad_q_{name}"] * v["q"]).sum(axis=1, keepdims=True) * v["q"]
    raw = torch.tensor(2 * v["q"], requires_grad=True)
    loss = objective([queue_contrast(raw, 3 * k, queue)], Cosine(), loss_fn, block)
    loss.backward()
    assert loss.item() == pytest.approx(v[f"loss_{name}"].item(), abs=1e-10)
    np.testing.assert_allclose(raw.grad.numpy(), tangent / 2, rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("asym2", [(0, 1)]),
        ("sym2", [(0, 1), (1, 0)]),
        ("multi4", [(i, j) for i in range(2) for j in range(4) if i != j]),
    ],
)
def test_pairs_of_a_teachers_and_a_students_crops_are_the_official_ones(name, pairs, block):
    v = np.load(REFERENCE / "sce_sym_multicrop.npz")
    meta = json.loads(str(v["meta"]))
    q = [torch.tensor(v[f"q{i}"], requires_grad=True) for i in range(4)]
    k, queue = [torch.tensor(v[f"k{i}"]) for i in range(2)], torch.tensor(v["queue"])
    contrasts = (queue_contrast(q[j], k[i], queue, weight=1 / len(pairs)) for i, j in pairs)
    loss = objective(contrasts, Dot(), SCELoss(meta["temp"], meta["temp_m"], meta["coeff_lambda"], "zero"), block)
    loss.backward()
    assert loss.item() == pytest.approx(v[f"loss_{name}"].item(), abs=1e-10)
    for j in {j for _, j in pairs}:
        np.testing.assert_allclose(q[j].grad.numpy(), v[f"grad_q{j}_{name}"], rtol=0, atol=1e-10)


def slow_sce(scores, relation, reference, *, temperature, teacher_temperature, positive_weight, positive_target):
    """Compute the equations one number at a time."""
    terms = []
    for s, ranks, t in zip(scores.tolist(), relation.tolist(), reference.tolist(), strict=True):
        negatives = [c for c, r in enumerate(ranks) if r == 0]
        for p in [c for c, r in enumerate(ranks) if r > 0]:
            teacher = {c: exp(t[c] / teacher_temperature) for c in negatives}
            if positive_target == "zero" or not negatives:
                teacher[p] = 1.0
            student = {c: exp(s[c] / temperature) for c in [p, *negatives]}
            for c, x in student.items():
                weight = (1 - positive_weight) * teacher.get(c, 0.0) / sum(teacher.values())
                weight += positive_weight * (c == p)
                terms.append(-weight * log(x / sum(student.values())))
    return sum(terms) / (relation > 0).sum().item()


@pytest.fixture
def problem():
    g = torch.Generator().manual_seed(1)
    scores, reference = torch.randn(2, 9, 14, generator=g, dtype=torch.float64)
    relation = torch.randint(-1, 2, (9, 14), generator=g).to(torch.int8)
    relation[2] = relation[2].clamp(max=0)  # an anchor without positives
    relation[5][relation[5] == 0] = 1  # one without negatives
    relation[7] = -1  # one without positives and negatives
    return scores, relation, reference


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("temperature", "teacher_temperature", "weight"), [(0.3, 0.1, 0.5), (0.5, 1.0, 0.0)])
def test_equals_the_equations(problem, target, temperature, teacher_temperature, weight):
    expected = slow_sce(
        *problem,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        positive_weight=weight,
        positive_target=target,
    )
    loss = SCELoss(temperature, teacher_temperature, weight, target)
    assert loss(*problem).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_all_weight_on_the_positive_is_info_nce(problem, target):
    scores, relation, reference = problem
    loss = SCELoss(0.3, 0.1, positive_weight=1.0, positive_target=target)
    torch.testing.assert_close(loss(scores, relation, reference), InfoNCE(0.3)(scores, relation), rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_gradient(problem, target):
    scores, relation, reference = problem
    loss = SCELoss(0.4, 0.2, 0.3, target)
    assert torch.autograd.gradcheck(lambda s: loss(s, relation, reference), scores.requires_grad_())


def test_the_target_has_no_gradient(problem):
    scores, relation, reference = problem
    scores.requires_grad_()
    reference.requires_grad_()
    SCELoss()(scores, relation, reference).backward()
    assert reference.grad is None
    assert scores.grad.abs().sum() > 0


@pytest.mark.parametrize("block", BLOCKS)
def test_the_teachers_anchors_have_no_gradient(block):
    g = torch.Generator().manual_seed(3)
    q, k, queue = (torch.randn(n, 4, generator=g, requires_grad=n == 6) for n in (6, 6, 9))
    contrast = queue_contrast(q, k.detach(), queue)
    contrast.reference = k
    objective([contrast], Cosine(), SCELoss(), block).backward()
    assert k.grad is None
    assert q.grad.abs().sum() > 0


def test_ignored_candidates_change_nothing(problem):
    scores, relation, reference = problem
    loss = SCELoss()
    expected = loss(scores, relation, reference)
    scores[relation < 0], reference[relation < 0] = 50.0, 80.0
    torch.testing.assert_close(loss(scores, relation, reference), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_shares_of_blocks_add_up(problem, target):
    scores, relation, reference = problem
    loss = SCELoss(0.3, 0.1, 0.4, target)
    blocks = [slice(i, i + 2) for i in range(0, 9, 2)]
    counts = sum(loss.counts(relation[rows]) for rows in blocks)
    assert torch.equal(counts, loss.counts(relation))
    shares = [loss.partial(scores[rows], relation[rows], reference[rows], counts.double()) for rows in blocks]
    assert sum(shares).item() == pytest.approx(loss(scores, relation, reference).item(), abs=1e-12)


@pytest.mark.parametrize("scores_at_a_time", [1, 100, 10**6])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("ignored", [0, 4, 8])  # ignored keys of the batch's 8; the others are negatives
@pytest.mark.parametrize("shared", [True, False])  # whether an image's two views share their reference
def test_the_fused_form_is_the_plain_one(target, ignored, shared, scores_at_a_time, monkeypatch):
    monkeypatch.setattr(sce, "_CACHED", scores_at_a_time)
    monkeypatch.setattr(sce, "_FEWEST", 5)
    g = torch.Generator().manual_seed(2)
    anchors, other, candidates = (
        normalize(torch.randn(n, 6, generator=g, dtype=torch.float64)) for n in (16, 16, 8 + 17)
    )
    own = torch.arange(8).repeat(2)
    reference = candidates[own] if shared else other
    relation = Paired(own, len(candidates), ignored)
    loss_fn = SCELoss(0.3, 0.1, 0.4, target)
    weight = torch.randn(16, generator=g, dtype=torch.float64)

    def plain(x):
        scores, reference_scores = x @ candidates.T, reference @ candidates.T
        return torch.stack([loss_fn(*(y[i, None] for y in (scores, relation[:], reference_scores))) for i in range(16)])

    results = []
    for form in (plain, lambda x: loss_fn.fused(Contrast(x, candidates, relation, reference), Dot())):
        x = anchors.clone().requires_grad_()
        by_anchor = form(x)
        (weight * by_anchor).sum().backward()
        results.append((by_anchor.detach(), x.grad))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


def test_there_is_a_fused_form_for_fixed_candidates_of_a_queue_alone():
    z, queue = torch.eye(3), torch.ones(4, 3)
    of_queue = queue_contrast(z, z, queue)
    assert SCELoss().fused(of_queue, Dot()) is not None
    assert SCELoss().fused(of_queue, Cosine()) is None
    assert SCELoss().fused(queue_contrast(z, z, queue.clone().requires_grad_()), Dot()) is None
    assert SCELoss().fused(queue_contrast(z[:1], z[:1], queue[:0]), Dot()) is None
    ranked = Paired(torch.arange(3), 7, 3, ranks=lambda rows: torch.zeros(3, 4, dtype=torch.int8)[rows])
    assert SCELoss().fused(Contrast(z, of_queue.candidates, ranked, z), Dot()) is None
    assert SCELoss().fused(Contrast(z, of_queue.candidates, of_queue.relation[:], z), Dot()) is None


class Doubled(SCELoss):
    def partial(self, scores, relation, reference_scores, counts):
        return 2 * super().partial(scores, relation, reference_scores, counts)


def test_a_subclass_with_its_own_partial_is_not_bypassed():
    z, queue = torch.eye(3), torch.randn(4, 3)
    plain, doubled = (objective([queue_contrast(z, z, queue)], Dot(), loss) for loss in (SCELoss(), Doubled()))
    torch.testing.assert_close(doubled, 2 * plain)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("relation", [[[0, 0]], [[1, -1]], [[1, 1]], [[-1, -1]]])
def test_nothing_to_compare_costs_nothing(target, relation):
    scores = torch.tensor([[3.0, -2.0]], requires_grad=True)
    loss = SCELoss(positive_target=target)(scores, torch.tensor(relation, dtype=torch.int8), torch.zeros(1, 2))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", TARGETS)
def test_half_precision_scores_are_computed_in_float32(target, dtype):
    scores = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, -1.0]], dtype=dtype, requires_grad=True)
    relation = torch.tensor([[1, 0, 0], [0, 1, -1]], dtype=torch.int8)
    reference = torch.tensor([[1.0, 0.75, -1.0], [0.5, 1.0, 1.0]], dtype=dtype)
    loss = SCELoss(0.01, 0.01, positive_target=target)(scores, relation, reference)
    loss.backward()
    # First anchor: half of the target is on a candidate 200 below the best. Second: two equal candidates.
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((100 + log(2)) / 2, rel=1e-6)
    torch.testing.assert_close(scores.grad, torch.tensor([[25, -25, 0], [0, 0, 0]], dtype=dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_chance_level_is_the_log_of_the_number_of_candidates(target):
    z = torch.eye(5)
    assert chance_level([queue_contrast(z, z, torch.randn(9, 5))], SCELoss(positive_target=target)).item() == (
        pytest.approx(log(10), rel=1e-6)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "^temperature: .* got 0"),
        ({"teacher_temperature": -0.1}, "^teacher_temperature: .* got -0.1"),
        ({"positive_weight": 1.5}, "positive_weight: .* got 1.5"),
        ({"positive_weight": -0.5}, "positive_weight: .* got -0.5"),
        ({"positive_target": "none"}, "positive_target: .* got 'none'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        SCELoss(**arguments)


def test_refuses_to_work_without_a_teacher():
    with pytest.raises(ValueError, match=r"reference_scores: expected \[2, 3\].* got None"):
        SCELoss()(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int8))
    z = torch.eye(2)
    with pytest.raises(ValueError, match=r"reference_scores: .* got None; use an extraction that gives"):
        objective([Contrast(z, z, torch.eye(2, dtype=torch.int8))], Dot(), SCELoss())
