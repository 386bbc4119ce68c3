import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from ssl_modules.evaluation import knn_scores


def clusters(count: int, seed: int, dim: int = 16, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.randint(classes, (count,), generator=generator)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return 3 * (centres[targets] + 1.5 * noise), targets


@pytest.mark.parametrize("temperature", [0.07, 0.5, None])
@pytest.mark.parametrize("k", [1, 20])
def test_equals_scikit_learn(k, temperature):
    bank, bank_targets = clusters(300, seed=1)
    queries, _ = clusters(101, seed=2)
    weights = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    reference = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
    expected = torch.from_numpy(reference.fit(bank, bank_targets).predict_proba(queries))

    scores = knn_scores(bank, bank_targets, queries, k=k, temperature=temperature)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    assert 0.3 < (scores.argmax(1) == clusters(101, seed=2)[1]).double().mean() < 1  # neither trivial nor chance


def test_equals_scikit_learn_in_float32():
    bank, bank_targets = clusters(300, seed=1)
    queries, _ = clusters(101, seed=2)
    expected = knn_scores(bank, bank_targets, queries)
    scores = knn_scores(bank.float(), bank_targets, queries.float())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ["as drawn", "by class", "by similarity"])
@pytest.mark.parametrize(("count", "k"), [(16_387, 20), (20_011, 1), (20_011, 10), (20_011, 20), (20_011, 100)])
def test_large_banks_equal_scikit_learn(count, k, order):
    bank, classes = clusters(count, seed=1)
    queries, _ = clusters(21, seed=2)
    if order != "as drawn":  # neighbours are adjacent, or are the last samples
        key = classes if order == "by class" else F.normalize(bank, dim=1) @ queries[0]
        bank = bank[key.argsort()]
    bank_targets = torch.arange(count) % 7  # neighbours have different labels, so each of them matters
    reference = KNeighborsClassifier(
        k, weights=lambda distance: np.exp((1 - distance) / 0.5), metric="cosine", algorithm="brute"
    )
    expected = torch.from_numpy(reference.fit(bank, bank_targets).predict_proba(queries))
    scores = knn_scores(bank, bank_targets, queries, k=k, temperature=0.5, chunk_size=8)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


def test_equally_similar_samples_of_large_banks():
    bank, bank_targets = torch.ones(20_000, 3), torch.zeros(20_000, dtype=torch.long)
    bank[::1000] *= -1
    bank_targets[::1000] = 1
    scores = knn_scores(bank, bank_targets, torch.tensor([[1.0, 1.0, 1.0], [-2.0, -2.0, -2.0]]), k=20)
    torch.testing.assert_close(scores, torch.eye(2))


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_chunks_do_not_matter(chunk_size):
    bank, bank_targets = clusters(300, seed=1)
    queries, _ = clusters(50, seed=2)
    expected = knn_scores(bank, bank_targets, queries)
    scores = knn_scores(bank, bank_targets, queries, chunk_size=chunk_size)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


def test_scale_of_features_does_not_matter():
    bank, bank_targets = clusters(100, seed=1)
    queries, _ = clusters(20, seed=2)
    scores = knn_scores(bank * 1000, bank_targets, queries / 1000)
    torch.testing.assert_close(scores, knn_scores(bank, bank_targets, queries), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_zero_rows_and_small_temperature_are_finite(dtype):
    bank, bank_targets = clusters(30, seed=1)
    bank[0] = 0
    scores = knn_scores(bank.to(dtype), bank_targets, torch.zeros(2, 16, dtype=dtype), k=5, temperature=0.001)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_no_queries():
    bank, bank_targets = clusters(30, seed=1)
    assert knn_scores(bank, bank_targets, bank[:0], num_classes=9).shape == (0, 9)


def test_equal_votes_are_split_evenly():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scores = knn_scores(bank, torch.tensor([2, 0]), torch.tensor([[1.0, 1.0]]), num_classes=4, k=2)
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.0, 0.5, 0.0]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 6}, r"k: expected a number from 1 to 5, .* got 6"),
        ({"k": 0}, "k: expected a number from 1 to 5"),
        ({"temperature": 0.0}, "temperature: expected a positive number"),
        ({"num_classes": 2}, "num_classes: expected more than every target, got 2 and a target 2"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"bank": torch.full((5, 3), float("nan"))}, "bank: expected finite features, got 5 of 5 with NaN"),
        ({"queries": torch.full((5, 3), float("inf"))}, "queries: expected finite features, got 5 of 5"),
        ({"bank": torch.zeros(5, 3, 2, 2)}, r"bank: expected floating-point vectors .* \[5, 3, 2, 2\]; pool"),
        ({"queries": torch.zeros(5, 4)}, "got 3 and 4"),
        ({"bank_targets": torch.zeros(4, dtype=torch.long)}, "expected one target for each of 5 features, got 4"),
        ({"bank_targets": torch.zeros(5)}, "class indices"),
        ({"bank_targets": torch.full((5,), -1)}, "got -1; leave out unlabelled"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = {"bank": torch.ones(5, 3), "bank_targets": torch.tensor([0, 1, 2, 0, 1]), "queries": torch.ones(2, 3)}
    with pytest.raises(ValueError, match=message):
        knn_scores(**{**arguments, "k": 2, **change})
