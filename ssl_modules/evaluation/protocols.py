"""Evaluation protocols: labelled features of a training part and a test part to metrics.

Each takes :class:`Labelled` features and its own settings by keyword, and returns metrics by name, in [0, 1]. Targets
``[N]`` are one class a sample; where targets ``[N, classes]`` of 0 and 1 are taken as well, the protocol says so.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.accuracy import accuracies, mean_average_precision
from ssl_modules.evaluation.checks import class_count
from ssl_modules.evaluation.few_labels import balanced_rows, svm_scores
from ssl_modules.evaluation.knn import knn_scores
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
    """Accuracy of the nearest neighbours' vote; see :func:`~ssl_modules.evaluation.knn_scores`.

    Args:
        train: what the neighbours are of.
        test: what is judged.
        k: number of neighbours.
        temperature: of the votes' weights exp(cosine / temperature); None for equal votes.

    Example:
        >>> part = Labelled(torch.eye(3), torch.arange(3))
        >>> knn_protocol(part, part, k=1)
        {'top1': 1.0}
    """
    classes = _class_count("knn", train, test)
    return accuracies(knn_scores(*train, test.features, classes, k=k, temperature=temperature), test.targets)


def linear_protocol(
    train: Labelled,
    test: Labelled,
    *,
    fit: LinearFit = "ridge",
    ridge_penalty: float = 1e-2,
    logistic_penalty: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of a linear classifier; for several labels a sample, mean average precision of logistic regressions.

    Args:
        train: what the classifier is fitted on; targets may be of several labels.
        test: what is judged.
        fit: of one class a sample: "ridge", "logistic", or a key of ``SGD_RECIPES``. See
            :func:`~ssl_modules.evaluation.ridge_classifier`, :func:`~ssl_modules.evaluation.logistic_classifier`,
            :func:`~ssl_modules.evaluation.sgd_classifier`, and for several labels
            :func:`~ssl_modules.evaluation.multilabel_logistic_classifier`.
        ridge_penalty: of "ridge".
        logistic_penalty: of "logistic" and of several labels.
        seed: of the order of samples in a recipe.

    Raises:
        ValueError: for an unknown fit.

    Example:
        >>> part = Labelled(torch.eye(3), torch.arange(3))
        >>> linear_protocol(part, part)
        {'top1': 1.0}
    """
    if test.targets.ndim == 2:
        head = multilabel_logistic_classifier(*train, penalty=logistic_penalty)
        return {"map": mean_average_precision(F.linear(test.features, *head), test.targets)}
    classes = _class_count("linear", train, test)
    if fit == "ridge":
        head = ridge_classifier(*train, classes, penalty=ridge_penalty)
    elif fit == "logistic":
        head = logistic_classifier(*train, classes, penalty=logistic_penalty)
    elif fit in SGD_RECIPES:
        head = sgd_classifier(*train, classes, recipe=SGD_RECIPES[fit], seed=seed)
    else:
        raise ValueError(f"fit: expected ridge, logistic or one of {', '.join(SGD_RECIPES)}, got {fit!r}")
    return accuracies(F.linear(test.features, *head), test.targets)


def few_label_protocol(
    train: Labelled,
    test: Labelled,
    *,
    shares: Sequence[float] = (0.01, 0.1),
    per_class: Sequence[int] = (),
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, float]:
    """What few labels are enough for: mean and standard deviation over choices of them.

    One label a sample: accuracy of :func:`~ssl_modules.evaluation.logistic_classifier`. Several: mean average precision
    of :func:`~ssl_modules.evaluation.svm_scores`. The choices are those of
    :func:`~ssl_modules.evaluation.balanced_rows`.

    Args:
        train: what labels are chosen of.
        test: what is judged.
        shares: of each class.
        per_class: numbers of samples of each class.
        seeds: of the choices.

    Returns:
        For a share of 1 % ``1%/top1`` and ``1%/top1_std``, for 5 samples a class ``5 a class/top1``, and so on. With
        one seed the deviation is 0.

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
    train: Labelled, test: Labelled, *, gallery: Literal["test", "train"] = "test", k: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Retrieval by cosine of samples of the query's class; see :func:`~ssl_modules.evaluation.retrieval`.

    Args:
        train: the gallery, if that is "train".
        test: the queries.
        gallery: what is searched: "test", all other queries, or "train".
        k: numbers of samples that count as first.

    Example:
        >>> part = Labelled(torch.eye(2).repeat(2, 1), torch.arange(2).repeat(2))
        >>> retrieval_protocol(part, part, k=(1,))
        {'recall@1': 1.0, 'map': 1.0, 'curve_ap': 0.0}
    """
    _class_count("retrieval", train, test)
    return retrieval(*test, *(train if gallery == "train" else ()), k=k)


def ood_protocol(
    train: Labelled,
    test: Labelled,
    outliers: Tensor,
    *,
    scores: Sequence[OODScore] = ("gaussian", "neighbours", "cosine"),
    k: int = 50,
) -> dict[str, float]:
    """How well test samples are separated from outliers; see :func:`~ssl_modules.evaluation.ood_detection`.

    Args:
        train: what is familiar.
        test: samples like it.
        outliers: ``[M, D]``, features of others.
        scores: of familiarity.
        k: number of neighbours of "neighbours".

    Example:
        >>> part = Labelled(torch.eye(3)[:2].repeat(2, 1), torch.arange(2).repeat(2))
        >>> ood_protocol(part, part, torch.eye(3)[2:], scores=("cosine",))
        {'cosine_auroc': 1.0, 'cosine_fpr95': 0.0}
    """
    _class_count("ood", train, test)
    return ood_detection(*train, test.features, outliers, scores=scores, k=k)


def _of_few(train: Labelled, test: Labelled) -> dict[str, float]:
    if test.targets.ndim == 2:
        return {"map": mean_average_precision(svm_scores(*train, test.features), test.targets.cpu())}
    head = logistic_classifier(*train, _class_count("few-label", train, test))
    return accuracies(F.linear(test.features, *head), test.targets)


def _class_count(protocol: str, train: Labelled, test: Labelled) -> int:
    if test.targets.ndim != 1:
        raise ValueError(
            f"{protocol}: expected one class a sample, targets [N], got {list(test.targets.shape)}; judge samples of "
            "several labels by linear and few-label"
        )
    return max(class_count(train.targets, None), int(test.targets.max()) + 1)
