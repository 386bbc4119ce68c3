"""Linear classification of fixed features by logistic regression."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_count, check_features, check_labelled, check_multilabel, class_count
from ssl_modules.evaluation.linear import standardized
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.threads import SMALL, one_thread

TOLERANCE = 1e-9  # largest absolute entry of the gradient at which the fit stops
ROUNDING = 1e-12  # tolerance for the objective: above its rounding errors, and far below any difference that matters

# A link maps scores [N, classes] to three values: the log of the normaliser, [N] or [N, classes]; the probabilities
# [N, classes], which are its gradient; and a function that multiplies a change of the scores by the derivative of the
# probabilities.
Link = Callable[[Tensor], tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]]


def logistic_classifier(
    features: Tensor, targets: Tensor, num_classes: int | None = None, *, penalty: float = 1e-3, max_iter: int = 100
) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier by logistic regression with an L2 penalty.

    Each feature is standardised to mean 0 and variance 1 over the samples; a constant feature becomes 0. On these, it
    minimises ``mean cross-entropy + penalty / 2 * |W|^2``; the bias is not penalised. This equals scikit-learn's
    ``LogisticRegression`` with ``C = 1 / (penalty * N)`` after a ``StandardScaler``. The returned classifier takes raw
    features, because it includes the standardisation.

    The objective is strictly convex in the weights, so exactly one optimum exists. Newton's method finds it in float64,
    and computes each step with conjugate gradients. It stops when no entry of the gradient exceeds 1e-9. Each weight is
    then within ``1e-9 * sqrt(num_classes * (D + 1)) / penalty`` of the optimum.

    Args:
        features: ``[N, D]``, N >= 1.
        targets: ``[N]``, class indices.
        num_classes: number of rows of the result; None for the largest target plus one.
        penalty: weight of the L2 penalty, positive.
        max_iter: maximum number of Newton steps, usually about ten; a warning says if it did not converge.

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
    one_hot = F.one_hot(targets.long(), class_count(targets, num_classes))
    return _fit(features, one_hot, _softmax, penalty, max_iter)


def multilabel_logistic_classifier(
    features: Tensor, targets: Tensor, *, penalty: float = 1e-3, max_iter: int = 100
) -> tuple[Tensor, Tensor]:
    """Fit one binary logistic regression per class, for images with any number of classes.

    Each minimises the mean binary cross-entropy with the penalty of :func:`logistic_classifier`.

    Args:
        features: ``[N, D]``, N >= 1.
        targets: ``[N, classes]`` of 0 and 1.
        penalty: weight of the L2 penalty, positive.
        max_iter: maximum number of Newton steps, usually about ten; a warning says if it did not converge.

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
    return _fit(features, targets, _sigmoid, penalty, max_iter)


def _check(features: Tensor, penalty: float) -> None:
    check_count("features", features)
    check_number("penalty", penalty, above=0)


def _softmax(scores: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    p = scores.softmax(1)
    return scores.logsumexp(1), p, lambda change: p * (change - (p * change).sum(1, keepdim=True))


def _sigmoid(scores: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    p = scores.sigmoid()
    return F.softplus(scores), p, lambda change: p * (1 - p) * change


@torch.no_grad()
def _fit(features: Tensor, targets: Tensor, link: Link, penalty: float, max_iter: int) -> tuple[Tensor, Tensor]:
    # In float32, the loss stops changing while the weights still have errors of some percent.
    x = features.to("cpu" if features.device.type == "mps" else features.device, torch.float64)  # mps has no float64
    x, mean, std = standardized(x, torch.finfo(features.dtype).eps)
    with one_thread(x.numel() * targets.shape[1] < SMALL):
        weight, bias = _minimise(x, targets.to(x), link, penalty, max_iter).split([x.shape[1], 1], dim=1)
    weight = weight / std
    bias = bias[:, 0] - weight @ mean
    dtype = torch.promote_types(features.dtype, torch.float32)
    return weight.to(features.device, dtype), bias.to(features.device, dtype)


def _minimise(x: Tensor, y: Tensor, link: Link, penalty: float, max_iter: int) -> Tensor:
    """Return the parameters ``[classes, D + 1]`` that minimise the objective; the last column is the bias.

    Args:
        x: ``[N, D]``, standardised.
        y: ``[N, classes]`` of 0 and 1.
        link: softmax or sigmoid.
        penalty: weight of the L2 penalty, which does not include the bias.
        max_iter: maximum number of Newton steps.
    """
    penalties = x.new_full((x.shape[1] + 1,), penalty)
    penalties[-1] = 0

    def scores_of(parameters: Tensor) -> Tensor:
        return F.linear(x, parameters[:, :-1], parameters[:, -1])  # [N, classes]

    def gradient_of(residual: Tensor, parameters: Tensor) -> Tensor:
        sums = torch.cat([residual.T @ x, residual.sum(0)[:, None]], dim=1)
        return sums / len(x) + penalties * parameters

    def hessian(derivative: Callable[[Tensor], Tensor], change: Tensor) -> Tensor:
        return gradient_of(derivative(scores_of(change)), change)

    def objective(scores: Tensor, parameters: Tensor) -> Tensor:
        loss = link(scores)[0].sum() - (scores * y).sum()
        return loss / len(x) + (penalties * parameters.square()).sum() / 2

    parameters = x.new_zeros(y.shape[1], x.shape[1] + 1)
    scores = scores_of(parameters)
    for _ in range(max_iter):
        _, p, derivative = link(scores)
        gradient = gradient_of(p - y, parameters)
        if gradient.abs().max() <= TOLERANCE:
            return parameters
        # The mean square of each feature is 1, so this expression approximates the diagonal of the Hessian.
        diagonal = (p * (1 - p)).mean(0)[:, None] + penalty
        step = _solve(partial(hessian, derivative), -gradient, diagonal)
        change, slope, before = scores_of(step), (gradient * step).sum(), objective(scores, parameters)
        size = 1.0
        while objective(scores + size * change, parameters + size * step) > before + 1e-4 * size * slope + ROUNDING:
            size /= 2
        parameters, scores = parameters + size * step, scores + size * change
    warnings.warn(
        f"the logistic regression has not converged in max_iter={max_iter}; raise it, or the penalty", stacklevel=5
    )
    return parameters


def _solve(hessian: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor) -> Tensor:
    """Solve ``hessian(step) = right`` by conjugate gradients; the tolerance shrinks with the norm of ``right``."""
    step, residual = torch.zeros_like(right), right
    scaled = residual / diagonal
    direction, product = scaled, (residual * scaled).sum()
    enough = right.norm() * right.norm().sqrt().clamp(max=0.1)
    for _ in range(right.numel()):  # in exact arithmetic, this many iterations always suffice
        curved = hessian(direction)
        length = product / (direction * curved).sum()
        step, residual = step + length * direction, residual - length * curved
        if residual.norm() <= enough:
            break
        scaled = residual / diagonal
        before, product = product, (residual * scaled).sum()
        direction = scaled + product / before * direction
    return step
