"""What every judge of features checks first."""

from torch import Tensor


def check_labelled(name: str, features: Tensor, targets: Tensor) -> None:
    """Raises unless ``features`` are finite ``[N, D]`` and ``targets`` are N class indices.

    Args:
        name: what the error calls these samples, such as ``"bank"``.
        features: the vectors.
        targets: their classes, integers ``>= 0``.

    Raises:
        ValueError: names the argument, what was received, and what to do.

    Example:
        >>> import torch
        >>> check_labelled("bank", torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> check_labelled("bank", torch.zeros(2, 3), torch.tensor([0]))
        Traceback (most recent call last):
        ...
        ValueError: bank: 2 features but 1 targets; give one target per sample
    """
    check_features(name, features)
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise ValueError(
            f"{name}: targets must be class indices [N], integers, but got {targets.dtype} {list(targets.shape)}"
        )
    if len(features) != len(targets):
        raise ValueError(f"{name}: {len(features)} features but {len(targets)} targets; give one target per sample")
    if len(targets) and targets.min() < 0:
        raise ValueError(f"{name}: targets must be >= 0, but got {targets.min().item()}; leave out unlabelled samples")


def check_features(name: str, features: Tensor) -> None:
    """Raises unless ``features`` are finite ``[N, D]``.

    Args:
        name: what the error calls these samples.
        features: the vectors.

    Raises:
        ValueError: names the argument, what was received, and what to do.

    Example:
        >>> import torch
        >>> check_features("queries", torch.tensor([[float("nan")]]))
        Traceback (most recent call last):
        ...
        ValueError: queries: 1 of 1 features hold NaN or infinity; has the training diverged?
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{name}: features must be floating-point vectors [N, D], but got {features.dtype} "
            f"{list(features.shape)}; pool maps to one vector per sample"
        )
    if features.numel() == 0:
        return
    low, high = features.aminmax(dim=1)  # NaN if any is; no second matrix of the features' size
    broken = ~(low.isfinite() & high.isfinite())
    if broken.any():
        raise ValueError(
            f"{name}: {int(broken.sum())} of {len(features)} features hold NaN or infinity; has the training diverged?"
        )


def check_multilabel(name: str, features: Tensor, targets: Tensor) -> None:
    """Raises unless ``targets`` are 0 and 1 for each class of each sample.

    Args:
        name: what the error calls these samples.
        features: ``[N, ...]``, a row a sample.
        targets: their classes.

    Raises:
        ValueError: names the argument, what was received, and what to do.

    Example:
        >>> import torch
        >>> check_multilabel("bank", torch.zeros(1, 2), torch.tensor([[0, 2]]))
        Traceback (most recent call last):
        ...
        ValueError: bank: targets must be [1, classes] of 0 and 1, but got torch.int64 [1, 2] from 0 to 2
    """
    is_binary = targets.numel() > 0 and bool(((targets == 0) | (targets == 1)).all())
    if targets.ndim != 2 or len(targets) != len(features) or not is_binary:
        span = f" from {targets.min().item()} to {targets.max().item()}" if targets.numel() else ""
        raise ValueError(
            f"{name}: targets must be [{len(features)}, classes] of 0 and 1, but got {targets.dtype} "
            f"{list(targets.shape)}{span}"
        )


def class_count(targets: Tensor, num_classes: int | None) -> int:
    """``num_classes``, or where it is None the largest target plus one.

    Raises:
        ValueError: if a target has no place among ``num_classes``, or where it is None all targets are the same.

    Example:
        >>> import torch
        >>> class_count(torch.tensor([0, 2]), None)
        3
        >>> class_count(torch.tensor([2, 2]), None)
        Traceback (most recent call last):
        ...
        ValueError: targets must be of more classes than one, but all 2 are 2; give samples of others, or num_classes=
    """
    largest = int(targets.max())
    if num_classes is None:
        if bool((targets == largest).all()):
            raise ValueError(
                f"targets must be of more classes than one, but all {len(targets)} are {largest}; give samples of "
                "others, or num_classes="
            )
        return largest + 1
    if largest >= num_classes:
        raise ValueError(f"num_classes must exceed every target, but got {num_classes} and a target {largest}")
    return num_classes
