"""The augmentation of SimSiam (Chen and He 2021, arXiv 2011.10566)."""

from ssl_modules.augmentations.policies.moco import MoCoViews, moco


def simsiam(image_size: int, in_channels: int = 3) -> MoCoViews:
    """Return SimSiam's policy, which is that of MoCo v2. Views are blurred from 64 px on.

    The paper trains at 32 px without blur, and at 224 px. We inferred the policies for all other sizes.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> simsiam(32).arguments["blur"], simsiam(224).arguments["blur"]
        (False, True)
    """
    return moco(image_size, in_channels)
