import warnings

import pytest
import torch

from ssl_modules.evaluation.labels import number_classes


@pytest.fixture
def each_warning():
    """Let torch give a warning each time, not only the first time in a process."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_a_column_of_hierarchical_labels_gives_no_warning(each_warning):
    targets = torch.tensor([[7, 0], [3, 1], [7, 1], [5, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test, count = number_classes(targets[:3, 0], targets[:, 0])
    assert (train.tolist(), test.tolist(), count) == ([1, 0, 1], [1, 0, 1, 2], 2)
