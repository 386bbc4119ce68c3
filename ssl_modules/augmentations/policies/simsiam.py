"""The augmentation of SimSiam (Chen and He 2021, arXiv 2011.10566)."""

from ssl_modules.augmentations.policies.moco import MoCoViews, moco


def simsiam(image_size: int, in_channels: int = 3) -> MoCoViews:
    """SimSiam's policy, which is MoCo v2's: blur from 64 px on.

    The paper trains at 32 px, without blur, and at 224 px. All other sizes are inferred.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. Other than 1 and 3 leave saturation, hue and grayscale out.

    Example:
        >>> simsiam(32).arguments["blur"], simsiam(224).arguments["blur"]
        (False, True)
    """
    return moco(image_size, in_channels)
