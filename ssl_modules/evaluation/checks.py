"""Checks of features and targets, shared by all evaluation functions."""

from torch import Tensor


def check_labelled(name: str, features: Tensor, targets: Tensor) -> None:
    """Raise unless ``features`` are finite ``[N, D]`` and ``targets`` are N class indices.

    Args:
        name: name of these samples in the message, such as ``"bank"``.
        features: the vectors.
        targets: their classes, integers ``>= 0``.

    Raises:
        ValueError: if they are not; the message says what was expected and what was given.

    Example:
        >>> import torch
        >>> check_labelled("bank", torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> check_labelled("bank", torch.zeros(2, 3), torch.tensor([0]))
        Traceback (most recent call last):
        ...
        ValueError: bank: expected one target for each of 2 features, got 1
    """
    check_features(name, features)
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise ValueError(
            f"{name}: expected targets [N] of class indices, integers, got {targets.dtype} {list(targets.shape)}"
        )
    if len(features) != len(targets):
        raise ValueError(f"{name}: expected one target for each of {len(features)} features, got {len(targets)}")
    if len(targets) and targets.min() < 0:
        raise ValueError(
            f"{name}: expected targets of at least 0, got {targets.min().item()}; leave out unlabelled samples"
        )


def check_features(name: str, features: Tensor) -> None:
    """Raise unless ``features`` are finite ``[N, D]``.

    Args:
        name: name of these samples in the message.
        features: the vectors.

    Raises:
        ValueError: if they are not; the message says what was expected and what was given.

    Example:
        >>> import torch
        >>> check_features("queries", torch.tensor([[float("nan")]]))
        Traceback (most recent call last):
        ...
        ValueError: queries: expected finite features, got 1 of 1 with NaN or infinity; has the training diverged?
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{name}: expected floating-point vectors [N, D], got {features.dtype} {list(features.shape)}; pool maps "
            "to one vector per sample"
        )
    if features.numel() == 0:
        return
    low, high = features.aminmax(dim=1)  # NaN propagates; needs no second matrix of this size
    broken = ~(low.isfinite() & high.isfinite())
    if broken.any():
        raise ValueError(
            f"{name}: expected finite features, got {int(broken.sum())} of {len(features)} with NaN or infinity; has "
            "the training diverged?"
        )


def check_count(name: str, features: Tensor, least: int = 1) -> None:
    """Raise unless there are at least ``least`` samples.

    Args:
        name: name of these samples in the message.
        features: ``[N, ...]``, one row per sample.
        least: minimum number of samples.

    Raises:
        ValueError: if there are fewer; the message gives both numbers.

    Example:
        >>> import torch
        >>> check_count("features", torch.zeros(1, 3), least=2)
        Traceback (most recent call last):
        ...
        ValueError: features: expected at least 2 samples, got 1
    """
    if len(features) < least:
        raise ValueError(f"{name}: expected at least {least} sample{'s' * (least > 1)}, got {len(features)}")


def check_same_dim(names: str, first: Tensor, second: Tensor) -> None:
    """Raise unless vectors ``[N, D]`` and ``[M, D]`` have the same dimension D.

    Args:
        names: names of the two in the message, such as ``"bank and queries"``.
        first: ``[N, D]``.
        second: ``[M, D]``.

    Raises:
        ValueError: if they differ; the message gives both dimensions.

    Example:
        >>> import torch
        >>> check_same_dim("bank and queries", torch.zeros(1, 3), torch.zeros(1, 2))
        Traceback (most recent call last):
        ...
        ValueError: bank and queries: expected one dimension D, got 3 and 2
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{names}: expected one dimension D, got {first.shape[1]} and {second.shape[1]}")


def check_multilabel(name: str, features: Tensor, targets: Tensor) -> None:
    """Raise unless ``targets`` are 0 or 1 for each class of each sample.

    Args:
        name: name of these samples in the message.
        features: ``[N, ...]``, one row per sample.
        targets: their targets, ``[N, classes]``.

    Raises:
        ValueError: if they are not; the message says what was expected and what was given.

    Example:
        >>> import torch
        >>> check_multilabel("bank", torch.zeros(1, 2), torch.tensor([[0, 2]]))
        Traceback (most recent call last):
        ...
        ValueError: bank: expected targets [1, classes] of 0 and 1, got torch.int64 [1, 2] from 0 to 2
    """
    is_binary = targets.numel() > 0 and bool(((targets == 0) | (targets == 1)).all())
    if targets.ndim != 2 or len(targets) != len(features) or not is_binary:
        span = f" from {targets.min().item()} to {targets.max().item()}" if targets.numel() else ""
        raise ValueError(
            f"{name}: expected targets [{len(features)}, classes] of 0 and 1, got {targets.dtype} "
            f"{list(targets.shape)}{span}"
        )


def class_count(targets: Tensor, num_classes: int | None) -> int:
    """Return ``num_classes``; if it is None, return the largest target plus one, which may be at most a million.

    Raises:
        ValueError: if a target is not below ``num_classes``. If ``num_classes`` is None: if all targets are the same,
            or if one is so large that a column of scores for each class would not fit into memory.

    Example:
        >>> import torch
        >>> class_count(torch.tensor([0, 2]), None)
        3
        >>> class_count(torch.tensor([2, 2]), None)
        Traceback (most recent call last):
        ...
        ValueError: targets: expected two or more classes, got only class 2; give samples of others, or num_classes=
    """
    largest = int(targets.max())
    if num_classes is None:
        if bool((targets == largest).all()):
            raise ValueError(
                f"targets: expected two or more classes, got only class {largest}; give samples of others, or "
                "num_classes="
            )
        if largest >= 1_000_000:
            raise ValueError(
                f"targets: expected class indices below 1,000,000, got {largest}; number the classes, for example by "
                "classes, targets = targets.unique(return_inverse=True), or give num_classes="
            )
        return largest + 1
    if largest >= num_classes:
        raise ValueError(f"num_classes: expected more than every target, got {num_classes} and a target {largest}")
    return num_classes
