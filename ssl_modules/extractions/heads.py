"""Heads: an encoder's maps to embeddings."""

from itertools import pairwise

from torch import Tensor, nn


def pool(maps: tuple[Tensor, ...]) -> Tensor:
    """The mean of the deepest map over its locations: ``[B, C, ...]`` to ``[B, C]``."""
    return maps[-1].flatten(2).mean(2)


class PooledMLP(nn.Module):
    """The pooled deepest map through an MLP: linear, batch norm, ReLU, ..., linear.

    Layers before a batch norm have no bias, which the norm would remove; neither has the last one.

    Args:
        widths: of input, hidden layers and output.

    Shape:
        maps to ``[B, widths[-1]]``.

    Raises:
        ValueError: for a single image in training, where there is a batch norm.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        *hidden, last = pairwise(widths)
        layers: list[nn.Module] = []
        for i, o in hidden:
            layers += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True)]
        self.mlp = nn.Sequential(*layers, nn.Linear(*last, bias=False))

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        x = pool(maps)
        if self.training and len(x) == 1 and len(self.mlp) > 1:
            raise ValueError(
                "batch: 1 image is too few for batch norm; use a batch size of at least 2 and drop_last=True"
            )
        return self.mlp(x)
