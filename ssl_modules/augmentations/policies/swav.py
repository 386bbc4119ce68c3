"""The augmentation of SwAV (Caron et al. 2020, arXiv 2006.09882)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.policies.common import (
    BLUR_FROM,
    WHOLE_GAUSSIAN,
    JitterMode,
    blur_and_solarize,
    check_multicrop,
    check_scales,
    has_color,
    jitter_and_gray,
    small_side,
)
from ssl_modules.augmentations.views import Augmentation, JointViews, Views
from ssl_modules.utils.checks import check_interval, check_number


class SwAVViews(JointViews):
    """Makes the views of SwAV: large and small crops, changed as in SimCLR (Caron et al. 2020, arXiv 2006.09882).

    Large views are crops of ``min_scale`` to 1 of the area, small views are crops of 0.05 to 0.14. All have a flip,
    colour jitter, grayscale and, with probability 0.5, blur. The numbers are those of the official code for ImageNet.
    It makes two large views of 224 px and six small views of 96 px, or only two large views, with ``min_scale=0.08``.

    Args:
        size: Side of a large view, in pixels, at least 7 with ``blur``.
        views: Number of large views, at least 1.
        small_views: Number of small views, which follow the large ones.
        small_size: Side of a small view, in pixels, at least 7 with ``blur``.
        strength: Strength of the colour jitter, in [0, 2.5], as in :class:`~ssl_modules.augmentations.SimCLRViews`.
        blur: Whether views are blurred.
        min_scale: Smallest area of a large view's crop, as a share of the image's area.
        small_scale: Smallest and largest area of a small view's crop, as shares of the image's area.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> SwAVViews(224).sizes
        (224, 224, 96, 96, 96, 96, 96, 96)
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        small_views: int = 6,
        small_size: int = 96,
        *,
        strength: float = 1.0,
        blur: bool = True,
        min_scale: float = 0.14,
        small_scale: tuple[float, float] = (0.05, 0.14),
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_multicrop(size, views, small_views, small_size, blur=blur)
        check_number("strength", strength, least=0, most=2.5)
        check_scales(min_scale)
        check_interval("small_scale", small_scale, above=0, most=1)

        def view(side: int, scale: tuple[float, float]) -> list[Operation]:
            strengths = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
            colors = jitter_and_gray(strengths, jitter, color)
            # Pillow's blur, which the official code uses, hardly truncates the Gaussian.
            last = blur_and_solarize(0.5 if blur else 0.0, 0.0, WHOLE_GAUSSIAN)
            return [RandomResizedCrop(side, scale), RandomHorizontalFlip(p=0.5), *colors, *last]

        parts: list[Augmentation] = [Views(view(size, (min_scale, 1.0)), views)]
        if small_views:
            parts.append(Views(view(small_size, small_scale), small_views))
        super().__init__(parts)


def swav(image_size: int, in_channels: int = 3) -> SwAVViews:
    """Return SwAV's policy: two large and six small views. Below 64 px, the strength is 0.5 and there is no blur.

    The official code is for 224 px. We inferred the policies for all other sizes: the small views have 3/7 of the side,
    rounded to an even number, and strength and blur are those of SimCLR's policy.

    Args:
        image_size: Side of a large view, in pixels, at least 3.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 3.

    Example:
        >>> swav(32).sizes
        (32, 32, 14, 14, 14, 14, 14, 14)
    """
    small, blur = small_side("swav", image_size), image_size >= BLUR_FROM
    strength = 1.0 if blur else 0.5
    return SwAVViews(image_size, small_size=small, strength=strength, blur=blur, color=has_color(in_channels))
