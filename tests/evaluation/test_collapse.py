import math
from itertools import combinations

import numpy as np
import pytest
import scipy.linalg
import torch

from ssl_modules.evaluation import alignment, feature_std, lidar, rankme, similarity_ratio, uniformity

DTYPES = [torch.float64, torch.float32]


def features(count=30, dim=6, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def unit(x):
    return [row / math.sqrt(sum(value**2 for value in row)) for row in x.double().numpy()]


def slow_rank(spectrum):
    shares = [value / sum(spectrum) + 1e-7 for value in spectrum]
    return math.exp(-sum(share * math.log(share) for share in shares))


@pytest.mark.parametrize("dtype", DTYPES)
def test_feature_std_equals_numpys(dtype):
    x = features().to(dtype)
    assert feature_std(x) == pytest.approx(np.std(unit(x), axis=0, ddof=1).mean(), rel=1e-12)


def test_feature_std_of_features_in_all_directions():
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(x) == pytest.approx(1 / 8, rel=1e-3)


@pytest.mark.parametrize(("count", "dim"), [(30, 6), (6, 30), (8, 8)])
def test_rankme_equals_that_of_numpys_singular_values(count, dim):
    x = features(count, dim)
    assert rankme(x) == pytest.approx(slow_rank(np.linalg.svd(x.numpy(), compute_uv=False)), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_rankme_of_few_directions(rank):
    basis = torch.linalg.qr(features(40, rank)).Q  # [40, rank]: equal singular values
    mixed = basis @ torch.linalg.qr(features(16, rank, seed=1)).Q.T  # [40, 16]
    assert rankme(mixed) == pytest.approx(rank, rel=1e-4)


@pytest.mark.parametrize(("images", "count", "dim"), [(12, 5, 4), (5, 3, 20)])
def test_lidar_equals_the_loops(images, count, dim):
    views = features(images * count, dim).unflatten(0, (images, count))
    means = [view.mean(0).numpy() for view in views]
    mean = sum(means) / images
    between = sum(np.outer(m - mean, m - mean) for m in means) / images
    within = sum(np.outer(v - m, v - m) for m, view in zip(means, views.numpy(), strict=True) for v in view)
    within = within / (images * count) + 1e-2 * np.eye(dim)
    spectrum = np.sort(scipy.linalg.eigh(between, within, eigvals_only=True))[::-1][: min(images, dim)]
    assert lidar(views, regularization=1e-2) == pytest.approx(slow_rank(np.maximum(spectrum, 0)), rel=1e-10)


def test_lidar_does_not_count_what_views_differ_by():
    generator = torch.Generator().manual_seed(0)
    images, views = torch.randn(200, 1, 3, generator=generator), torch.randn(200, 20, 3, generator=generator)
    x = torch.cat([images.expand(-1, 20, -1), views], dim=2)  # 3 dimensions of images and 3 of augmentation
    assert rankme(x.flatten(0, 1)) == pytest.approx(6, rel=0.01)
    assert lidar(x) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_alignment_and_ratio_equal_the_loops(dtype):
    first, second = features().to(dtype), features(seed=1).to(dtype)
    x, y = unit(first), unit(second)
    distances = [sum((a - b) ** 2) for a, b in zip(x, y, strict=True)]
    assert alignment(first, second) == pytest.approx(sum(distances) / 30, rel=1e-12)
    positives = [x[i] @ y[i] for i in range(30)]
    negatives = [x[i] @ y[j] for i in range(30) for j in range(30) if i != j]
    assert np.mean(negatives) > 0
    assert similarity_ratio(first, second) == pytest.approx(np.mean(positives) / np.mean(negatives), rel=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_uniformity_equals_the_loop(scale, chunk_size):
    x = features()
    x[3] = 0
    rows = [*unit(x[:3]), np.zeros(6), *unit(x[4:])]
    kernel = [math.exp(-scale * sum((a - b) ** 2)) for a, b in combinations(rows, 2)]
    assert uniformity(x, scale=scale, chunk_size=chunk_size) == pytest.approx(math.log(np.mean(kernel)), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feature_std(torch.ones(1, 3)), "features: expected at least 2 samples, got 1"),
        (lambda: rankme(torch.full((2, 3), float("nan"))), "features: expected finite features, got 2 of 2 with NaN"),
        (lambda: uniformity(torch.ones(2, 3, 4, 4)), "pool maps to one vector"),
        (lambda: uniformity(torch.ones(2, 3), scale=0.0), "scale: expected a positive number, got 0.0"),
        (lambda: lidar(torch.ones(4, 1, 3)), r"views: expected \[N, V, D\] with V >= 2.* got \[4, 1, 3\]"),
        (lambda: lidar(torch.ones(1, 4, 3)), "views: expected at least 2 samples, got 1"),
        (lambda: lidar(torch.ones(4, 2, 3), regularization=0.0), "regularization: expected a positive number"),
        (lambda: alignment(torch.ones(2, 3), torch.ones(3, 3)), r"one shape \[N, D\].* \[2, 3\] and \[3, 3\]"),
        (
            lambda: similarity_ratio(torch.ones(2, 3), torch.full((2, 3), float("inf"))),
            "second: expected finite features, got 2 of 2",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
