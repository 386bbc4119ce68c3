import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.evaluation import SGD_RECIPES, balanced_rows, cosine_scores, detection, retrieval, sgd_classifier
from ssl_modules.evaluation.protocols import (
    Labelled,
    few_label_protocol,
    knn_protocol,
    linear_protocol,
    ood_protocol,
    retrieval_protocol,
)


def digits(part):
    return Labelled(part.images.flatten(1).double() / 255, part.targets)


@pytest.fixture(scope="module")
def parts():
    data = DigitsDataModule()
    data.setup()
    return digits(data.train_set), digits(data.test_set)


def accuracy(classifier, train, test):
    return classifier.fit(*(x.numpy() for x in train)).score(*(x.numpy() for x in test))


def several(part):
    """Replace the targets by two labels: even, and larger than 4."""
    return Labelled(part.features, torch.stack([part.targets % 2 == 0, part.targets > 4], dim=1).long())


def mean_ap(scores, targets):
    return average_precision_score(targets.numpy(), scores, average="macro")


@pytest.mark.parametrize("temperature", [None, 0.07])
def test_knn(parts, temperature):
    weights = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    sklearn = KNeighborsClassifier(15, metric="cosine", algorithm="brute", weights=weights)
    assert knn_protocol(*parts, k=15, temperature=temperature)["top1"] == pytest.approx(accuracy(sklearn, *parts))


def test_linear_by_ridge_and_logistic_regression(parts):
    train, _ = parts
    ridge = make_pipeline(StandardScaler(), RidgeClassifier(alpha=0.1 * len(train.targets)))
    assert linear_protocol(*parts, ridge_penalty=0.1)["top1"] == pytest.approx(accuracy(ridge, *parts))
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.01 * len(train.targets)), max_iter=1000))
    assert linear_protocol(*parts, fit="logistic", logistic_penalty=0.01)["top1"] == pytest.approx(
        accuracy(logistic, *parts)
    )


def test_linear_by_a_recipe(parts):
    train, test = parts
    weight, bias = sgd_classifier(*train, 10, recipe=SGD_RECIPES["sce_cifar"], seed=3)
    guesses = (test.features @ weight.double().T + bias).argmax(dim=1)
    expected = (guesses == test.targets).double().mean().item()
    assert linear_protocol(*parts, fit="sce_cifar", seed=3)["top1"] == pytest.approx(expected)


def test_linear_for_several_labels(parts):
    train, test = map(several, parts)
    scaler = StandardScaler().fit(train.features)
    x, queries = scaler.transform(train.features), scaler.transform(test.features)
    C = 1 / (0.01 * len(x))
    models = [LogisticRegression(C=C, tol=1e-9, max_iter=1000).fit(x, y) for y in train.targets.T.numpy()]
    scores = torch.stack([torch.from_numpy(model.decision_function(queries)) for model in models], dim=1)
    assert linear_protocol(train, test, logistic_penalty=0.01) == {
        "map": pytest.approx(mean_ap(scores, test.targets), abs=1e-6)
    }


def test_few_labels_of_one_class_a_sample(parts):
    train, test = parts
    runs = []
    for seed in (0, 1, 2):
        rows = balanced_rows(train.targets, per_class=5, seed=seed)
        few = Labelled(train.features[rows], train.targets[rows])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (1e-3 * 50), tol=1e-8, max_iter=1000))
        runs.append(accuracy(model, few, test))
    found = few_label_protocol(*parts, shares=(), per_class=(5,))
    assert found["5 a class/top1"] == pytest.approx(sum(runs) / 3)
    assert found["5 a class/top1_std"] == pytest.approx(
        torch.tensor(runs, dtype=torch.float64).std(correction=0).item()
    )


def test_few_labels_of_several_classes_a_sample(parts):
    train, test = map(several, parts)
    rows = balanced_rows(train.targets, share=0.05, seed=0)
    x, queries = (torch.nn.functional.normalize(f).numpy() for f in (train.features[rows], test.features))
    models = [LinearSVC(C=0.5, class_weight={1: 2}, max_iter=2000).fit(x, y) for y in train.targets[rows].T.numpy()]
    scores = torch.stack([torch.from_numpy(model.decision_function(queries)) for model in models], dim=1)
    found = few_label_protocol(train, test, shares=(0.05,), seeds=(0,))
    assert found == {"5%/map": pytest.approx(mean_ap(scores, test.targets), abs=1e-3), "5%/map_std": 0.0}


def test_retrieval_among_the_test_part_or_in_the_training_part(parts):
    train, test = parts
    assert retrieval_protocol(*parts) == retrieval(*test, k=(1, 5, 10))
    assert retrieval_protocol(*parts, gallery="train", k=(3,)) == retrieval(*test, *train, k=(3,))


def test_ood(parts):
    train, test = parts
    zeros = test.targets == 0
    others = Labelled(train.features[train.targets > 0], train.targets[train.targets > 0])
    familiar = Labelled(test.features[~zeros], test.targets[~zeros])
    expected = detection(*(cosine_scores(*others, x) for x in (familiar.features, test.features[zeros])))
    found = ood_protocol(others, familiar, test.features[zeros], scores=("cosine",))
    assert found == {f"cosine_{name}": pytest.approx(value) for name, value in expected.items()}


@pytest.mark.parametrize("protocol", [knn_protocol, retrieval_protocol], ids=["knn", "retrieval"])
def test_several_labels_where_one_is_needed(parts, protocol):
    with pytest.raises(ValueError, match=r"expected one class per sample, targets \[N\], got \[360, 2\]"):
        protocol(*map(several, parts))


def test_nothing_to_choose(parts):
    with pytest.raises(ValueError, match="few-label: give at least one of shares= or per_class="):
        few_label_protocol(*parts, shares=())


def test_an_unknown_fit(parts):
    with pytest.raises(ValueError, match="fit: expected ridge, logistic or one of rince_cifar100"):
        linear_protocol(*parts, fit="lasso")
