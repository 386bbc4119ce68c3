"""Labels may be integers of any size; neither results nor memory depend on their size."""

import re

import pytest
import torch
from strangers import IMAGES, TARGETS, stranger, train_loader, trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import (
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineRetrieval,
    OnlineSGDProbe,
    OutOfDistributionProbe,
)
from ssl_modules.evaluation import balanced_rows, knn_scores, logistic_classifier, ridge_classifier, sgd_classifier
from ssl_modules.evaluation.labels import number_classes
from ssl_modules.evaluation.protocols import (
    Labelled,
    few_label_protocol,
    knn_protocol,
    linear_protocol,
    ood_protocol,
    retrieval_protocol,
)
from ssl_modules.evaluation.sgd import SGDRecipe

NAMES = torch.tensor([0, 5, 1_000, 10**9, 2**31, 10**10, 10**11, 5 * 10**11, 10**12 - 1, 10**12])  # ascending


def data(targets):
    parts = {"train": slice(300), "test": slice(300, 500)}
    return {part: DataLoader(TensorDataset(IMAGES[rows], targets[rows]), batch_size=64) for part, rows in parts.items()}


def probes(targets):
    yield OnlineKNNProbe(**data(targets))
    yield OnlineLinearProbe(**data(targets))
    yield OnlineRetrieval(**data(targets))
    yield OutOfDistributionProbe(**data(targets), outliers=[IMAGES[600:700].flip(2)])


def test_probes_do_not_depend_on_the_size_of_labels():
    for plain, named in zip(probes(TARGETS), probes(NAMES[TARGETS]), strict=True):
        expected = plain.evaluate(nn.Flatten())
        assert named.evaluate(nn.Flatten()) == expected


@pytest.mark.parametrize(
    "protocol",
    [
        knn_protocol,
        retrieval_protocol,
        linear_protocol,
        lambda *parts: linear_protocol(*parts, fit="sce_imagenet"),
        lambda *parts: ood_protocol(*parts, IMAGES[600:700].flatten(1).flip(1)),
    ],
)
def test_protocols_do_not_depend_on_the_size_of_labels(protocol):
    train, test = (Labelled(IMAGES[s].flatten(1), TARGETS[s]) for s in (slice(200), slice(200, 300)))
    named = protocol(*(part._replace(targets=NAMES[part.targets]) for part in (train, test)))
    assert named == protocol(train, test)


def test_few_label_subsets_do_not_depend_on_the_size_of_labels():
    train, test = (Labelled(IMAGES[s].flatten(1), NAMES[TARGETS[s]]) for s in (slice(100), slice(100, 150)))
    rows = balanced_rows(train.targets, per_class=2)
    assert train.targets[rows].unique(return_counts=True)[1].tolist() == [2] * 10
    assert few_label_protocol(train, test, shares=(), per_class=(2,), seeds=(0,))["2 a class/top1"] > 0.3


def test_classes_without_training_samples_count_as_wrong():
    numbers, others, count = number_classes(torch.tensor([3, 10**12, 3]), torch.tensor([0, 3, 4, 10**12, 2 * 10**12]))
    assert numbers.tolist() == [0, 1, 0]
    assert others.tolist() == [2, 0, 2, 1, 2]
    assert count == 2
    targets = TARGETS.clone()
    targets[300:400] = 10**12  # a class without training images
    for probe in (OnlineKNNProbe, OnlineLinearProbe):
        whole, half = (probe(**data(labels)).evaluate(nn.Flatten()) for labels in (TARGETS, targets))
        right = probe(
            train=data(TARGETS)["train"],
            test=DataLoader(TensorDataset(IMAGES[400:500], TARGETS[400:500]), batch_size=64),
        ).evaluate(nn.Flatten())
        assert half.keys() == whole.keys()
        assert all(half[metric] == right[metric] / 2 for metric in half)


@pytest.mark.parametrize(
    "function",
    [
        lambda *given, **options: knn_scores(*given, given[0], k=1, **options),
        ridge_classifier,
        logistic_classifier,
        lambda *given, **options: sgd_classifier(*given, recipe=SGDRecipe(0.1, 8, 1), **options),
    ],
)
def test_functions_of_class_indices_reject_huge_labels_and_say_how_to_number_them(function):
    features, targets = IMAGES[:64].flatten(1), NAMES[TARGETS[:64]]
    with pytest.raises(
        ValueError, match=r"targets: expected class indices below 1,000,000, got 1000000000000"
    ) as error:
        function(features, targets)
    code = re.search(r"classes, targets = (targets\.\S+),", str(error.value))[1]
    classes, targets = eval(code)
    assert torch.equal(classes, NAMES)
    function(features, targets)


def test_the_sgd_probe_rejects_labels_beyond_its_number_of_classes(tmp_path):
    probe = OnlineSGDProbe(**data(NAMES[TARGETS]), num_classes=10)
    with pytest.raises(
        ValueError, match=r"num_classes: expected more than every target, got 10 and .* to 1000000000000"
    ):
        trainer(tmp_path, [probe]).fit(stranger(), train_loader())


def test_pictures_show_the_labels():
    plot = EmbeddingPlot(**data(NAMES[TARGETS])).draw(nn.Flatten())
    assert [points.get_label() for points in plot.axes[0].collections] == [str(name) for name in NAMES.tolist()]
    grid = NeighbourGrid(**data(NAMES[TARGETS]), queries=2, k=3).draw(nn.Flatten())
    shown = {text.get_text().split("\n")[0] for text in grid.axes[0].texts}
    assert shown <= {str(name) for name in NAMES.tolist()}
    assert len(shown) >= 2
    with pytest.raises(
        ValueError, match=r"class_names: expected a name for each label, got 2 names and a label 10{12};"
    ):
        EmbeddingPlot(**data(NAMES[TARGETS]), class_names=["a", "b"]).draw(nn.Flatten())


@pytest.mark.parametrize("keys", [(0, 1), ("image", "label")])
def test_an_error_for_string_labels_shows_a_function_that_numbers_them(keys):
    names = ["cat", "dog"]
    samples = [(image, names[target % 2]) for image, target in zip(IMAGES, TARGETS.tolist(), strict=True)]
    if keys[0] == "image":
        samples = [dict(zip(keys, sample, strict=True)) for sample in samples]
    parts = {"train": samples[:300], "test": samples[300:500]}
    with pytest.raises(ValueError, match="expected targets that are integers, got strings such as 'dog'") as error:
        OnlineKNNProbe(**parts).evaluate(nn.Flatten())
    prepare = eval(re.search(r"prepare=(.*)", str(error.value))[1], {"torch": torch, "names": names})
    assert OnlineKNNProbe(**parts, prepare=prepare).evaluate(nn.Flatten()) == OnlineKNNProbe(
        **data(TARGETS % 2)
    ).evaluate(nn.Flatten())
