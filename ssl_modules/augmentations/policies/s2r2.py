"""The augmentations of S2R2 (Varamesh et al. 2020), whose abstract says no more than many random views."""

from ssl_modules.augmentations.policies.common import BLUR_FROM, has_color, small_side
from ssl_modules.augmentations.policies.simclr import SimCLRViews
from ssl_modules.augmentations.views import JointViews


def s2r2(image_size: int, in_channels: int = 3) -> SimCLRViews:
    """S2R2's policy: four views of SimCLR, with strength 0.5, no blur and crops from 0.2 of the area on below 64 px.

    We inferred the whole policy, for every size.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> s2r2(32).sizes
        (32, 32, 32, 32)
    """
    color = has_color(in_channels)
    if image_size < BLUR_FROM:
        return SimCLRViews(image_size, views=4, strength=0.5, blur=False, min_scale=0.2, color=color)
    return SimCLRViews(image_size, views=4, color=color)


def s2r2_multicrop(image_size: int, in_channels: int = 3) -> JointViews:
    """S2R2's multi-crop: SwAV's two large and six small crops, which SimCLR's operations then change.

    We inferred the whole policy. The side of a small view is 3/7 of the side of a large view, rounded to an even
    number. For example, it is 96 px if the side of a large view is 224 px. If ``image_size`` is below 64 px, the colour
    jitter of all views has strength 0.5, and there is no blur.

    Args:
        image_size: Side of a large view, in pixels, at least 3.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 3.

    Example:
        >>> s2r2_multicrop(224).sizes
        (224, 224, 96, 96, 96, 96, 96, 96)
    """
    small = small_side("s2r2-multicrop", image_size)
    blur, color = image_size >= BLUR_FROM, has_color(in_channels)
    strength = 1.0 if blur else 0.5
    return JointViews(
        [
            SimCLRViews(image_size, strength=strength, blur=blur, min_scale=0.14, color=color),
            SimCLRViews(small, 6, strength, blur, min_scale=0.05, max_scale=0.14, color=color),
        ]
    )
