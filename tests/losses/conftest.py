"""Fixtures that the tests of several losses share."""

import pytest
import torch


@pytest.fixture
def problem():
    """Return scores and a relation with all kinds of anchors; these losses treat all positive ranks alike."""
    g = torch.Generator().manual_seed(1)
    scores = torch.randn(9, 14, generator=g, dtype=torch.float64)
    relation = torch.randint(-1, 3, (9, 14), generator=g).to(torch.int8)
    relation[2] = relation[2].clamp(max=0)  # an anchor without positives
    relation[5][relation[5] == 0] = 1  # an anchor without negatives
    relation[7] = -1  # an anchor without positives and negatives
    return scores, relation
