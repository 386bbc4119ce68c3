"""Every view an anchor, compared with every other view of the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_modules.contrast import Contrast, Relation
from ssl_modules.distributed import gather, rank, world_size
from ssl_modules.extractions.base import Extraction
from ssl_modules.extractions.heads import PooledMLP


class AllViews(Extraction):
    """Pooled deepest maps through a projector; all views of all images are anchors and candidates (SimCLR).

    An anchor's positives are the other views of its image, its negatives all views of all other images, of all
    processes. With V views of N images on each of W processes there are V N anchors and W V N candidates.

    Args:
        hidden_dim: width of the projector's hidden layers. None = the encoder's own.
        out_dim: width of the embedding.
        layers: number of linear layers.

    Raises:
        ValueError: if a number is not positive; for one view, or for one image in all, which leave nothing to compare.

    Example:
        >>> extraction = AllViews(out_dim=8)
        >>> extraction.build(out_channels=(16, 32))
        >>> views = [extraction.heads((torch.rand(4, 16, 2, 2), torch.rand(4, 32, 1, 1))) for _ in range(2)]
        >>> [contrast] = extraction(views, None, torch.arange(4)[:, None], None)
        >>> contrast.relation[:1]
        tensor([[-1,  0,  0,  0,  1,  0,  0,  0]], dtype=torch.int8)
    """

    def __init__(self, hidden_dim: int | None = None, out_dim: int = 128, layers: int = 2) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("out_dim", out_dim), ("layers", layers)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.layers = layers

    def build(self, out_channels: Sequence[int]) -> None:
        features = out_channels[-1]
        hidden = self.hidden_dim or features
        self.heads = PooledMLP(features, *[hidden] * (self.layers - 1), self.out_dim)

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        views, images = len(student), len(ids)
        if views < 2:
            raise ValueError(f"views: expected at least 2 per image, got {views}; the augmentation makes them")
        if images * world_size() < 2:
            raise ValueError(
                f"batch: {images} image has no negatives; use a batch size of at least 2 and drop_last=True"
            )
        anchors = torch.cat(tuple(student))  # [V N, D], view by view
        ids = ids.repeat(views, 1)  # [V N, levels]
        own = rank() * len(anchors) + torch.arange(len(anchors), device=ids.device)[:, None]
        return [Contrast(anchors, gather(anchors), Relation(ids, gather(ids), excluded=own))]
