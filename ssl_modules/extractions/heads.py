"""Heads, which map an encoder's maps to embeddings."""

from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from ssl_modules.encoders.pooling import pool


class MLP(nn.Sequential):
    """Linear, batch norm, ReLU, ..., linear.

    Layers before a batch norm have no bias, as the norm would remove it.

    Args:
        widths: widths of input, hidden layers and output.
        batch_norm: whether hidden layers have batch norm; without it they have a bias.
        bias: whether the last layer has a bias.

    Shape:
        ``[B, widths[0]]`` to ``[B, widths[-1]]``.

    Raises:
        ValueError: in training, for a single image, if there is a batch norm.

    Example:
        >>> MLP(4, 8, 2, batch_norm=False)
        MLP(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU(inplace=True)
          (2): Linear(in_features=8, out_features=2, bias=False)
        )
    """

    def __init__(self, *widths: int, batch_norm: bool = True, bias: bool = False) -> None:
        *hidden, last = pairwise(widths)
        layers: list[nn.Module] = []
        for i, o in hidden:
            norm = [nn.BatchNorm1d(o)] if batch_norm else []
            layers += [nn.Linear(i, o, bias=not batch_norm), *norm, nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(*last, bias=bias))

    def __getitem__(self, index: Any) -> Any:
        return nn.Sequential(*self)[index]

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1 and any(isinstance(layer, nn.BatchNorm1d) for layer in self):
            raise ValueError(
                "batch: 1 image is too few for batch norm; use a batch size of at least 2 and drop_last=True"
            )
        return super().forward(x)


class PooledMLP(nn.Module):
    """Pools the deepest map and applies an :class:`MLP`.

    Args:
        widths: widths of input, hidden layers and output.
        batch_norm: whether hidden layers have batch norm; without it they have a bias.
        bias: whether the last layer has a bias.

    Shape:
        maps to ``[B, widths[-1]]``.

    Raises:
        ValueError: in training, for a single image, if there is a batch norm.
    """

    def __init__(self, *widths: int, batch_norm: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.mlp = MLP(*widths, batch_norm=batch_norm, bias=bias)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.mlp(pool(maps))


def with_output_norm(projector: nn.Module, width: int, output_norm: bool | Literal["scale"]) -> nn.Module:
    """Return a projector, followed by a batch norm if ``output_norm`` is set.

    Args:
        projector: maps to ``[B, width]``.
        width: width of the projector's output.
        output_norm: False = no batch norm; True = one without parameters; "scale" = one with a scale and no bias.

    Example:
        >>> [name for name, _ in with_output_norm(nn.Identity(), 4, "scale").named_parameters()]
        ['1.weight']
    """
    if not output_norm:
        return projector
    norm = nn.BatchNorm1d(width, affine=output_norm == "scale")
    norm.register_parameter("bias", None)
    return nn.Sequential(projector, norm)
