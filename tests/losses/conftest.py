"""Fixtures that the tests of several losses share."""

import pytest
import torch


@pytest.fixture
def draw():
    """Return a function that draws scores and a relation of nine anchors, with ranks from -1 to ``farthest``."""

    def drawn(candidates, farthest):
        g = torch.Generator().manual_seed(1)
        scores = torch.randn(9, candidates, generator=g, dtype=torch.float64)
        return scores, torch.randint(-1, farthest + 1, (9, candidates), generator=g).to(torch.int8)

    return drawn


@pytest.fixture
def problem(draw):
    """Return scores and a relation with all kinds of anchors; these losses treat all positive ranks alike."""
    scores, relation = draw(14, farthest=2)
    relation[2] = relation[2].clamp(max=0)  # an anchor without positives
    relation[5][relation[5] == 0] = 1  # an anchor without negatives
    relation[7] = -1  # an anchor without positives and negatives
    return scores, relation
