from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize

from ssl_modules.evaluation import retrieval
from ssl_modules.evaluation.retrieval import _falling


def problem(queries=23, gallery=40, classes=5):
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 6, generator=g)
    targets = torch.randint(classes, (queries + gallery,), generator=g)
    features = centres[targets] + torch.randn(queries + gallery, 6, generator=g)
    return *features.split([queries, gallery]), *targets.split([queries, gallery])


def slow(queries, query_targets, gallery, gallery_targets, k):
    """Evaluate one query at a time, with scikit-learn's average precision."""
    hits, precisions = [], []
    for q, target in zip(queries, query_targets, strict=True):
        scores = normalize(gallery, dim=1) @ normalize(q, dim=0)
        related = gallery_targets == target
        if related.any():
            hits.append(related[scores.argsort(descending=True)[:k]].any().item())
            precisions.append(average_precision_score(related.numpy(), scores.numpy()))
    return sum(hits) / len(hits), sum(precisions) / len(precisions)


@pytest.mark.parametrize("chunk_size", [7, 100])
def test_equals_the_official_values(chunk_size):
    with np.load(Path(__file__).parents[1] / "reference" / "rince_eval.npz") as v:
        parts = [torch.from_numpy(v[name]) for name in ("test", "test_labels", "train", "train_labels")]
        result = retrieval(*parts, k=(1, 5, 10, 20), chunk_size=chunk_size)
        expected = {f"recall@{k}": value for k, value in zip((1, 5, 10, 20), v["recall_at_k"], strict=True)}
        expected |= {"map": v["std_map"].item(), "curve_ap": v["ap_official"].item()}
    assert result == pytest.approx(expected, rel=1e-6)  # ratios are computed in float32


def slow_curve(queries, query_targets, gallery, gallery_targets):
    """Return the area under the curve of precision over recall, both averaged over queries at each rank."""
    precision, recall = [], []
    for q, target in zip(queries, query_targets, strict=True):
        related = gallery_targets[(normalize(gallery, dim=1) @ q).argsort(descending=True)] == target
        if related.any():
            found = np.cumsum(related.numpy())
            precision.append(found / np.arange(1, len(gallery) + 1))
            recall.append(found / found[-1])
    precision, recall = np.mean(precision, 0), np.mean(recall, 0)
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(gallery)))


@pytest.mark.parametrize("chunk_size", [1, 10, 100])
def test_equals_scikit_learns_average_precision(chunk_size):
    queries, gallery, query_targets, gallery_targets = problem()
    query_targets[4] = 77  # the gallery has none of this class
    result = retrieval(queries, query_targets, gallery, gallery_targets, k=(1, 3), chunk_size=chunk_size)
    for k in (1, 3):
        recall, precision = slow(queries, query_targets, gallery, gallery_targets, k)
        assert result[f"recall@{k}"] == pytest.approx(recall, abs=1e-6)
        assert result["map"] == pytest.approx(precision, abs=1e-6)
    curve = slow_curve(queries, query_targets, gallery, gallery_targets)
    assert result["curve_ap"] == pytest.approx(curve, abs=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_among_themselves_a_query_does_not_find_itself(chunk_size):
    queries, _, targets, _ = problem()
    result = retrieval(queries, targets, k=(2,), chunk_size=chunk_size)
    expected = []
    for i in range(len(queries)):
        others = torch.arange(len(queries)) != i
        expected.append(slow(queries[i : i + 1], targets[i : i + 1], queries[others], targets[others], 2))
    recall, precision = torch.tensor(expected).mean(0).tolist()
    curve = result.pop("curve_ap")
    assert result == pytest.approx({"recall@2": recall, "map": precision}, abs=1e-6)
    assert 0 < curve < 1


def test_negative_cosines_count_as_any_other():
    gallery = -torch.tensor([[1.0, 0.1], [1.0, 0.5], [1.0, 0.9]])
    result = retrieval(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), gallery, torch.tensor([0, 0, 1]), k=(1,))
    assert result == {"recall@1": 1.0, "map": 1.0, "curve_ap": 0.0}  # the first rank already gives full recall


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery_targets": None}, "gallery and gallery_targets: expected both"),
        ({"gallery": torch.zeros(40, 5)}, r"queries and gallery: expected one dimension D, got 6 and 5"),
        ({"k": (41,)}, r"k: expected numbers in \[1, 40\].* got \[41\]"),
        ({"k": ()}, "k: expected numbers"),
        (
            {"query_targets": torch.zeros(3, dtype=torch.long)},
            "queries: expected one target for each of 23 features, got 3",
        ),
    ],
)
def test_refuses(change, message):
    queries, gallery, query_targets, gallery_targets = problem()
    given = {
        "queries": queries,
        "query_targets": query_targets,
        "gallery": gallery,
        "gallery_targets": gallery_targets,
    }
    with pytest.raises(ValueError, match=message):
        retrieval(**{**given, **change})


def test_the_fast_order_is_the_stable_one():
    scores = torch.randn(50, 997, generator=torch.Generator().manual_seed(0)).mul(8).round().div(8)
    scores[:, ::7] *= -0.0
    scores[:, 3], scores[:, 8] = 1e-42, -1e-42
    scores[::2, 5], scores[::3, 6] = -torch.inf, torch.inf
    assert torch.equal(_falling(scores), scores.argsort(dim=1, descending=True, stable=True))


def test_centre_subtracts_the_mean_of_each_part():
    queries, gallery, targets, gallery_targets = problem()
    shifted = retrieval(queries + 5, targets, gallery - 3, gallery_targets, k=(1,), centre=True)
    by_hand = retrieval(queries - queries.mean(0), targets, gallery - gallery.mean(0), gallery_targets, k=(1,))
    assert shifted == pytest.approx(by_hand, abs=1e-6)
    assert shifted != retrieval(queries + 5, targets, gallery - 3, gallery_targets, k=(1,))
    alone = retrieval(queries + 5, targets, k=(1,), centre=True)
    assert alone == pytest.approx(retrieval(queries - queries.mean(0), targets, k=(1,)), abs=1e-6)
