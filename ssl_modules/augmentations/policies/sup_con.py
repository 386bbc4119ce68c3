"""The augmentation of SupCon's code (Khosla et al. 2020, arXiv 2004.11362)."""

from ssl_modules.augmentations.policies.moco import MoCoViews
from ssl_modules.augmentations.policies.rince import rince


def supcon(image_size: int, in_channels: int = 3) -> MoCoViews:
    """SupCon's policy: crop, flip, colour jitter and grayscale, without blur, as RINCE's.

    The official code is for 32 px. All other sizes are inferred.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. Other than 1 and 3 leave saturation, hue and grayscale out.

    Example:
        >>> supcon(32).arguments["blur"]
        False
    """
    return rince(image_size, in_channels)
