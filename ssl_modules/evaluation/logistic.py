"""Linear classification of fixed features by logistic regression."""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_count, check_features, check_labelled, check_multilabel, class_count
from ssl_modules.evaluation.linear import standardized
from ssl_modules.utils.checks import check_number


def logistic_classifier(
    features: Tensor, targets: Tensor, num_classes: int | None = None, *, penalty: float = 1e-3, max_iter: int = 1000
) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier by logistic regression with an L2 penalty.

    Each feature is standardised to mean 0 and variance 1 over the samples; a constant feature becomes 0. On these, it
    minimises ``mean cross-entropy + penalty / 2 * |W|^2``; the bias is not penalised. This equals scikit-learn's
    ``LogisticRegression`` with ``C = 1 / (penalty * N)`` after a ``StandardScaler``. The returned classifier takes raw
    features, because it includes the standardisation. L-BFGS runs in float64 until no entry of the gradient exceeds
    1e-9.

    Args:
        features: ``[N, D]``, N >= 1.
        targets: ``[N]``, class indices.
        num_classes: number of rows of the result; None for the largest target plus one.
        penalty: weight of the L2 penalty, positive.
        max_iter: maximum number of L-BFGS iterations; a warning says if it did not converge.

    Returns:
        ``weight [num_classes, D]`` and ``bias [num_classes]``, float32 or better. The scores of queries are
        ``torch.nn.functional.linear(queries, weight, bias)``, ``[Q, num_classes]``.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets do not fit, or the penalty is not positive.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> weight, bias = logistic_classifier(features, torch.tensor([0, 0, 1, 1]))
        >>> F.linear(torch.tensor([[0.2], [2.9]]), weight, bias).argmax(dim=1)
        tensor([0, 1])
    """
    check_labelled("features", features, targets)
    _check(features, penalty)
    labels, num_classes = targets.long(), class_count(targets, num_classes)
    return _fit(
        features, num_classes, lambda scores: F.cross_entropy(scores, labels.to(scores.device)), penalty, max_iter
    )


def multilabel_logistic_classifier(
    features: Tensor, targets: Tensor, *, penalty: float = 1e-3, max_iter: int = 1000
) -> tuple[Tensor, Tensor]:
    """Fit one binary logistic regression per class, for images with any number of classes.

    Each minimises the mean binary cross-entropy with the penalty of :func:`logistic_classifier`.

    Args:
        features: ``[N, D]``, N >= 1.
        targets: ``[N, classes]`` of 0 and 1.
        penalty: weight of the L2 penalty, positive.
        max_iter: maximum number of L-BFGS iterations; a warning says if it did not converge.

    Returns:
        ``weight [classes, D]`` and ``bias [classes]``, float32 or better; a score above 0 predicts the class.

    Raises:
        ValueError: if features are not finite ``[N, D]``, targets are not 0 and 1 or don't fit, or the penalty is not
            positive.

    Example:
        >>> features = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        >>> weight, bias = multilabel_logistic_classifier(features, (features > 0).long())
        >>> F.linear(features, weight, bias) > 0
        tensor([[False, False],
                [False,  True],
                [ True, False],
                [ True,  True]])
    """
    check_features("features", features)
    check_multilabel("features", features, targets)
    _check(features, penalty)

    def loss(scores: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, targets.to(scores), reduction="sum") / len(scores)

    return _fit(features, targets.shape[1], loss, penalty, max_iter)


def _check(features: Tensor, penalty: float) -> None:
    check_count("features", features)
    check_number("penalty", penalty, above=0)


@torch.inference_mode(False)
@torch.enable_grad()
def _fit(
    features: Tensor, num_classes: int, loss: Callable[[Tensor], Tensor], penalty: float, max_iter: int
) -> tuple[Tensor, Tensor]:
    # In float32, the loss stops changing while the weights still have errors of some percent.
    x = features.to("cpu" if features.device.type == "mps" else features.device, torch.float64)  # mps has no float64
    x, mean, std = standardized(x, torch.finfo(features.dtype).eps)
    weight = x.new_zeros(num_classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=10 * max_iter,  # large enough that only max_iter limits the run
        tolerance_grad=1e-9,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value = loss(F.linear(x, weight, bias)) + penalty / 2 * weight.square().sum()
        weight.grad, bias.grad = torch.autograd.grad(value, [weight, bias])
        return value.detach()

    optimizer.step(closure)
    if optimizer.state[weight]["n_iter"] >= max_iter:
        warnings.warn(f"L-BFGS has not converged in max_iter={max_iter}; raise it, or the penalty", stacklevel=3)
    with torch.no_grad():
        weight = weight / std
        bias = bias - weight @ mean
    dtype = torch.promote_types(features.dtype, torch.float32)
    return weight.to(features.device, dtype), bias.to(features.device, dtype)
