"""The papers' augmentations by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from ssl_modules.augmentations.blur import GaussianBlur
from ssl_modules.augmentations.color import RandomGrayscale
from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.jitter import ColorJitter
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.views import Augmentation, Views


class SimCLRViews(Views):
    """The views of SimCLR: crop, flip, colour jitter, grayscale, blur (Chen et al. 2020, arXiv 2002.05709, appendix A).

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        strength: Of the colour jitter, s >= 0: brightness, contrast and saturation 0.8 s, hue 0.2 s.
        blur: Whether views are blurred with probability 0.5; the paper does not for 32 px.
        min_scale: Smallest area of a crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> SimCLRViews(32, strength=0.5, blur=False).sizes
        (32, 32)
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        strength: float = 1.0,
        blur: bool = True,
        min_scale: float = 0.08,
        *,
        jitter: Literal["exact", "linear"] = "exact",
    ) -> None:
        if not 0 <= strength <= 2.5:
            raise ValueError(f"strength: expected 0 to 2.5 (hue 0.5), but got {strength}")
        transforms: list[Operation] = [
            RandomResizedCrop(size, scale=(min_scale, 1.0)),
            RandomHorizontalFlip(p=0.5),
            ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8, mode=jitter),
            RandomGrayscale(p=0.2),
        ]
        if blur:
            transforms.append(GaussianBlur(p=0.5))
        super().__init__(transforms, views)


POLICIES: dict[str, Callable[[], Augmentation]] = {
    "simclr-32": partial(SimCLRViews, 32, strength=0.5, blur=False),  # CIFAR
    "simclr-96": partial(SimCLRViews, 96),  # STL-10
    "simclr-224": partial(SimCLRViews, 224),  # ImageNet
}


def policy(name: str) -> Augmentation:
    """A paper's augmentation by name.

    Args:
        name: A key of ``POLICIES``, such as "simclr-32": method and side in pixels.

    Returns:
        A new augmentation.

    Raises:
        ValueError: if there is none of this name.

    Example:
        >>> policy("simclr-96").sizes
        (96, 96)
    """
    if name not in POLICIES:
        raise ValueError(
            f"augmentation: there is no policy {name!r}; there are {', '.join(POLICIES)}. For another size say it in "
            "full, such as SimCLRViews(28, strength=0.5, blur=False)"
        )
    return POLICIES[name]()
