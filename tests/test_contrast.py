import pytest
import torch

from ssl_modules import Contrast, Relation
from ssl_modules.contrast import Paired, SameView


def slow_relation(anchor_ids, candidate_ids, excluded):
    rows = []
    for a, ids in enumerate(anchor_ids.tolist()):
        row = []
        for other in candidate_ids.tolist():
            matches = [level + 1 for level, (x, y) in enumerate(zip(ids, other, strict=True)) if x == y != -1]
            row.append(matches[0] if matches else 0)
        for column in excluded[a].tolist():
            row[column] = -1
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int8)


def test_relation_equals_loops_over_pairs():
    g = torch.Generator().manual_seed(0)
    anchors = torch.randint(-1, 3, (17, 3), generator=g)
    candidates = torch.randint(-1, 3, (23, 3), generator=g)
    excluded = torch.stack([torch.randperm(23, generator=g)[:2] for _ in range(17)])
    relation = Relation(anchors, candidates, excluded)
    expected = slow_relation(anchors, candidates, excluded)
    assert set(expected.unique().tolist()) == {-1, 0, 1, 2, 3}
    assert relation[:].dtype == torch.int8
    assert relation.shape == expected.shape
    assert torch.equal(relation[:], expected)
    assert torch.equal(relation[5:9], expected[5:9])
    rows = torch.tensor([16, 0, 3])
    assert torch.equal(relation[rows], expected[rows])


def test_finer_level_wins_and_minus_one_matches_nothing():
    ids = torch.tensor([[1, 7], [2, 7], [-1, -1]])
    assert Relation(ids, ids)[:].tolist() == [[1, 2, 0], [2, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), torch.zeros(3, 1)), "anchor_ids and candidate_ids"),
        ((torch.zeros(3, 2), torch.zeros(3, 1)), "anchor_ids and candidate_ids"),
        ((torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(2, 1)), "excluded: expected .* A = 3"),
    ],
)
def test_relation_refuses_shapes_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Relation(*arguments)


@pytest.mark.parametrize("ignored", [0, 3, 7])
@pytest.mark.parametrize("ranked", [False, True])
def test_paired_equals_loops_over_pairs(ignored, ranked):
    others = torch.randint(-1, 4, (5, 7), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    own = [4, 0, 2, 2, 6]
    paired = Paired(torch.tensor(own), 7, ignored, ranks=(lambda rows: others[rows, ignored:]) if ranked else None)
    expected = [
        [1 if c == own[a] else -1 if c < ignored else others[a, c].item() if ranked else 0 for c in range(7)]
        for a in range(5)
    ]
    assert paired.shape == (5, 7)
    assert paired[:].dtype == torch.int8
    assert paired[:].tolist() == expected
    assert paired[1:3].tolist() == expected[1:3]
    assert paired[torch.tensor([4, 0])].tolist() == [expected[4], expected[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), 4), r"own: expected \[A\], or \[A, G\] and G own_ranks, got \[3, 2\] and 1"),
        ((torch.zeros(3, 1, 1), 4), r"own: expected \[A\], or .*, got \[3, 1, 1\] and 1"),
        ((torch.zeros(3), 4, 5), r"ignored: expected a number in \[0, 4\], got 5"),
        ((torch.zeros(3), 4, -1), r"ignored: expected a number in \[0, 4\], got -1"),
    ],
)
def test_paired_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Paired(*arguments)


@pytest.mark.parametrize("anchor_views", [range(2), range(2, 5)])
def test_same_view_equals_loops_over_pairs(anchor_views):
    own, images, views, positives = [3, 1, 0], 4, 5, 2
    relation = SameView(torch.tensor(own), images, views, anchor_views, positives)

    def related(view, image, other_view, other_image):
        if image == other_image:
            return 1 if other_view < positives and other_view != view else -1
        return 0 if view == other_view else -1

    expected = [
        [related(v, own[i], u, j) for u in range(views) for j in range(images)] for v in anchor_views for i in range(3)
    ]
    assert relation.shape == (3 * len(anchor_views), 20)
    assert relation[:].dtype == torch.int8
    assert relation[:].tolist() == expected
    assert relation[2:5].tolist() == expected[2:5]
    assert relation[torch.tensor([4, 0])].tolist() == [expected[4], expected[0]]


@pytest.mark.parametrize("anchor_views", [range(2), range(2, 5)])
def test_inner_products_of_same_view_are_those_of_the_pairs_that_matter(anchor_views):
    relation = SameView(torch.tensor([3, 1, 0]), 4, 5, anchor_views, 2)
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randint(-9, 9, (size, 6), generator=g).double() for size in relation.shape)
    scores, ranks = relation.inner_products(x, y)
    dense, every = x @ y.T, relation[:]
    for a in range(len(x)):
        for rank in (0, 1):
            assert scores[a][ranks[a] == rank].tolist() == dense[a][every[a] == rank].tolist()
        assert (ranks[a] < 0).sum() == 1


def test_same_view_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"own: expected \[N\], got \[3, 1\]"):
        SameView(torch.zeros(3, 1), 4, 2, range(2), 2)
    for positives in (1, 5):
        with pytest.raises(ValueError, match=rf"positive_count: expected a number in \[2, 4\], got {positives}"):
            SameView(torch.zeros(3), 4, 4, range(2), positives)
    for views in (range(0, 4, 2), range(3), range(2, 5), range(1, 1)):
        with pytest.raises(ValueError, match=r"anchor_views: expected successive views, all of the first 2 or all of"):
            SameView(torch.zeros(3), 4, 4, views, 2)


def test_contrast_refuses_shapes_that_do_not_fit():
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="anchors and candidates"):
        Contrast(x, torch.zeros(5, 3), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"relation: expected \[3, 3\], got \[3, 5\]"):
        Contrast(x, x, torch.zeros(3, 5))
    with pytest.raises(ValueError, match="reference: expected 3 rows"):
        Contrast(x, x, torch.zeros(3, 3), reference=torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"reference: expected .* Tensor, got 0.5; or give a function of rows, or None"):
        Contrast(x, x, torch.zeros(3, 3), reference=0.5)
