"""Evaluation protocols: functions from the labelled features of a training and a test part to metrics.

Each protocol takes :class:`Labelled` features, and its settings as keywords. It returns metrics by name, in [0, 1].
Targets are ``[N]``, one class per sample. A target may be any integer of at least 0, even a large one. A test sample
counts as wrongly classified if its class has no training samples. Some protocols also take multi-label targets
``[N, classes]`` of 0 and 1.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.accuracy import accuracies, mean_average_precision
from ssl_modules.evaluation.checks import check_labelled
from ssl_modules.evaluation.few_labels import balanced_rows, svm_scores
from ssl_modules.evaluation.knn import knn_scores
from ssl_modules.evaluation.labels import number_classes
from ssl_modules.evaluation.linear import ridge_classifier
from ssl_modules.evaluation.logistic import logistic_classifier, multilabel_logistic_classifier
from ssl_modules.evaluation.ood_metrics import OODScore, ood_detection
from ssl_modules.evaluation.retrieval import retrieval
from ssl_modules.evaluation.sgd import SGD_RECIPES, sgd_classifier

LinearFit = Literal["ridge", "logistic", "rince_cifar100", "sce_cifar", "sce_imagenet"]


class Labelled(NamedTuple):
    """Features ``[N, D]`` and targets, ``[N]`` or ``[N, classes]``, of one part of a data set."""

    features: Tensor
    targets: Tensor


def knn_protocol(train: Labelled, test: Labelled, *, k: int = 20, temperature: float | None = 0.07) -> dict[str, float]:
    """Accuracy of k-nearest-neighbour classification; see :func:`~ssl_modules.evaluation.knn_scores`.

    Args:
        train: samples among which the neighbours are searched.
        test: samples to classify.
        k: number of neighbours.
        temperature: temperature of the votes' weights exp(cosine / temperature); None for equal weights.

    Example:
        >>> part = Labelled(torch.eye(3), torch.arange(3))
        >>> knn_protocol(part, part, k=1)
        {'top1': 1.0}
    """
    _check_classes("knn", train, test)
    labels, targets, classes = number_classes(train.targets, test.targets)
    scores = knn_scores(train.features, labels, test.features, classes, k=k, temperature=temperature)
    return accuracies(scores, targets)


def linear_protocol(
    train: Labelled,
    test: Labelled,
    *,
    fit: LinearFit = "ridge",
    ridge_penalty: float = 1e-2,
    logistic_penalty: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of a linear classifier; for multi-label targets, the mAP of one logistic regression per class.

    Args:
        train: samples to fit the classifier on; targets may be multi-label.
        test: samples to classify.
        fit: classifier for one class per sample: "ridge", "logistic", or a key of ``SGD_RECIPES``. See
            :func:`~ssl_modules.evaluation.ridge_classifier`, :func:`~ssl_modules.evaluation.logistic_classifier` and
            :func:`~ssl_modules.evaluation.sgd_classifier`. Multi-label targets always use
            :func:`~ssl_modules.evaluation.multilabel_logistic_classifier`.
        ridge_penalty: penalty of "ridge".
        logistic_penalty: penalty of "logistic" and of the multi-label classifier.
        seed: seed of the order of samples in an SGD recipe.

    Raises:
        ValueError: if ``fit`` is unknown.

    Example:
        >>> part = Labelled(torch.eye(3), torch.arange(3))
        >>> linear_protocol(part, part)
        {'top1': 1.0}
    """
    if test.targets.ndim == 2:
        head = multilabel_logistic_classifier(*train, penalty=logistic_penalty)
        return {"map": mean_average_precision(F.linear(test.features, *head), test.targets)}
    _check_classes("linear", train, test)
    labels, targets, classes = number_classes(train.targets, test.targets)
    if fit == "ridge":
        head = ridge_classifier(train.features, labels, classes, penalty=ridge_penalty)
    elif fit == "logistic":
        head = logistic_classifier(train.features, labels, classes, penalty=logistic_penalty)
    elif fit in SGD_RECIPES:
        head = sgd_classifier(train.features, labels, classes, recipe=SGD_RECIPES[fit], seed=seed)
    else:
        raise ValueError(f"fit: expected ridge, logistic or one of {', '.join(SGD_RECIPES)}, got {fit!r}")
    return accuracies(F.linear(test.features, *head), targets)


def few_label_protocol(
    train: Labelled,
    test: Labelled,
    *,
    shares: Sequence[float] = (0.01, 0.1),
    per_class: Sequence[int] = (),
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, float]:
    """Accuracy of a classifier trained with few labels: mean and standard deviation over random subsets.

    For one class per sample, it is the accuracy of :func:`~ssl_modules.evaluation.logistic_classifier` with its default
    penalty, fitted to the subset's standardised features. For multi-label targets, it is the mAP of
    :func:`~ssl_modules.evaluation.svm_scores`. :func:`~ssl_modules.evaluation.balanced_rows` draws the subsets.

    Args:
        train: samples to draw the subsets from.
        test: samples to classify.
        shares: shares of the samples of each class, each in (0, 1].
        per_class: numbers of samples of each class, each at least 1.
        seeds: seeds of the subsets; one subset is drawn for each.

    Returns:
        Such as ``1%/top1`` and ``1%/top1_std`` for a share of 1 %, and ``5 a class/top1`` for 5 samples per class. With
        one seed, the standard deviation is 0.

    Example:
        >>> part = Labelled(torch.eye(2).repeat(4, 1), torch.arange(2).repeat(4))
        >>> few_label_protocol(part, part, shares=(), per_class=(1,))
        {'1 a class/top1': 1.0, '1 a class/top1_std': 0.0}
    """
    choices: dict[str, tuple[float | None, int | None]] = {f"{100 * share:g}%": (share, None) for share in shares}
    choices |= {f"{count} a class": (None, count) for count in per_class}
    if not choices or not seeds:
        raise ValueError("few-label: give at least one of shares= or per_class=, and one of seeds=")
    results: dict[str, float] = {}
    for name, (share, count) in choices.items():
        runs = []
        for seed in seeds:
            rows = balanced_rows(train.targets, share=share, per_class=count, seed=seed)
            runs.append(_of_few(Labelled(train.features[rows], train.targets[rows]), test))
        for metric in runs[0]:
            values = torch.tensor([run[metric] for run in runs], dtype=torch.float64)
            results[f"{name}/{metric}"] = values.mean().item()
            results[f"{name}/{metric}_std"] = values.std(correction=0).item()
    return results


def retrieval_protocol(
    train: Labelled,
    test: Labelled,
    *,
    gallery: Literal["test", "train"] = "test",
    k: Sequence[int] = (1, 5, 10),
    centre: bool = False,
) -> dict[str, float]:
    """Measure the retrieval of samples of the query's class by cosine; see :func:`~ssl_modules.evaluation.retrieval`.

    Args:
        train: the gallery for ``gallery="train"``.
        test: the queries.
        gallery: the samples to search: "train", or "test" for all other queries.
        k: values of k for recall@k.
        centre: whether to subtract the mean of each part from its features. Retrieval of videos usually does this, with
            ``gallery="train"``.

    Example:
        >>> part = Labelled(torch.eye(2).repeat(2, 1), torch.arange(2).repeat(2))
        >>> retrieval_protocol(part, part, k=(1,))
        {'recall@1': 1.0, 'map': 1.0, 'curve_ap': 0.0}
    """
    _check_classes("retrieval", train, test)
    return retrieval(*test, *(train if gallery == "train" else ()), k=k, centre=centre)


def ood_protocol(
    train: Labelled,
    test: Labelled,
    outliers: Tensor,
    *,
    scores: Sequence[OODScore] = ("gaussian", "neighbours", "cosine"),
    k: int = 50,
) -> dict[str, float]:
    """AUROC and FPR95 of separating test samples from outliers; see :func:`~ssl_modules.evaluation.ood_detection`.

    Args:
        train: labelled in-distribution samples.
        test: other in-distribution samples.
        outliers: ``[M, D]``, features of OOD samples.
        scores: any of "gaussian", "neighbours" and "cosine".
        k: number of the neighbour for the score "neighbours".

    Example:
        >>> part = Labelled(torch.eye(3)[:2].repeat(2, 1), torch.arange(2).repeat(2))
        >>> ood_protocol(part, part, torch.eye(3)[2:], scores=("cosine",))
        {'cosine_auroc': 1.0, 'cosine_fpr95': 0.0}
    """
    _check_classes("ood", train, test)
    return ood_detection(*train, test.features, outliers, scores=scores, k=k)


def _of_few(train: Labelled, test: Labelled) -> dict[str, float]:
    if test.targets.ndim == 2:
        return {"map": mean_average_precision(svm_scores(*train, test.features), test.targets.cpu())}
    _check_classes("few-label", train, test)
    labels, targets, classes = number_classes(train.targets, test.targets)
    head = logistic_classifier(train.features, labels, classes)
    return accuracies(F.linear(test.features, *head), targets)


def _check_classes(protocol: str, train: Labelled, test: Labelled) -> None:
    if test.targets.ndim != 1:
        raise ValueError(
            f"{protocol}: expected one class per sample, targets [N], got {list(test.targets.shape)}; evaluate "
            "multi-label samples by linear and few-label"
        )
    for name, part in (("train", train), ("test", test)):
        check_labelled(f"{protocol}, {name}", *part)
    if bool((train.targets == train.targets[0]).all()):
        raise ValueError(
            f"{protocol}: expected training samples of two or more classes, got only class {train.targets[0]}"
        )
