from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import normalize

from ssl_modules.evaluation import cosine_scores, detection, gaussian_scores, neighbour_scores

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def official():
    with np.load(REFERENCE / "rince_eval.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if name != "meta"}


def test_gaussians_equal_the_official_values(official):
    queries = torch.cat([official["ood"], official["test"]])
    scores = gaussian_scores(official["train"], official["train_labels"], queries)
    torch.testing.assert_close(scores, official["ood_score"], rtol=1e-9, atol=0)
    for label, expected in enumerate(official["class_loglik"].T):
        own = official["train_labels"] == label
        one = gaussian_scores(official["train"][own], official["train_labels"][own], queries)
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=0)
    unfamiliar, familiar = scores.split([25, 30])
    assert detection(familiar, unfamiliar)["auroc"] == pytest.approx(official["auroc"].item(), abs=1e-12)


def problem(dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(60) % 3 * 2  # class 1 has no samples
    bank = torch.randn(60, dim, generator=generator, dtype=torch.float64) + targets[:, None]
    return bank, targets, torch.randn(17, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dim", [5, 20, 30, 60])  # each class has 20 samples
def test_gaussians_equal_scikit_learn(dim):
    bank, targets, queries = problem(dim)
    mixtures = [
        GaussianMixture(1, reg_covar=1e-4).fit(normalize(bank[targets == target], dim=1)) for target in (0, 2, 4)
    ]
    expected = np.max([mixture.score_samples(normalize(queries, dim=1)) for mixture in mixtures], axis=0)
    scores = gaussian_scores(bank, targets, queries, regularization=1e-4)
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=1e-9, atol=0)


def test_a_class_of_one_sample_is_a_ball():
    scores = gaussian_scores(torch.eye(3)[:1], torch.tensor([4]), torch.eye(3), regularization=0.5)
    expected = torch.tensor([0.0, -2.0, -2.0]) - 1.5 * np.log(2 * np.pi * 0.5)
    torch.testing.assert_close(scores, expected.double())


@pytest.mark.parametrize("k", [1, 7])
def test_neighbours_equal_scikit_learn(k):
    bank, _, queries = problem(6)
    search = NearestNeighbors(n_neighbors=k).fit(normalize(bank, dim=1))
    distances, _ = search.kneighbors(normalize(queries, dim=1))
    scores = neighbour_scores(bank, queries, k=k)
    torch.testing.assert_close(scores, -torch.from_numpy(distances[:, -1]), rtol=1e-9, atol=0)


def test_cosines_equal_the_loop():
    bank, targets, queries = problem(6)
    expected = []
    for query in normalize(queries, dim=1):
        means = [normalize(bank[targets == target], dim=1).mean(0) for target in (0, 2, 4)]
        expected.append(max((query @ mean / mean.norm()).item() for mean in means))
    scores = cosine_scores(bank, targets, queries)
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [1, 20, 333])
def test_detection_equals_scikit_learn(ties, count):
    generator = torch.Generator().manual_seed(count)
    familiar = 3 * torch.randn(count, generator=generator) - 1000  # log-likelihoods: a sigmoid would make them equal
    unfamiliar = 3 * torch.randn(50, generator=generator) - 1002
    if ties:
        familiar, unfamiliar = familiar.round(), unfamiliar.round()
    truth, scores = [1] * count + [0] * 50, torch.cat([familiar, unfamiliar])
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    result = detection(familiar, unfamiliar)
    assert result["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert result["fpr95"] == pytest.approx(false[true >= 0.95][0], abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, t, q: gaussian_scores(b, t, q, regularization=0.0), "regularization: expected a positive number"),
        (lambda b, t, q: gaussian_scores(b[:0], t[:0], q), "bank: expected at least 1 sample, got 0"),
        (lambda b, t, q: cosine_scores(b, t, q[:, :3]), "one dimension D, got 6 and 3"),
        (lambda b, t, q: cosine_scores(b, t[:3], q), "bank: expected one target for each of 60 features, got 3"),
        (lambda b, t, q: neighbour_scores(b, q, k=61), r"k: expected a number from 1 to 60, .* got 61"),
        (
            lambda b, t, q: neighbour_scores(b, q * torch.nan),
            "queries: expected finite features, got 17 of 17 with NaN",
        ),
        (lambda b, t, q: detection(q[0], q[0] * torch.nan), r"unfamiliar: expected .* got \[6\] with 6 NaN"),
        (lambda b, t, q: detection(q[0, :0], q[0]), r"familiar: expected .* got \[0\]"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(*problem(6))
