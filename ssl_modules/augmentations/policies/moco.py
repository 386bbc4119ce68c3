"""The augmentation of MoCo v2 (Chen et al. 2020, arXiv 2003.04297)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.policies.common import (
    BLUR_FROM,
    JitterMode,
    blur_and_solarize,
    check_scales,
    has_color,
    jitter_and_gray,
)
from ssl_modules.augmentations.views import Views


class MoCoViews(Views):
    """The views of MoCo v2: crop, colour jitter, grayscale, blur, flip (Chen et al. 2020, arXiv 2003.04297).

    Without blur they are the views of RINCE (Hoffmann et al. 2022, arXiv 2201.11736). RINCE flips directly after the
    crop. This gives the same images, because a flip commutes with the operations in between.

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        blur: Whether views are blurred with probability 0.5.
        min_scale: Smallest area of a crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> [type(operation).__name__ for operation in MoCoViews(32, blur=False).transforms]
        ['RandomResizedCrop', 'ColorJitter', 'RandomGrayscale', 'RandomHorizontalFlip']
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        blur: bool = True,
        min_scale: float = 0.2,
        *,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_scales(min_scale)
        crop = RandomResizedCrop(size, scale=(min_scale, 1.0))
        colors = jitter_and_gray((0.4, 0.4, 0.4, 0.1), jitter, color)
        super().__init__([crop, *colors, *blur_and_solarize(0.5 if blur else 0.0), RandomHorizontalFlip(p=0.5)], views)


def moco(image_size: int, in_channels: int = 3) -> MoCoViews:
    """MoCo v2's policy: blur from 64 px on.

    The paper trains at 224 px. We inferred the policies for all other sizes, and the rule for the blur.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> moco(32).arguments["blur"], moco(224).arguments["blur"]
        (False, True)
    """
    return MoCoViews(image_size, blur=image_size >= BLUR_FROM, color=has_color(in_channels))
