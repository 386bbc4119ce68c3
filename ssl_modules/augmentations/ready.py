"""Views made by the loader."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_modules.augmentations.views import Augmentation
from ssl_modules.utils.checks import check_numbers


class ReadyViews(Augmentation):
    """Declares the sizes of views that the loader makes; makes no views itself.

    The loader must return ``([view1, view2, ...], ...)``; each view is a tensor [N, ch, size, size]. A data set with
    items ``([view1, view2], target)`` gives such batches. A flat batch ``(view1, view2)`` counts as images and targets.

    Args:
        sizes: Side of each view, in pixels, in the loader's order.

    Raises:
        ValueError: if there are no sizes, or one is not a positive integer.
        TypeError: when called with images, as the loader then makes no views.

    Example:
        >>> ReadyViews([32, 32, 16]).sizes
        (32, 32, 16)
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        check_numbers("sizes", sizes, above=0, fix="give the side of each view in pixels, such as sizes=(32, 32)")
        self.sizes = tuple(sizes)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Raises a TypeError, as only the loader makes views."""
        views = ", ".join(f"view{i + 1}" for i in range(len(self.sizes)))
        raise TypeError(
            f"augmentation: ReadyViews makes no views of images {list(images.shape)}; the loader has to give "
            f"([{views}], ...), a list inside the batch, with sides of {', '.join(map(str, self.sizes))} pixels: let "
            f"the data set return ([{views}], target), or from items ({views}) use "
            "collate_fn=lambda items: (default_collate(items),)"
        )
