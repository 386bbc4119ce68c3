import pytest
import torch
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from ssl_modules.evaluation import mean_average_precision, top_k_accuracy


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_scikit_learn(k):
    scores = torch.rand(200, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(200) % 8
    assert top_k_accuracy(scores, targets, k) == pytest.approx(
        top_k_accuracy_score(targets, scores, k=k, labels=range(8)), abs=1e-15
    )


def test_equal_scores_go_by_class_index():
    scores = torch.zeros(3, 3)
    targets = torch.arange(3)
    assert [top_k_accuracy(scores, targets, k) for k in (1, 2, 3, 9)] == [1 / 3, 2 / 3, 1.0, 1.0]


@pytest.mark.parametrize(
    ("scores", "targets", "k", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), 1, r"targets: expected .* from 0 to 2, got 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([0]), 1, "scores and targets: expected"),
        (torch.zeros(0, 3), torch.tensor([], dtype=torch.long), 1, "scores and targets: expected"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), 0, "k: expected a number of at least 1, got 0"),
    ],
)
def test_errors_name_the_argument(scores, targets, k, message):
    with pytest.raises(ValueError, match=message):
        top_k_accuracy(scores, targets, k)


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_equals_scikit_learn(ties):
    generator = torch.Generator().manual_seed(0)
    scores = 50 * torch.randn(80, 6, generator=generator) - 100  # a float32 sigmoid would make them equal
    targets = (torch.rand(80, 6, generator=generator) < torch.tensor([0.0, 0.02, 0.1, 0.5, 0.9, 1.0])).long()
    assert targets.sum(0).tolist()[0] == 0
    scores = (scores / 50).round() if ties else scores
    expected = average_precision_score(targets[:, 1:], scores[:, 1:], average="macro")
    assert mean_average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), "at least one 1 in targets, got .* with 0"),
        (torch.zeros(2, 3), torch.ones(2, 2), r"one shape, .* \[2, 3\] and \[2, 2\]"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), r"scores: expected targets \[2, classes\]"),
    ],
)
def test_errors_of_mean_average_precision(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        mean_average_precision(scores, targets)
