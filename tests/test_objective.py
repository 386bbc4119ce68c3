from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_in_processes
from torch.nn.functional import cosine_similarity

from ssl_modules import Contrast, Relation
from ssl_modules.extractions import AllViews
from ssl_modules.losses import GroCoLoss, InfoNCE, SCELoss
from ssl_modules.objective import chance_level, objective, ranking
from ssl_modules.similarities import Cosine, Dot, ScaledDot

REFERENCE = Path(__file__).parent / "reference"
BLOCKS = [0, 1, 3, None]


def all_views(z, images, excluded=True):
    """Build SimCLR's contrast. Rows of z are the views of ``images`` images, view by view."""
    ids = torch.arange(images).repeat(len(z) // images)[:, None]
    own = torch.arange(len(z))[:, None] if excluded else None
    return Contrast(z, z, Relation(ids, ids, own))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("official", ["lightly", "bolts_fn", "solo"])
def test_simclr_loss_and_gradient_are_the_official_ones(official, block):
    v = np.load(REFERENCE / "simclr_1.npz")
    x = torch.tensor(np.concatenate([v["x0"], v["x1"]]), requires_grad=True)
    loss = objective([all_views(x, 4)], Cosine(), InfoNCE(0.5), block)
    loss.backward()
    assert loss.item() == pytest.approx(v[f"{official}_loss"].item(), abs=1e-10)
    expected = np.concatenate([v[f"{official}_dx0"], v[f"{official}_dx1"]])
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
def test_positives_inside_the_logarithm_are_solo_learns_multi_view_loss(block):
    v = np.load(REFERENCE / "simclr_3_multiview.npz")
    x = torch.tensor(v["x"], requires_grad=True)
    loss = objective([all_views(x.flatten(0, 1), 4)], Cosine(), InfoNCE(0.1, mode="in"), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["solo_loss"].item(), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), v["solo_dx"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["out", "in"])
def test_pairs_of_views_are_lightlys_loss_whatever_the_mode(mode):
    v = np.load(REFERENCE / "simclr_3_multiview.npz")
    x = torch.tensor(v["x"], requires_grad=True)
    pairs = [(0, 1), (0, 2), (1, 2)]
    losses = [
        objective([all_views(torch.cat([x[i], x[j]]), 4)], Cosine(), InfoNCE(0.1, mode=mode), 3) for i, j in pairs
    ]
    torch.stack(losses).mean().backward()
    np.testing.assert_allclose([loss.item() for loss in losses], v["pairwise_losses"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), v["pairwise_mean_dx"], rtol=0, atol=1e-10)


def ragged_contrast(a=11, c=19):
    g = torch.Generator().manual_seed(3)
    anchors = torch.randn(a, 6, generator=g, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(c, 6, generator=g, dtype=torch.float64, requires_grad=True)
    relation = torch.randint(-1, 2, (a, c), generator=g).to(torch.int8)
    relation[4] = 0
    return anchors, candidates, relation


@pytest.mark.parametrize("block", [1, 4, 11, 100])
@pytest.mark.parametrize("mode", ["out", "in"])
def test_blocks_equal_the_whole(block, mode):
    anchors, candidates, relation = ragged_contrast()
    loss = InfoNCE(0.3, clip=4.0, l2=0.05, mode=mode)
    results = []
    for b in (0, block):
        anchors.grad = candidates.grad = None
        value = objective([Contrast(anchors, candidates, relation, weight=0.7)], Cosine(), loss, b)
        (2 * value).backward()
        results.append((value.detach(), anchors.grad, candidates.grad))
    for whole, blocked in zip(*results, strict=True):
        torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("detached", ["anchors", "candidates", "both"])
def test_blocks_leave_a_detached_side_alone(detached):
    anchors, candidates, relation = ragged_contrast()
    a = anchors if detached == "candidates" else anchors.detach()
    c = candidates if detached == "anchors" else candidates.detach()
    blocked = objective([Contrast(a, c, relation)], Dot(), InfoNCE(), 3)
    whole = objective([Contrast(a, c, relation)], Dot(), InfoNCE(), 0)
    torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-12)
    assert blocked.requires_grad == (detached != "both")


def test_large_matrices_go_in_blocks_by_themselves(monkeypatch):
    monkeypatch.setattr("ssl_modules.objective._WHOLE", 50)
    monkeypatch.setattr("ssl_modules.objective._BLOCK", 40)
    monkeypatch.setattr("ssl_modules.objective._ROWS", 1)
    anchors, candidates, relation = ragged_contrast()
    seen = []

    class Watching(Cosine):
        def forward(self, x, y):
            seen.append(len(x))
            return super().forward(x, y)

    value = objective([Contrast(anchors, candidates, relation)], Watching(), InfoNCE())
    assert seen == [2, 2, 2, 2, 2, 1]
    torch.testing.assert_close(value, objective([Contrast(anchors, candidates, relation)], Cosine(), InfoNCE(), 0))


def test_weights_and_terms_add_up():
    anchors, candidates, relation = ragged_contrast()
    loss = InfoNCE(0.5)
    alone = objective([Contrast(anchors, candidates, relation)], Dot(), loss)
    both = objective((Contrast(anchors, candidates, relation, weight=w) for w in (0.5, 2.0)), Dot(), loss)
    assert both.item() == pytest.approx(2.5 * alone.item(), abs=1e-12)


def test_half_precision_under_autocast_is_computed_in_float32():
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = objective([all_views(z, 8)], Cosine(), InfoNCE(0.05))
    expected = objective([all_views(z.double(), 8)], Cosine(), InfoNCE(0.05))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_chance_level_is_the_log_of_the_number_of_candidates():
    z = torch.randn(12, 4)
    assert chance_level([all_views(z, 6)], InfoNCE(0.1)).item() == pytest.approx(log(11), rel=1e-6)
    assert chance_level([all_views(z, 4)], InfoNCE(0.1, mode="in")).item() == pytest.approx(log(11 / 2), rel=1e-6)


def test_top1_counts_anchors_whose_best_candidate_is_a_positive():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(8, 3, generator=g).repeat(3, 1) + 0.7 * torch.randn(24, 3, generator=g)
    hits = 0
    for a in range(24):
        scores = [cosine_similarity(z[a], z[b], dim=0).item() if a != b else -2 for b in range(24)]
        hits += scores.index(max(scores)) % 8 == a % 8
    assert 0 < hits < 24
    assert ranking([all_views(z, 8)], Cosine())["top1"].item() == pytest.approx(hits / 24)


def test_no_contrasts_and_a_negative_block_are_refused():
    with pytest.raises(ValueError, match="contrasts: the extraction gave none"):
        objective([], Cosine(), InfoNCE())
    anchors, candidates, relation = ragged_contrast()
    with pytest.raises(ValueError, match=r"anchor_block: .* got -2"):
        objective([Contrast(anchors, candidates, relation)], Cosine(), InfoNCE(), -2)


def uneven_problem():
    """Give labels for which one process has most of the positives."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(12, 5, generator=g, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 1])[:, None]
    return x, torch.randn(5, 5, generator=g, dtype=torch.float64), labels


def labelled_contrast(x, weight, labels, *, candidates, candidate_labels, first):
    own = first + torch.arange(len(x))[:, None]
    return Contrast(x @ weight, candidates, Relation(labels, candidate_labels, own))


def process_gradients(rank, cases):
    from ssl_modules.utils.distributed import gather  # noqa: PLC0415  (inside the process group)

    x, weight, labels = uneven_problem()
    x, labels = x[6 * rank : 6 * rank + 6], labels[6 * rank : 6 * rank + 6]
    results = []
    for mode, block in cases:
        w = weight.clone().requires_grad_()
        contrast = labelled_contrast(
            x, w, labels, candidates=gather(x @ w), candidate_labels=gather(labels), first=6 * rank
        )
        loss = objective([contrast], Cosine(), InfoNCE(0.3, l2=0.01, mode=mode), block)
        loss.backward()
        results.append((loss.detach(), w.grad))
    return results


def test_two_processes_give_the_gradient_of_one_with_uneven_positives():
    cases = [(mode, block) for mode in ("out", "in") for block in (0, 2)]
    results = run_in_processes(process_gradients, cases)
    x, weight, labels = uneven_problem()
    for (mode, _), first, second in zip(cases, *results, strict=True):
        w = weight.clone().requires_grad_()
        contrast = labelled_contrast(x, w, labels, candidates=x @ w, candidate_labels=labels, first=0)
        loss = objective([contrast], Cosine(), InfoNCE(0.3, l2=0.01, mode=mode), 0)
        loss.backward()
        # DDP averages over processes.
        torch.testing.assert_close((first[0] + second[0]) / 2, loss.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close((first[1] + second[1]) / 2, w.grad, rtol=0, atol=1e-12)
        assert (first[0] - second[0]).abs() > 0.01  # the processes' shares differ


class OfPairs(InfoNCE):
    """Returns a constant zero, without gradient, if a block has no positives."""

    def partial(self, scores, relation, reference_scores, counts):
        if not (relation > 0).any():
            return scores.new_zeros(())
        return super().partial(scores, relation, reference_scores, counts)


@pytest.mark.parametrize("similarity", [Cosine(), None])
def test_a_block_without_gradient_adds_none(similarity):
    anchors, candidates, relation = ragged_contrast()
    relation[4:8] = 0  # all anchors of the second block
    results = []
    for loss, block in ((InfoNCE(0.3), 0), (OfPairs(0.3), 4)):
        anchors.grad = candidates.grad = None
        value = objective([Contrast(anchors, candidates, relation)], similarity or Squashed(), loss, block)
        value.backward()
        results.append((value.detach(), anchors.grad, candidates.grad))
    for whole, blocked in zip(*results, strict=True):
        torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-12)


class Squashed(Dot):
    def forward(self, x, y):
        return super().forward(x, y).tanh()


def test_a_similarity_with_a_forward_of_its_own_is_asked_in_blocks_too():
    anchors, candidates, relation = ragged_contrast()
    whole, blocked = (objective([Contrast(anchors, candidates, relation)], Squashed(), InfoNCE(), b) for b in (0, 4))
    torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-12)


class Scaled(Dot):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x, y):
        return self.scale * super().forward(x, y)


def test_parameters_of_a_similarity_learn_only_outside_of_blocks():
    anchors, candidates, relation = ragged_contrast()
    similarity = Scaled()
    objective([Contrast(anchors, candidates, relation)], similarity, InfoNCE(), 0).backward()
    assert similarity.scale.grad.abs() > 0
    with pytest.raises(ValueError, match=r"similarity: has parameters, .* pass anchor_block=0"):
        objective([Contrast(anchors, candidates, relation)], similarity, InfoNCE())


@pytest.mark.parametrize("block", [0, 3])
def test_a_transposed_relation_is_a_relation(block):
    anchors, candidates, relation = ragged_contrast(a=8, c=16)
    swapped = objective([Contrast(candidates, anchors, relation.T)], Dot(), InfoNCE(), block)
    copied = objective([Contrast(candidates, anchors, relation.T.contiguous())], Dot(), InfoNCE(), block)
    torch.testing.assert_close(swapped, copied, rtol=0, atol=1e-12)


def test_average_precision_is_the_mean_over_the_anchors_of_all_contrasts():
    v = np.load(REFERENCE / "s2r2_smooth_4views.npz")
    contrast = all_views(torch.tensor(v["z"]).flatten(0, 1), 8)
    assert ranking([contrast], Cosine())["ap"].item() == pytest.approx(1 - v["exact_loss"], abs=1e-12)
    z = torch.eye(3)
    relation = torch.tensor([[1, -1, -1], [0, 1, -1], [0, -1, 0]], dtype=torch.int8)  # first and last don't count
    second = Contrast(z, z, relation)
    assert ranking([second], Dot())["ap"] == 1
    mean = (32 * (1 - v["exact_loss"]) + 1) / 33
    assert ranking([contrast, second], Cosine())["ap"].item() == pytest.approx(mean, abs=1e-6)
    assert ranking([Contrast(z, z, relation[:1].expand(3, 3))], Dot())["ap"].isnan()


@pytest.mark.parametrize("rows", [slice(None), slice(0, 1)])
def test_embeddings_that_are_nan_rank_nothing(rows):
    z = torch.eye(8)
    z = torch.cat([z, z])
    found = ranking([all_views(z, 8)], Cosine())
    assert (found["top1"], found["ap"]) == (1, 1)
    z[rows] = torch.nan
    assert ranking([all_views(z, 8)], Cosine()) == {"top1": 0, "ap": 0}  # each anchor is a candidate of all others


def test_anchors_without_negatives_have_no_say_in_the_top_one():
    z = torch.eye(3)
    relation = torch.tensor([[1, -1, -1], [0, 1, -1], [-1, 1, 0]], dtype=torch.int8)  # not counted, hit, miss
    assert ranking([Contrast(z, z, relation)], Dot())["top1"] == 0.5
    assert ranking([Contrast(z, z, relation[:1].expand(3, 3))], Dot())["top1"].isnan()


@pytest.mark.parametrize("similarity", [Cosine(), Dot(), ScaledDot()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("anchor_block", [None, 0, 2])
def test_a_reference_is_compared_as_the_anchors_are(similarity, anchor_block):
    g = torch.Generator().manual_seed(0)
    anchors, reference = (torch.randn(5, 7, generator=g, dtype=torch.float64) for _ in range(2))
    candidates = torch.randn(9, 7, generator=g, dtype=torch.float64)
    relation = torch.zeros(5, 9, dtype=torch.int8).fill_diagonal_(1)
    loss = SCELoss(temperature=0.5, teacher_temperature=0.2, positive_weight=0.5)
    expected = loss(similarity(anchors, candidates), relation, similarity(reference, candidates))
    found = objective([Contrast(anchors, candidates, relation, reference)], similarity, loss, anchor_block)
    torch.testing.assert_close(found, expected)


def test_a_reference_may_be_a_function_of_rows():
    """Its scores are taken as they are: no similarity changes them, and they have no gradient."""
    g = torch.Generator().manual_seed(0)
    anchors, candidates = (torch.randn(n, 7, generator=g, dtype=torch.float64, requires_grad=True) for n in (5, 9))
    scores = torch.randn(5, 9, generator=g, dtype=torch.float64, requires_grad=True)
    relation = torch.zeros(5, 9, dtype=torch.int8).fill_diagonal_(1)
    loss, results = SCELoss(temperature=0.5, teacher_temperature=0.2, positive_weight=0.5), []
    for block in (0, 1, 2, None):
        anchors.grad = candidates.grad = None
        found = objective([Contrast(anchors, candidates, relation, lambda rows: scores[rows])], Cosine(), loss, block)
        found.backward()
        results.append((found.detach(), anchors.grad, candidates.grad))
    assert scores.grad is None
    expected = loss(Cosine()(anchors, candidates), relation, scores)
    of_anchors, of_candidates = torch.autograd.grad(expected, (anchors, candidates))
    for result in results:
        torch.testing.assert_close(result, (expected.detach(), of_anchors, of_candidates), rtol=0, atol=1e-12)


def test_a_reference_function_runs_in_full_precision_without_gradient_and_autocast():
    seen = []

    def reference(rows):
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return torch.eye(4, dtype=torch.bfloat16)[rows]

    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    contrast = Contrast(z, z, torch.eye(4, dtype=torch.int8), reference)
    with torch.autocast("cpu", torch.bfloat16):
        for block in (0, 3):
            objective([contrast], Cosine(), SCELoss(), block).backward()
    assert set(seen) == {(False, False)}
    assert len(seen) == 3
    assert chance_level([contrast], SCELoss()) > 0


@pytest.mark.parametrize("block", [0, 2])
def test_a_reference_function_with_scores_of_another_shape_is_refused(block):
    z = torch.eye(4)
    contrast = Contrast(z, z, torch.eye(4, dtype=torch.int8), lambda rows: z[rows, :3])
    with pytest.raises(ValueError, match=r"reference: expected a function .* returns .*\[\d, 4\], got \[\d, 3\]"):
        objective([contrast], Dot(), SCELoss(), block)


def referred(rows):
    """Compute the loss of some rows of an uneven problem, and its gradient, with a function as reference."""
    g = torch.Generator().manual_seed(3)
    anchors, scores = torch.randn(6, 4, generator=g, dtype=torch.float64), torch.randn(6, 5, generator=g)
    candidates = torch.randn(5, 4, generator=g, dtype=torch.float64).requires_grad_()
    relation = torch.zeros(6, 5, dtype=torch.int8).fill_diagonal_(1)[rows]
    own = scores.double()[rows]
    loss = objective([Contrast(anchors[rows], candidates, relation, lambda r: own[r])], Dot(), SCELoss(), 2)
    return loss.detach(), torch.autograd.grad(loss, candidates)[0]


def referred_of_a_process(rank):
    return referred(slice(0, 4) if rank == 0 else slice(4, 6))


def test_two_processes_with_a_reference_function_equal_one():
    first, second = run_in_processes(referred_of_a_process)
    for x, y, expected in zip(first, second, referred(slice(None)), strict=True):
        torch.testing.assert_close((x + y) / 2, expected, rtol=0, atol=1e-12)


def test_a_subclass_that_counts_otherwise_is_asked_for_its_counts():
    class Doubled(GroCoLoss):
        def counts(self, relation):
            return 2 * super().counts(relation)

    z = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    contrasts = AllViews(same_view_negatives=True)(list(z), None, torch.arange(6)[:, None], None)
    for block in (None, 0, 3):
        found = objective(contrasts, Cosine(), Doubled(3), block)
        torch.testing.assert_close(2 * found, objective(contrasts, Cosine(), GroCoLoss(3), block))
