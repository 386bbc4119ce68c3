import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from ssl_modules.evaluation import balanced_rows, mean_average_precision, svm_scores

TARGETS = torch.tensor([0] * 200 + [1] * 37 + [3] * 3)


@pytest.mark.parametrize(("share", "counts"), [(0.01, [2, 1, 1]), (0.1, [20, 4, 1]), (1.0, [200, 37, 3])])
def test_a_share_of_each_class(share, counts):
    rows = balanced_rows(TARGETS, share=share)
    assert TARGETS[rows].bincount().tolist() == [*counts[:2], 0, counts[2]]
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_choices_are_random_repeatable_and_nested():
    targets = torch.zeros(1000, dtype=torch.long)
    few, same, more = (balanced_rows(targets, per_class=n) for n in (100, 100, 200))
    assert torch.equal(few, same)
    assert set(few.tolist()) < set(more.tolist())
    assert 400 < few.double().mean() < 600  # not just the first rows; 500 +- 3.5 standard errors
    assert not torch.equal(few, balanced_rows(targets, per_class=100, seed=1))


def test_each_of_several_labels_chooses():
    targets = torch.zeros(60, 3, dtype=torch.long)
    targets[:30, 0] = targets[20:50, 1] = 1  # class 2 has no samples; ten rows have no class
    for seed in range(5):
        rows = balanced_rows(targets, per_class=7, seed=seed)
        counts = targets[rows].sum(0)
        assert counts[:2].min() >= 7
        assert 7 <= len(rows) <= 14
        assert rows.max() < 50


@pytest.mark.parametrize("per_class", [3, 20])
def test_few_shot_support_vectors_equal_scikit_learn(per_class):
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    targets = F.one_hot(labels)
    rows = balanced_rows(labels, per_class=per_class)
    scores = svm_scores(images[rows].float(), targets[rows], images[1000:].float(), cost=2.0)

    machine = OneVsRestClassifier(LinearSVC(C=2.0, class_weight={0: 1, 1: 2}, tol=1e-8, max_iter=100_000))
    machine.fit(normalize(images[rows].numpy()), targets[rows].numpy())
    expected = machine.decision_function(normalize(images[1000:].numpy()))
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=0, atol=1e-3)  # liblinear's tol is 1e-4
    precision = average_precision_score(targets[1000:], expected)
    assert mean_average_precision(scores, targets[1000:]) == pytest.approx(precision, abs=1e-4)


def test_a_class_without_two_kinds_of_samples_scores_nothing():
    scores = svm_scores(torch.eye(3), torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0]]), torch.eye(3))
    assert scores[:, [0, 2]].tolist() == [[0, 0]] * 3
    assert (scores[:, 1] > 0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced_rows(TARGETS), "share and per_class: expected one of the two, got None and None"),
        (lambda: balanced_rows(TARGETS, share=0.1, per_class=3), "got 0.1 and 3"),
        (lambda: balanced_rows(TARGETS, share=1.5), "share: expected a number in .0, 1., got 1.5"),
        (lambda: balanced_rows(TARGETS, per_class=0), "per_class: expected a number of at least 1, got 0"),
        (lambda: balanced_rows(TARGETS, per_class=4), "per_class: expected at most 3, the samples of class 3, got 4"),
        (lambda: svm_scores(torch.eye(2), torch.eye(2), torch.eye(2), cost=0.0), "cost: expected a positive number"),
        (lambda: svm_scores(torch.eye(2), torch.tensor([0, 1]), torch.eye(2)), "features: expected targets"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
