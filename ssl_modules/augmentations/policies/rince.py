"""The augmentation of RINCE (Hoffmann et al. 2022, arXiv 2201.11736)."""

from ssl_modules.augmentations.policies.common import has_color
from ssl_modules.augmentations.policies.moco import MoCoViews


def rince(image_size: int, in_channels: int = 3) -> MoCoViews:
    """RINCE's policy: the views of MoCo v2 without blur.

    The paper trains at 32 and 224 px. All other sizes are inferred.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. Other than 1 and 3 leave saturation, hue and grayscale out.

    Example:
        >>> rince(224).arguments["blur"]
        False
    """
    return MoCoViews(image_size, blur=False, color=has_color(in_channels))
