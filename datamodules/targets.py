"""Shapes and ranges of targets by target type."""

from typing import Literal

from torch import Tensor

TargetType = Literal["none", "single", "hierarchical", "multilabel"]


def target_shape(target_type: TargetType, num_classes: int, levels: int) -> tuple[int, ...] | None:
    """Shape of one image's target; None if there are no targets.

    Args:
        target_type: "none", "single", "hierarchical" or "multilabel".
        num_classes: number of classes at the finest level.
        levels: number of levels, for "hierarchical".

    Example:
        >>> target_shape("single", 10, 0), target_shape("hierarchical", 100, 2), target_shape("multilabel", 80, 0)
        ((), (2,), (80,))
    """
    shapes: dict[TargetType, tuple[int, ...] | None] = {
        "none": None,
        "single": (),
        "hierarchical": (levels,),
        "multilabel": (num_classes,),
    }
    return shapes[target_type]


def check_targets(part: str, targets: Tensor, target_type: TargetType, class_counts: list[int]) -> None:
    """Raise unless all targets have the shape of ``target_type`` and values in the range of their level.

    Args:
        part: name of the part, for the error.
        targets: ``[N, ...]``, integers; ignored for "none".
        target_type: "none", "single", "hierarchical" or "multilabel".
        class_counts: number of classes at each level; one number unless "hierarchical".

    Raises:
        ValueError: if a shape or a value is wrong.

    Example:
        >>> import torch
        >>> check_targets("train", torch.tensor([0, 3]), "single", [3])
        Traceback (most recent call last):
        ...
        ValueError: train: expected targets from 0 to below [3], got 3; give num_classes=4
    """
    shape = target_shape(target_type, class_counts[0], len(class_counts))
    if shape is None:
        return
    if tuple(targets.shape[1:]) != shape:
        fix = _fix_of_shape(targets)
        raise ValueError(
            f"{part}: expected targets {['N', *shape]} for target_type={target_type!r}, got {list(targets.shape)}; "
            f"{fix}"
        )
    limits = [2] if target_type == "multilabel" else class_counts
    wrong = (targets < 0) | (targets >= targets.new_tensor(limits))
    if wrong.any():
        raise ValueError(
            f"{part}: expected targets from 0 to below {limits}, got {targets[wrong][0].item()}; "
            f"{_fix_of_range(targets, target_type)}"
        )


def _fix_of_shape(targets: Tensor) -> str:
    if targets.ndim == 1:
        return "give target_type='single' for one class per image"
    if targets.ndim == 2:
        return (
            "give target_type='multilabel' for columns of 0 and 1, one per class, or target_type='hierarchical' with "
            "levels= for columns of classes; to use one column alone, give targets[:, 0] and target_type='single'"
        )
    return "give one row per image"


def _fix_of_range(targets: Tensor, target_type: TargetType) -> str:
    if (targets == -1).all():
        return "-1 means that an image has no target; give targets, or target_type='none' with num_classes=0"
    if (targets < 0).any():
        return "leave out the images without a target, or give target_type='none' with num_classes=0 to use no target"
    if target_type == "single":
        return f"give num_classes={int(targets.max()) + 1}"
    if target_type == "multilabel":
        return "give columns of 0 and 1, one per class"
    return "give the names of all classes of each level in levels="
