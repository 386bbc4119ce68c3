"""Views that the loader makes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_modules.augmentations.views import Augmentation
from ssl_modules.utils.checks import check_numbers


class ReadyViews(Augmentation):
    """Stands for views that the loader makes itself: it declares their sizes, and makes none.

    The loader gives ``([view1, view2, ...], ...)``, each view a tensor [N, ch, size, size].

    Args:
        sizes: Side of each view, in pixels, in the loader's order.

    Raises:
        ValueError: if there is no size, or one is no positive whole number.
        TypeError: if it gets images, as the loader makes no views.

    Example:
        >>> ReadyViews([32, 32, 16]).sizes
        (32, 32, 16)
    """

    takes_uint8 = True

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        check_numbers("sizes", sizes, above=0, fix="give the side of each view in pixels, such as sizes=(32, 32)")
        self.sizes = tuple(sizes)

    def make_views(self, images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Raises, as only the loader makes the views."""
        views = ", ".join(f"view{i + 1}" for i in range(len(self.sizes)))
        raise TypeError(
            f"augmentation: ReadyViews makes no views of images {list(images.shape)}; the loader has to give "
            f"([{views}], ...), with sides of {', '.join(map(str, self.sizes))} pixels"
        )
