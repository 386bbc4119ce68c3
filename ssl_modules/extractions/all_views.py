"""Compares every view with every other view of the batch."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

import torch
from torch import Tensor

from ssl_modules.contrast import Contrast, Relation, SameView
from ssl_modules.extractions.base import Extraction, at_least_two
from ssl_modules.extractions.heads import PooledMLP, with_output_norm
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.distributed import gather, rank, world_size


class AllViews(Extraction):
    """Projects pooled deepest maps, and compares all views of all images with each other (SimCLR).

    An anchor's positives are the other views of its image. Its negatives are all views of all other images, of all
    processes. With V views of N images on each of W processes, a process has V N anchors and W V N candidates. With
    labels, views of other images with the same label are positives too (SupCon).

    Args:
        hidden_dim: width of the projector's hidden layers. None = the channels of the deepest map.
        out_dim: width of the embedding.
        layers: number of linear layers.
        batch_norm: whether the projector's hidden layers have batch norm. Without it, all linear layers have a bias.
        output_norm: whether the projector ends in a batch norm. True = a batch norm without parameters; "scale" = one
            with a scale but no bias, as in Google's SimCLR code.
        same_view_negatives: whether an anchor's negatives are only the same view of other images (GroCo).
        positive_count: number of leading views that are positives, 2 or more; for multi-crop, where small crops are
            only anchors. "large" = the leading views of the first view's size, which must be the largest. None = all.
            Needs ``same_view_negatives``.
        label_levels: number of levels of labels in the loader's targets, finer to coarser, that relate images to each
            other. The views of the anchor's own image have rank 1. Images with the same label at the first level have
            rank 2, at the second level rank 3, and so on. A label of -1 is unknown and matches no other. 0 = no labels
            are used.
        stop_gradient: whether to detach the candidates.

    Raises:
        ValueError: if an argument is out of range, or there is only one view or one image.

    Example:
        >>> extraction = AllViews(out_dim=8)
        >>> extraction.build(out_channels=(16, 32))
        >>> views = [extraction.heads((torch.rand(4, 16, 2, 2), torch.rand(4, 32, 1, 1))) for _ in range(2)]
        >>> [contrast] = extraction(views, None, torch.arange(4)[:, None], None)
        >>> contrast.relation[:1]
        tensor([[-1,  0,  0,  0,  1,  0,  0,  0]], dtype=torch.int8)
    """

    def __init__(
        self,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        layers: int = 2,
        *,
        batch_norm: bool = True,
        output_norm: bool | Literal["scale"] = False,
        label_levels: int = 0,
        same_view_negatives: bool = False,
        positive_count: int | Literal["large"] | None = None,
        stop_gradient: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("out_dim", out_dim), ("layers", layers)):
            if value is not None:
                check_number(name, value, above=0)
        check_number("label_levels", label_levels, least=0)
        if label_levels and same_view_negatives:
            raise ValueError(
                "label_levels: expected 0 with same_view_negatives=True, because an anchor's positives are then views "
                f"of its own image, got {label_levels}; leave out one of the two arguments"
            )
        fits = positive_count == "large" or (isinstance(positive_count, int) and positive_count > 1)
        if positive_count is not None and not (same_view_negatives and fits):
            raise ValueError(
                'positive_count: expected "large", or a number of 2 or more, with same_view_negatives=True, or None; '
                f"got {positive_count!r} with same_view_negatives={same_view_negatives}"
            )
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.layers = layers
        self.batch_norm = batch_norm
        self.output_norm = output_norm
        self.label_levels = label_levels
        self.same_view_negatives = same_view_negatives
        self.positive_count = positive_count
        self.stop_gradient = stop_gradient

    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        features = out_channels[-1]
        hidden = self.hidden_dim or features
        widths = [features, *[hidden] * (self.layers - 1), self.out_dim]
        projector = PooledMLP(*widths, batch_norm=self.batch_norm, bias=not self.batch_norm)
        self.heads = with_output_norm(projector, self.out_dim, self.output_norm)
        self.view_sizes = tuple(sizes)

    @property
    def levels(self) -> int:
        """Number of columns of ids that the extraction reads: one for the image, and one for each level of labels."""
        return 1 + self.label_levels

    def student_views(self, views: int) -> Sequence[int]:
        """Indices of the student's views: all."""
        at_least_two(views)
        self._positives(views)
        return range(views)

    def _positives(self, views: int) -> int:
        """The number of leading views that are positives."""
        if self.positive_count == "large":
            if views != len(self.view_sizes):
                raise ValueError(
                    f'views: got {views}, but positive_count="large" was counted among the augmentation\'s '
                    f"{len(self.view_sizes)} views; pass augmentation=ReadyViews(sizes) with the sizes of the loader's"
                )
            return _large_views(self.view_sizes)
        if self.positive_count is not None and self.positive_count > views:
            raise ValueError(f"positive_count: expected at most the {views} views there are, got {self.positive_count}")
        return self.positive_count or views

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        views, images = len(self.student_views(len(student))), len(ids)
        if images * world_size() < 2:
            raise ValueError(
                f"batch: {images} image has no negatives; use a batch size of at least 2 and drop_last=True"
            )
        if any(len(z) != images for z in student):
            raise ValueError(f"views: expected {images} images in each, got {[len(z) for z in student]}")
        anchors = torch.cat(tuple(student))  # [V N, D], view by view
        candidates = gather(anchors.detach() if self.stop_gradient else anchors)
        if self.same_view_negatives:
            return self._of_same_view(anchors, candidates, views)
        ids = ids.repeat(views, 1)  # [V N, levels]
        own = rank() * len(anchors) + torch.arange(len(anchors), device=ids.device)[:, None]
        return [Contrast(anchors, candidates, Relation(ids, gather(ids), excluded=own))]

    def _of_same_view(self, anchors: Tensor, candidates: Tensor, views: int) -> list[Contrast]:
        positives = self._positives(views)
        images = len(anchors) // views
        own = rank() * images + torch.arange(images, device=anchors.device)
        candidates = candidates.unflatten(0, (-1, views, images)).transpose(0, 1).flatten(0, 2)  # [V W N, D]
        # Small crops have one positive more, and so a different chance level: they get a separate contrast.
        parts = [range(positives), range(positives, views)] if positives < views else [range(views)]
        return [
            Contrast(
                anchors[part.start * images : part.stop * images],
                candidates,
                SameView(own, len(candidates) // views, views, part, positives),
                weight=len(part) / views,
            )
            for part in parts
        ]


def _large_views(sizes: Sequence[int | None]) -> int:
    """The number of large crops: the views before the first smaller one."""
    first = sizes[0]
    if any(size is not None and first is not None and size > first for size in sizes):
        raise ValueError(
            f"augmentation: makes views of {list(sizes)} pixels; let the large ones come first, which are the positives"
        )
    return len(list(takewhile(lambda size: size == first, sizes)))
