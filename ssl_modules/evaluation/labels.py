"""Numbers the classes from 0: a label is the name of a class and may be an integer of any size."""

import torch
from torch import Tensor


def number_classes(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor, int]:
    """Number the classes of the training labels 0, 1, ..., in ascending order of the label.

    Args:
        train: ``[N]``, labels of the training samples, N >= 1.
        test: ``[Q]``, labels of the test samples.

    Returns:
        The class numbers of the training samples ``[N]`` and of the test samples ``[Q]``, and the number of classes C.
        Test samples of a class without training samples get the number C. They count as wrong, because a classifier
        has no score for class C.

    Example:
        >>> number_classes(torch.tensor([10**12, 7, 7]), torch.tensor([7, 8, 10**12]))
        (tensor([1, 0, 0]), tensor([0, 2, 1]), 2)
    """
    classes, numbers = train.long().unique(return_inverse=True)
    test = test.long().contiguous()  # a column of hierarchical targets is not contiguous
    places = torch.searchsorted(classes, test)
    is_known = classes[places.clamp(max=len(classes) - 1)] == test
    return numbers, torch.where(is_known, places, len(classes)), len(classes)
