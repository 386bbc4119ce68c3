"""The augmentation of RINCE (Hoffmann et al. 2022, arXiv 2201.11736)."""

from ssl_modules.augmentations.clips import ClipViews
from ssl_modules.augmentations.policies.common import has_color
from ssl_modules.augmentations.policies.moco import MoCoViews


def rince(image_size: int, in_channels: int = 3) -> MoCoViews:
    """RINCE's policy: the views of MoCo v2 without blur.

    The paper trains at 32 and 224 px. We inferred the policies for all other sizes.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> rince(224).arguments["blur"]
        False
    """
    return MoCoViews(image_size, blur=False, color=has_color(in_channels))


def rince_video(image_size: int, in_channels: int = 3) -> ClipViews:
    """Return a policy for RINCE on videos: two views of clip 0, one view of clip 1 and one view of clip 2.

    Each view is made as for images. Use the policy with ``Queue(view_ranks=(1, 2, 3))`` and data whose clip 1 is near
    clip 0 and whose clip 2 is far from it. The policy is ours, because the authors' code for videos is not public.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> rince_video(112).sizes, rince_video(112).clips
        ((112, 112, 112, 112), (0, 1, 2))
    """
    color = has_color(in_channels)
    parts = [MoCoViews(image_size, views, blur=False, color=color) for views in (2, 1, 1)]
    return ClipViews([*parts], clips=(0, 1, 2))
