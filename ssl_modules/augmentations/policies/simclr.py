"""The augmentation of SimCLR (Chen et al. 2020, arXiv 2002.05709)."""

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
from ssl_modules.utils.checks import check_number


class SimCLRViews(Views):
    """The views of SimCLR: crop, flip, colour jitter, grayscale, blur (Chen et al. 2020, arXiv 2002.05709, appendix A).

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        strength: Strength s of the colour jitter, in [0, 2.5]. :class:`~ssl_modules.augmentations.ColorJitter` gets
            0.8 * s for brightness, contrast and saturation, and 0.2 * s for hue.
        blur: Whether views are blurred with probability 0.5. The paper leaves the blur out at 32 px.
        min_scale: Smallest area of a crop, as a share of the image's.
        max_scale: Largest area of a crop.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

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
        max_scale: float = 1.0,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_number("strength", strength, least=0, most=2.5)
        check_scales(min_scale, max_scale)
        crop = RandomResizedCrop(size, scale=(min_scale, max_scale))
        strengths = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
        colors = jitter_and_gray(strengths, jitter, color)
        super().__init__([crop, RandomHorizontalFlip(p=0.5), *colors, *blur_and_solarize(0.5 if blur else 0.0)], views)


def simclr(image_size: int, in_channels: int = 3) -> SimCLRViews:
    """SimCLR's policy: strength 0.5 and no blur below 64 px, strength 1 and blur from 64 px on.

    The paper trains at 32 and 224 px. We inferred the policies for all other sizes.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> simclr(32).arguments["strength"], simclr(224).arguments["strength"]
        (0.5, 1.0)
    """
    color = has_color(in_channels)
    if image_size < BLUR_FROM:
        return SimCLRViews(image_size, strength=0.5, blur=False, color=color)
    return SimCLRViews(image_size, color=color)
