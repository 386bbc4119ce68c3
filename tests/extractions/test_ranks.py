from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_in_processes

from ssl_modules.extractions import LabelRanks, NeighbourRanks, Queue, RankTable, SimilarityRanks
from ssl_modules.losses import RINCELoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine, Dot
from ssl_modules.utils.configurable import build, to_config

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [0, 1, 3]
TABLE = [[1, 2, 0, 3], [2, 1, 0, 0], [0, 0, 1, 2], [0, 4, 2, 1]]  # ranks need not be symmetric


def ids(images, *classes, seed=0):
    """Draw unique image ids, and labels per level of ``classes``. Some labels are unknown; the last row is empty."""
    g = torch.Generator().manual_seed(seed)
    labels = [torch.randint(-1, c, (images,), generator=g) for c in classes]
    columns = torch.stack([1000 * seed + torch.arange(images), *labels], dim=1)
    columns[-1] = -1
    return columns


def no_scores():
    raise AssertionError("ranks of labels need no matrix product")


# ---- each rule against a slow loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("classes", [(3,), (6, 2), (9, 4, 2)])
def test_labels_rank_by_the_finest_level_that_matches(classes, cumulative):
    anchors, keys = ids(12, *classes, seed=1), ids(40, *classes, seed=2)
    rule = LabelRanks(len(classes), cumulative)
    assert rule.levels == keys.shape[1]
    expected = torch.zeros(12, 40, dtype=torch.int8)
    for a, anchor in enumerate(anchors.tolist()):
        for k, key in enumerate(keys.tolist()):
            matches = [x == y != -1 for x, y in zip(anchor[1:], key[1:], strict=True)]
            if any(matches):
                expected[a, k] = matches.index(True) + 1 + cumulative
    assert set(expected.unique().tolist()) == {0, *range(1 + cumulative, len(classes) + 1 + cumulative)}
    ranks = rule(anchors, keys, no_scores)
    assert ranks.dtype == torch.int8
    assert torch.equal(ranks, expected)


def slow_table(table, anchors, keys):
    rows = [[0 if -1 in (a, k) else table[a][k] for k in keys[:, 1].tolist()] for a in anchors[:, 1].tolist()]
    return torch.tensor(rows, dtype=torch.int8)


def test_a_table_ranks_by_the_classes_of_both():
    anchors, keys = ids(12, 4, seed=1), ids(40, 4, seed=2)
    ranks = RankTable(TABLE)(anchors, keys, no_scores)
    assert ranks.dtype == torch.int8
    assert torch.equal(ranks, slow_table(TABLE, anchors, keys))
    assert set(ranks.unique().tolist()) == {0, 1, 2, 3, 4}


def test_labels_and_the_table_that_they_make_are_one():
    coarse = torch.tensor([0, 1, 0, 1, 2, 2])
    table = [[1 if a == b else 2 * int(coarse[a] == coarse[b]) for b in range(6)] for a in range(6)]
    anchors, keys = ids(12, 6, seed=1), ids(40, 6, seed=2)
    both = [torch.cat([x, coarse[x[:, 1]].where(x[:, 1] >= 0, -1)[:, None]], dim=1) for x in (anchors, keys)]
    assert torch.equal(RankTable(table)(anchors, keys, no_scores), LabelRanks(2)(*both, no_scores))


def test_similarities_are_ranked_by_the_thresholds_that_they_reach():
    g = torch.Generator().manual_seed(0)
    similarities, thresholds = torch.rand(5, 5, generator=g).tolist(), [0.8, 0.5, 0.4]
    similarities[1][2] = 0.5  # equal to a threshold: counts as reached
    table = [[0] * 5 for _ in range(5)]
    for a, row in enumerate(similarities):
        for b, similarity in enumerate(row):
            reached = [r for r, threshold in enumerate(thresholds, start=2) if similarity >= threshold]
            table[a][b] = 1 if a == b else min(reached, default=0)
    assert table[1][2] == 3
    anchors, keys = ids(12, 5, seed=1), ids(40, 5, seed=2)
    ranks = SimilarityRanks(similarities, thresholds)(anchors, keys, no_scores)
    assert torch.equal(ranks, slow_table(table, anchors, keys))
    assert set(ranks.unique().tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("filled", [30, 4, 0])
def test_neighbours_are_the_nearest_keys_that_there_are(filled):
    neighbours = (2, 1, 4)
    scores = torch.rand(12, 30, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(30)[:, None]
    keys[filled:] = -1
    expected = torch.zeros(12, 30, dtype=torch.int8)
    for a, row in enumerate(scores[:, :filled].tolist()):
        nearest = sorted(range(filled), key=lambda k, row=row: -row[k])
        for rank, number in enumerate(neighbours, start=2):
            for k in nearest[:number]:
                expected[a, k] = rank
            nearest = nearest[number:]
    ranks = NeighbourRanks(neighbours, warmup_steps=0)(ids(12), keys, lambda: scores)
    assert ranks.dtype == torch.int8
    assert torch.equal(ranks, expected)


# ---- in a queue ------------------------------------------------------------------------------------------------------


def queue(ranks, size=8, dim=5):
    extraction = Queue(out_dim=dim, size=size, ranks=ranks)
    extraction.build(out_channels=(6,))
    return extraction.double()


def vectors(images, dim=5, seed=1):
    return torch.randn(images, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def superclasses(v):
    """Derive superclasses from the file's ranks: each is named after the smallest class among its keys."""
    anchors = [
        min(v["queue_labels"][ranks > 0], default=label) for label, ranks in zip(v["q_labels"], v["ranks"], strict=True)
    ]
    keys = [
        next((anchors[a] for a in range(len(anchors)) if ranks[a] > 0), label)
        for label, ranks in zip(v["queue_labels"], v["ranks"].T, strict=True)
    ]
    return torch.tensor(anchors), torch.tensor(keys)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("mode", ["in", "out_in"])
def test_labels_in_a_queue_give_the_official_loss_and_gradient(mode, cumulative, block):
    v = np.load(REFERENCE / f"rince_{mode}.npz")
    q_coarse, queue_coarse = superclasses(v)
    extraction = queue(LabelRanks(2, cumulative), size=80, dim=16)
    extraction.keys.copy_(torch.tensor(v["queue"]))
    extraction.ids[:, 1:] = torch.stack([torch.tensor(v["queue_labels"]), queue_coarse], dim=1)
    q = torch.tensor(v["q"], requires_grad=True)
    own = torch.stack([torch.arange(10), torch.tensor(v["q_labels"]), q_coarse], dim=1)
    contrasts = extraction([q], [torch.tensor(v["k"])], own, None)
    loss_fn = RINCELoss(v["taus"].tolist(), mode.replace("_", "-"), cumulative)
    loss = objective(contrasts, Dot(), loss_fn, block)
    loss.backward()
    name = "cumulative" if cumulative else "strict"
    assert loss.item() == pytest.approx(v[f"loss_{name}"].item(), abs=1e-10)
    np.testing.assert_allclose(q.grad.numpy(), v[f"grad_q_{name}"], rtol=0, atol=1e-10)


def test_the_warm_up_counts_optimiser_steps_and_is_saved():
    extraction = queue(NeighbourRanks((1, 2), warmup_steps=2))
    seen = []
    for number in range(4):
        extraction.before_step(number)
        own = 2 * number + torch.arange(2)[:, None]
        [contrast] = extraction([vectors(2, seed=number)], [vectors(2, seed=number)], own, None)
        contrast.relation[:], contrast.relation[:1]  # several reads count as one step
        seen.append(contrast.relation[:].max(dim=1).values.tolist())
        if number == 3:  # evaluation doesn't count
            extraction.eval()([vectors(2)], [vectors(2)], own, None)
        extraction.after_backward()
        extraction.after_backward()
    assert seen == [[1, 1], [1, 1], [3, 3], [3, 3]]
    assert extraction.ranks.steps == 3
    resumed = queue(NeighbourRanks((1, 2), warmup_steps=2))
    resumed.load_state_dict(extraction.state_dict())
    assert resumed.ranks.steps == 3


def test_neighbours_equal_the_whole_in_blocks():
    losses = []
    for block in (0, 1, 3):
        extraction = queue(NeighbourRanks((1, 2), warmup_steps=1))
        for number in range(2):
            extraction.before_step(number)
            own = 4 * number + torch.arange(4)[:, None]
            contrasts = extraction([vectors(4, seed=number)], [vectors(4, seed=9 - number)], own, None)
            extraction.after_backward()
        losses.append(objective(contrasts, Cosine(), RINCELoss((0.1, 0.2, 0.3)), block).item())
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-12)


IMAGES = 6
RULES = {
    "labels": (lambda: LabelRanks(2), (4, 2)),
    "table": (lambda: RankTable(TABLE), (4,)),
    "neighbours": (lambda: NeighbourRanks((1, 1, 1), warmup_steps=1), ()),
}


def three_steps(rows, rule):
    """Make three steps with unevenly spread labels; return loss, gradient and queue after each."""
    make, classes = RULES[rule]
    weight = torch.eye(5, dtype=torch.float64).requires_grad_()
    extraction = queue(make(), size=16)
    results = []
    for number in range(3):
        extraction.before_step(number)
        own = ids(IMAGES, *classes, seed=10 + number)[rows]
        teacher = vectors(IMAGES, seed=20 + number)[rows]
        contrasts = extraction([vectors(IMAGES, seed=30 + number)[rows] @ weight], [teacher], own, None)
        loss = objective(contrasts, Cosine(), RINCELoss((0.1, 0.2, 0.3, 0.4)), 2)
        [gradient] = torch.autograd.grad(loss, weight)
        extraction.after_backward()
        results.append((loss.detach(), gradient, *(buffer.clone() for _, buffer in extraction.named_buffers())))
    return results


def steps_of_a_process(rank):
    half = IMAGES // 2
    return [three_steps(slice(half * rank, half * (rank + 1)), rule) for rule in RULES]


def test_two_processes_are_one():
    for rule, *of_processes in zip(RULES, *run_in_processes(steps_of_a_process), strict=True):
        for first, second, whole in zip(*of_processes, three_steps(slice(None), rule), strict=True):
            for x, y, expected in zip(first[:2], second[:2], whole[:2], strict=True):
                torch.testing.assert_close((x + y) / 2, expected, rtol=0, atol=1e-12)
            for x, y, expected in zip(first[2:], second[2:], whole[2:], strict=True):
                assert torch.equal(x, y)
                torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        LabelRanks(3, cumulative=True),
        RankTable(TABLE),
        SimilarityRanks([[1.0, 0.5], [0.2, 1.0]], [0.4]),
        NeighbourRanks((2, 3), warmup_steps=7),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_arguments_are_stored(rule):
    config = to_config(rule)
    again = build("ranks", config)
    assert type(again) is type(rule)
    assert to_config(again) == config
    assert again.levels == rule.levels
    torch.testing.assert_close(dict(again.named_buffers()), dict(rule.named_buffers()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        (LabelRanks, [0], "label_levels: expected a positive number, got 0"),
        (RankTable, [[]], r"table: expected a row and a column for each class, got 0 rows of \[\] columns"),
        (RankTable, [[[1, 0]]], r"table: .* got 1 rows of \[2\] columns"),
        (RankTable, [[[1, 0], [0]]], r"table: .* got 2 rows of \[1, 2\] columns"),
        (RankTable, [[[1, -1], [0, 1]]], r"table: expected integers from 0 to 127, got \[-1, 0, 1\]"),
        (RankTable, [[[1, 128], [0, 1]]], r"table: expected integers from 0 to 127, got \[0, 1, 128\]"),
        (RankTable, [[[1.0, 0.5], [0.0, 1.0]]], r"table: expected a list of lists of int, got \[\[1.0, 0.5"),
        (SimilarityRanks, [[[1.0, 0.5]], [0.4]], r"similarities: expected a row and a column .* got 1 rows of \[2\]"),
        (SimilarityRanks, [[[1.0]], []], r"thresholds: expected one or more, highest first, got \[\]"),
        (SimilarityRanks, [[[1.0]], [0.4, 0.6]], r"thresholds: .* highest first, got \[0.4, 0.6\]"),
        (NeighbourRanks, [()], r"neighbours: expected positive numbers, got \(\)"),
        (NeighbourRanks, [(3, 0)], r"neighbours: expected positive numbers, got \(3, 0\)"),
        (NeighbourRanks, [(3,), -1], "warmup_steps: expected a number of at least 0, got -1"),
    ],
)
def test_refuses(rule, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        rule(*arguments)


@pytest.mark.parametrize("label", [4, -2])
def test_a_class_outside_the_table_is_refused(label):
    anchors = ids(3, 4)
    anchors[1, 1] = label
    with pytest.raises(ValueError, match=rf"targets: expected labels from -1 .* to 3 .* 4 classes, got {label}; give"):
        RankTable(TABLE)(anchors, ids(5, 4), no_scores)


def test_more_neighbours_than_keys_are_refused_before_the_warm_up_is_over():
    with pytest.raises(ValueError, match="neighbours: a queue of 8 keys doesn't have 9; use fewer, or a larger queue"):
        NeighbourRanks((5, 4))(ids(3), ids(8), no_scores)
