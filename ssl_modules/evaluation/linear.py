"""Linear classification of fixed features by ridge regression."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_count, check_labelled, class_count
from ssl_modules.utils.checks import check_number


@torch.no_grad()
def ridge_classifier(
    features: Tensor, targets: Tensor, num_classes: int | None = None, *, penalty: float = 1e-2
) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier to one-hot targets by ridge regression, in closed form.

    Each feature is standardised to mean 0 and variance 1 over the samples; a constant feature becomes 0. For these x
    and one-hot y, it minimises ``mean |W x + b - y|^2 + penalty * |W|^2``; the bias b is not penalised. This equals
    scikit-learn's ``Ridge`` with ``alpha = penalty * N`` after a ``StandardScaler``. The returned classifier takes raw
    features, because it includes the standardisation. The solution is computed in float64 from a Cholesky factor of the
    smaller of [D, D] and [N, N], and is the same in each run.

    Args:
        features: ``[N, D]``.
        targets: ``[N]``, class indices.
        num_classes: number of rows of the result; None for the largest target plus one.
        penalty: weight of the ridge penalty, positive.

    Returns:
        ``weight [num_classes, D]`` and ``bias [num_classes]``, float32 or better. The scores of queries are
        ``torch.nn.functional.linear(queries, weight, bias)``, ``[Q, num_classes]``.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets do not fit, or the penalty is not positive.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> weight, bias = ridge_classifier(features, torch.tensor([0, 0, 1, 1]))
        >>> F.linear(torch.tensor([[0.2], [2.9]]), weight, bias).argmax(dim=1)
        tensor([0, 1])
    """
    check_labelled("features", features, targets)
    check_count("features", features)
    check_number("penalty", penalty, above=0)
    num_classes = class_count(targets, num_classes)

    count, dim = features.shape
    x = features.to("cpu" if features.device.type == "mps" else features.device, torch.float64)  # mps has no float64
    y = F.one_hot(targets.to(x.device).long(), num_classes).to(x.dtype)  # [N, classes]
    y_mean = y.mean(dim=0)
    x, x_mean, x_std = standardized(x, torch.finfo(features.dtype).eps)
    y = y - y_mean

    ridge = penalty * count
    if dim <= count:
        weight = torch.cholesky_solve(x.T @ y, _factor(x.T @ x, ridge))  # [D, classes]
    else:
        weight = x.T @ torch.cholesky_solve(y, _factor(x @ x.T, ridge))  # [D, classes]
    weight = weight.T / x_std
    bias = y_mean - weight @ x_mean
    dtype = torch.promote_types(features.dtype, torch.float32)
    return weight.to(features.device, dtype), bias.to(features.device, dtype)


def standardized(x: Tensor, precision: float) -> tuple[Tensor, Tensor, Tensor]:
    """Standardise features to mean 0 and variance 1 over the samples; return also their mean and standard deviation.

    Args:
        x: ``[N, D]``, N >= 1.
        precision: relative precision of the numbers. A feature is constant if its standard deviation, relative to its
            mean, is at most this; it becomes 0.

    Returns:
        Standardised features ``[N, D]``, mean ``[D]`` and standard deviation ``[D]``; for a constant feature it is 1.

    Example:
        >>> standardized(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), precision=1e-7)[0]
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    # A constant feature differs from its mean by rounding errors, which must not be scaled to variance 1.
    std[std <= mean.abs() * precision] = 1
    return (x - mean) / std, mean, std


def _factor(gram: Tensor, ridge: float) -> Tensor:
    gram.diagonal().add_(ridge)
    return torch.linalg.cholesky(gram)
