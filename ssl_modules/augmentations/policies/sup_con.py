"""The augmentation of SupCon's code (Khosla et al. 2020, arXiv 2004.11362)."""

from ssl_modules.augmentations.policies.moco import MoCoViews
from ssl_modules.augmentations.policies.rince import rince


def supcon(image_size: int, in_channels: int = 3) -> MoCoViews:
    """Return SupCon's policy, which is that of RINCE: crop, flip, colour jitter and grayscale, without blur.

    The official code is for 32 px. We inferred the policies for all other sizes.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> supcon(32).arguments["blur"]
        False
    """
    return rince(image_size, in_channels)
