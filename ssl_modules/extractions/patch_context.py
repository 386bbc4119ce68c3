"""Predicts patches from the patches on one side of them (CPC).

van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, arXiv 1807.03748; Henaff et al.:
Data-Efficient Image Recognition with Contrastive Predictive Coding, ICML 2020, arXiv 1905.09272.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_modules.contrast import Contrast, Paired
from ssl_modules.extractions.base import Extraction, Maps
from ssl_modules.utils.checks import check_number, check_numbers
from ssl_modules.utils.distributed import gather, rank

Direction = Literal["down", "up", "right", "left"]

# Each turns a map [..., rows, cols] so that the predicted patches are below.
_TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "down": lambda m: m,
    "up": lambda m: m.flip(-2),
    "right": lambda m: m.mT,
    "left": lambda m: m.flip(-1).mT,
}


class PatchContext(Extraction):
    """Predicts patches of a grid from the rows above them (CPC).

    At each patch, a network of masked convolutions computes a context of the patch's row and the rows above it. From
    this context a linear predictor makes an anchor for each distance d. Its positive is the target of the patch d rows
    below in the same column. Its negatives are the targets of all other patches of the batch, including the same image,
    of all processes. Targets are a linear map of the patches' vectors. There is one contrast for each direction and
    distance; each direction has its own networks and sees the grid turned. In the papers' grids, patches at distance 1
    overlap, which makes their prediction too easy.

    The loss is the weighted sum over distances of the means over anchors, averaged over directions and views.

    Args:
        out_dim: width of predictions and targets.
        distances: in patches, from an anchor to the predicted patch. The default is for the papers' 7 x 7 patches.
        directions: directions of prediction; ``("down", "up", "right", "left")`` for all four.
        shared_predictor: whether one predictor serves all distances.
        weights: weights of the distances: "unit", or "triangular" for d - 1 at distance d, as in lightning-bolts.
        hidden_dim: channels inside the context network's blocks.
        blocks: number of residual blocks of the context network; each adds one row above, and one column on each side,
            to the receptive field.
        scale: factor of the predictions, which keeps the first scores small.

    Raises:
        ValueError: if an argument is outside its range, the maps are not grids of patches, or a grid is too small for
            the largest distance.

    Example:
        >>> extraction = PatchContext(out_dim=4, distances=[2], hidden_dim=8)
        >>> extraction.build(out_channels=(16,))
        >>> grid = torch.rand(2, 16, 3, 1)  # [N, C, rows, cols]
        >>> [contrast] = extraction([extraction.heads((grid,))], None, torch.arange(2)[:, None], None)
        >>> contrast.relation[:]
        tensor([[0, 0, 1, 0, 0, 0],
                [0, 0, 0, 0, 0, 1]], dtype=torch.int8)
    """

    def __init__(
        self,
        out_dim: int = 64,
        distances: Sequence[int] = (2, 3, 4, 5, 6),
        directions: Sequence[Direction] = ("down",),
        *,
        shared_predictor: bool = False,
        weights: Literal["unit", "triangular"] = "unit",
        hidden_dim: int = 256,
        blocks: int = 5,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (("out_dim", out_dim), ("hidden_dim", hidden_dim), ("blocks", blocks), ("scale", scale)):
            check_number(name, value, above=0)
        least = 1 if weights == "unit" else 2
        check_numbers("distances", distances, least=least)
        if len({*distances}) < len(distances):
            raise ValueError(f"distances: expected different numbers, got {distances}")
        if not directions or len({*directions}) < len(directions):
            raise ValueError(f"directions: expected some of {', '.join(_TURNS)}, each once, got {directions}")
        self.out_dim = out_dim
        self.distances = list(distances)
        self.directions = list(directions)
        self.shared_predictor = shared_predictor
        self.weights = weights
        self.hidden_dim = hidden_dim
        self.blocks = blocks
        self.scale = scale

    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        dim, predictors = out_channels[-1], 1 if self.shared_predictor else len(self.distances)
        self.heads = PatchTargets(dim, self.out_dim)
        self.contexts = nn.ModuleDict(
            {direction: ContextNetwork(dim, self.hidden_dim, self.blocks) for direction in self.directions}
        )
        self.predictors = nn.ModuleDict(
            {direction: nn.Conv2d(dim, predictors * self.out_dim, 1) for direction in self.directions}
        )

    def forward(
        self, student: Sequence[Any], teacher: Sequence[Any] | None, ids: Tensor, generator: torch.Generator | None
    ) -> list[Contrast]:
        weight = 1 / (len(student) * len(self.directions))
        return [c for grid, targets in student for c in self._of_view(grid, targets, weight)]

    def _of_view(self, grid: Tensor, targets: Tensor, weight: float) -> list[Contrast]:
        images, rows, cols = len(grid), *grid.shape[2:]
        candidates = targets.permute(0, 2, 3, 1).flatten(0, 2)  # [N rows cols, D]
        own = rank() * len(candidates) + torch.arange(len(candidates), device=grid.device)
        own = own.view(images, rows, cols)
        candidates = gather(candidates)
        contrasts = []
        for direction in self.directions:
            turn = _TURNS[direction]
            length = rows if direction in ("down", "up") else cols
            if length <= max(self.distances):
                smaller = f"distances below {length}, or " if length > 1 else ""
                raise ValueError(
                    f"distances: in a grid of {rows} x {cols} patches none lies {max(self.distances)} from another in "
                    f'the direction {direction}; use {smaller}an augmentation that cuts more patches, such as "cpc"'
                )
            context = self.contexts[direction](turn(grid))
            predictions = self.scale * self.predictors[direction](context)  # [N, D or distances D, rows, cols]
            parts = predictions.split(self.out_dim, dim=1)
            for i, distance in enumerate(self.distances):
                anchors = parts[0 if self.shared_predictor else i][:, :, :-distance]
                anchors = anchors.permute(0, 2, 3, 1).flatten(0, 2)  # [N (rows - distance) cols, D]
                relation = Paired(turn(own)[:, distance:].flatten(), len(candidates))
                factor = 1 if self.weights == "unit" else distance - 1
                contrasts.append(Contrast(anchors, candidates, relation, weight=factor * weight))
        return contrasts


class PatchTargets(nn.Module):
    """Returns a grid of patches' vectors unchanged, for the context, and a linear map of it, the targets.

    Args:
        in_dim: channels of the grid.
        out_dim: channels of the targets.

    Shape:
        maps with a deepest map ``[B, C, rows, cols]``, to that map and ``[B, D, rows, cols]``.

    Raises:
        ValueError: if the deepest map has not four axes.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.targets = nn.Conv2d(in_dim, out_dim, 1)

    def forward(self, maps: Maps) -> tuple[Tensor, Tensor]:
        grid = maps[-1]
        if grid.ndim != 4:
            raise ValueError(
                f"maps: expected a grid of patches [N, C, rows, cols], got {list(grid.shape)}; take an augmentation "
                'that cuts images into patches, such as "cpc"'
            )
        return grid, self.targets(grid)


class ContextNetwork(nn.Module):
    """Masked convolutions: each location sees its own row and the rows above, but no row below.

    Args:
        dim: channels in and out.
        hidden_dim: channels inside a block.
        blocks: number of residual blocks; each adds one row above, and one column on each side, to the receptive field.

    Shape:
        ``[B, dim, rows, cols]`` to the same shape.

    Example:
        >>> grid = torch.rand(1, 4, 5, 5, requires_grad=True)
        >>> context = ContextNetwork(4, 8, blocks=1)(grid)
        >>> context[0, :, 2, 2].sum().backward()
        >>> grid.grad[0].abs().sum(dim=(0, 2)) > 0  # rows that row 2 sees
        tensor([False,  True,  True, False, False])
    """

    def __init__(self, dim: int, hidden_dim: int = 256, blocks: int = 5) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, hidden_dim, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden_dim, hidden_dim, (1, 3), padding=(0, 1)),
                nn.ZeroPad2d((0, 0, 1, 0)),  # pads a row on top, so that the next layer sees a row and the row above
                nn.Conv2d(hidden_dim, hidden_dim, (2, 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden_dim, dim, 1),
            )
            for _ in range(blocks)
        )

    def forward(self, grid: Tensor) -> Tensor:
        for block in self.blocks:
            grid = grid + block(grid)
        return grid.relu()
