"""Compares vectors of one view with all locations of another view's maps (AMDIM, YADIM).

Bachman, Hjelm, Buchwalter: Learning Representations by Maximizing Mutual Information Across Views, arXiv 1906.00910.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_modules.contrast import Contrast, Relation
from ssl_modules.extractions.base import Extraction, Maps, at_least_two
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.distributed import gather, rank, world_size

Strategy = Literal["last", "multi-pair", "same-map", "random"]

_OUT_DIM = 512
_STRATEGIES: dict[str, tuple[tuple[int, int], ...]] = {
    "last": ((-1, -1),),
    "multi-pair": ((-1, -2), (-1, -3), (-2, -2)),
    "same-map": ((-1, -1), (-2, -2), (-3, -3)),
    "random": ((-1, -1), (-1, -2), (-1, -3)),
}


class LocalMaps(Extraction):
    """Compares pairs of maps. Anchors are vectors of a source map, candidates are all locations of a target map.

    For each pair of maps and each ordered pair of views, each image has one anchor from its source map. Its positives
    are all locations of the other view's target map. Its negatives are all locations of that map for all other images,
    of all processes. Each compared map has its own head, which projects it to a common dimension. A head is a residual
    unit, applied at each location, and a batch norm. The loss of a pair of maps is the mean over the ordered pairs of
    views.

    These names stand for pairs of a source map and a target map. -1 is the deepest map:

    - "last": -1 -> -1 (YADIM);
    - "multi-pair": -1 -> -2, -1 -> -3 and -2 -> -2 (AMDIM);
    - "same-map": -1 -> -1, -2 -> -2 and -3 -> -3;
    - "random": one of -1 -> -1, -1 -> -2 and -1 -> -3, drawn at each step.

    Maps may have any number of spatial axes, and may be grids of patches. The first process samples the random numbers
    for all processes, so that a run doesn't depend on the number of processes. With "random", a step doesn't use all
    heads. To train in several processes, use ``Trainer(strategy="ddp_find_unused_parameters_true")``.

    Args:
        pairs: one of the names above, or pairs of indices into the encoder's maps, shallow to deep. Negative indices
            count from the deepest map.
        out_dim: width of the embedding. None = the channels of the deepest map, which then has no head. "auto" = None
            for an encoder that normalises its deepest map, as AMDIM's does, and 512 for any other encoder.
        source: how to choose the anchor if the source map has several locations: "random" draws one per image at each
            step, "pooled" takes the mean over all.

    Raises:
        ValueError: if an argument is out of range, an index has no map, no pair has the deepest map, or there is only
            one view or one image.

    Example:
        >>> extraction = LocalMaps([(-1, -2)], out_dim=8)
        >>> extraction.build(out_channels=(16, 32))
        >>> views = [extraction.heads((torch.rand(2, 16, 1, 3), torch.rand(2, 32, 1, 1))) for _ in range(2)]
        >>> first, second = extraction(views, None, torch.arange(2)[:, None], None)
        >>> first.relation[:]
        tensor([[1, 1, 1, 0, 0, 0],
                [0, 0, 0, 1, 1, 1]], dtype=torch.int8)
        >>> first.weight
        0.5
    """

    def __init__(
        self,
        pairs: Strategy | Sequence[tuple[int, int]] = "multi-pair",
        out_dim: int | Literal["auto"] | None = "auto",
        source: Literal["random", "pooled"] = "random",
    ) -> None:
        super().__init__()
        if not pairs:
            raise ValueError(f"pairs: expected at least one pair of map indices, got {pairs!r}")
        if isinstance(out_dim, int):
            check_number("out_dim", out_dim, above=0, fix="or give 'auto' or None")
        self.pairs = pairs
        self.out_dim = out_dim
        self.source = source

    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        pairs = _STRATEGIES[self.pairs] if isinstance(self.pairs, str) else self.pairs
        maps = len(out_channels)
        for index in (index for pair in pairs for index in pair):
            if not -maps <= index < maps:
                raise ValueError(
                    f"pairs: there is no map {index}, because the encoder gives {maps} maps: 0 to {maps - 1}, shallow "
                    f"to deep, or {-maps} to -1; give pairs of these numbers, such as pairs=[(-1, -1)]"
                )
        self._pairs = [(source % maps, target % maps) for source, target in pairs]
        used = sorted({index for pair in self._pairs for index in pair})
        if used[-1] != maps - 1:
            raise ValueError(
                f"pairs: none of {pairs} has the deepest map, -1, which is the representation and would learn nothing"
            )
        out_dim = (None if normalised else _OUT_DIM) if self.out_dim == "auto" else self.out_dim
        heads: dict[int, nn.Module] = {i: ResidualHead(out_channels[i], out_dim or out_channels[-1]) for i in used}
        if out_dim is None:
            heads[maps - 1] = nn.Identity()
        self.heads = LocalHeads(heads)

    def student_views(self, views: int) -> Sequence[int]:
        """Indices of the student's views: all."""
        return at_least_two(views)

    def forward(
        self, student: Sequence[Any], teacher: Sequence[Any] | None, ids: Tensor, generator: torch.Generator | None
    ) -> list[Contrast]:
        views, images = len(self.student_views(len(student))), len(ids)
        if images * world_size() < 2:
            raise ValueError(
                f"batch: {images} image has no negatives; use a batch size of at least 2 and drop_last=True"
            )
        pairs = self._pairs
        if self.pairs == "random":
            pairs = [pairs[_agreed(torch.randint(len(pairs), (), generator=generator, device=ids.device))]]
        sources, targets = (sorted(set(side)) for side in zip(*pairs, strict=True))
        anchors = {(u, i): self._anchors(student[u][i], generator) for u in range(views) for i in sources}
        candidates = {(v, j): gather(student[v][j].flatten(0, 1)) for v in range(views) for j in targets}  # [N L, D]
        all_ids = gather(ids)
        directions = list(permutations(range(views), 2))
        contrasts = []
        for i, j in pairs:
            for u, v in directions:
                locations = student[v][j].shape[1]
                relation = Relation(ids, all_ids.repeat_interleave(locations, dim=0))
                contrasts.append(Contrast(anchors[u, i], candidates[v, j], relation, weight=1 / len(directions)))
        return contrasts

    def _anchors(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """One vector per image: ``[N, L, D]`` to ``[N, D]``."""
        images, locations, _ = z.shape
        if locations == 1 or self.source == "pooled":
            return z.mean(1)
        drawn = torch.randint(locations, (world_size(), images), generator=generator, device=z.device)
        return z[torch.arange(images, device=z.device), _agreed(drawn)[rank()]]


class LocalHeads(nn.Module):
    """Applies a separate head to each of some of an encoder's maps.

    Args:
        heads: map index to head; each head maps the vectors of all locations, ``[B, L, C]`` to ``[B, L, D]``.

    Shape:
        maps ``[B, C_j, ...]`` to ``{index: [B, L_j, D]}``, where L_j is the number of locations.

    Raises:
        ValueError: in training, if a batch norm gets a single vector.
    """

    def __init__(self, heads: dict[int, nn.Module]) -> None:
        super().__init__()
        self.by_map = nn.ModuleDict({str(index): head for index, head in heads.items()})

    def forward(self, maps: Maps) -> dict[int, Tensor]:
        return {int(index): head(maps[int(index)].flatten(2).mT) for index, head in self.by_map.items()}


class ResidualHead(nn.Module):
    """A residual unit on each location separately, like 1x1 convolutions, and a batch norm:

        norm( W_2 relu(W_1 x) + W_skip x )

    The residual branch starts at zero, and the skip near the identity if out_dim >= in_dim. Layers have no bias, as the
    norm would remove it.

    Args:
        in_dim: channels of the map.
        out_dim: width of the embedding.

    Shape:
        ``[B, L, in_dim]`` to ``[B, L, out_dim]``.

    Raises:
        ValueError: in training, for a single vector, which has no variance.

    Example:
        >>> ResidualHead(4, 6)(torch.rand(2, 9, 4)).shape
        torch.Size([2, 9, 6])
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_dim, out_dim, bias=False)
        self.residual = nn.Linear(out_dim, out_dim, bias=False)
        self.skip = nn.Linear(in_dim, out_dim, bias=False)
        self.norm = nn.BatchNorm1d(out_dim)
        nn.init.zeros_(self.residual.weight)
        if out_dim >= in_dim:
            nn.init.uniform_(self.skip.weight, -0.01, 0.01)
            with torch.no_grad():
                self.skip.weight.fill_diagonal_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        vectors = x.flatten(0, 1)  # [B L, C]
        if self.training and len(vectors) == 1:
            raise ValueError(
                "batch: 1 image is too few for batch norm; use a batch size of at least 2 and drop_last=True"
            )
        y = self.residual(self.hidden(vectors).relu()) + self.skip(vectors)
        return self.norm(y).unflatten(0, x.shape[:2])


def _agreed(drawn: Tensor) -> Tensor:
    """The first process's draw, in all processes."""
    return gather(drawn[None])[0]
