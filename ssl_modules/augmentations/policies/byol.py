"""The augmentation of BYOL (Grill et al. 2020, arXiv 2006.07733)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.policies.common import (
    BLUR_FROM,
    JitterMode,
    blur_and_solarize,
    check_scales,
    has_color,
    jitter_and_gray,
)
from ssl_modules.augmentations.views import Augmentation, JointViews, Views


class BYOLViews(JointViews):
    """The two views of BYOL: crop, flip, jitter, grayscale, blur, solarise (Grill et al. 2020, arXiv 2006.07733).

    The two differ. The first is always blurred and never solarised. The second is blurred with probability 0.1 and
    solarised with probability 0.2.

    Args:
        size: Side of a view, in pixels.
        blur: Whether views are blurred. The paper does not train at 32 px, where solo-learn leaves the blur out.
        min_scale: Smallest area of a crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> first, second = BYOLViews(32, blur=False).parts
        >>> [type(operation).__name__ for operation in second.transforms[3:]]
        ['RandomGrayscale', 'RandomSolarize']
    """

    def __init__(
        self,
        size: int,
        blur: bool = True,
        min_scale: float = 0.08,
        *,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_scales(min_scale)
        parts: list[Augmentation] = []
        for blurred, solarized in ((1.0, 0.0), (0.1, 0.2)):
            crop = RandomResizedCrop(size, scale=(min_scale, 1.0))
            colors = jitter_and_gray((0.4, 0.4, 0.2, 0.1), jitter, color)
            last = blur_and_solarize(blurred if blur else 0.0, solarized)
            parts.append(Views([crop, RandomHorizontalFlip(p=0.5), *colors, *last], views=1))
        super().__init__(parts)


def byol(image_size: int, in_channels: int = 3) -> BYOLViews:
    """BYOL's policy: blur from 64 px on.

    The paper trains at 224 px. We inferred the policies for all other sizes, and the rule for the blur.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> byol(32).arguments["blur"], byol(224).arguments["blur"]
        (False, True)
    """
    return BYOLViews(image_size, blur=image_size >= BLUR_FROM, color=has_color(in_channels))
