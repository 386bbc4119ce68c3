"""The augmentation of AMDIM (Bachman et al. 2019, arXiv 1906.00910)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip
from ssl_modules.augmentations.policies.common import (
    JitterMode,
    amdim_colors,
    amdim_settings,
    shift_or_crop,
)
from ssl_modules.augmentations.views import JointViews, Views


class AMDIMViews(JointViews):
    """The views of AMDIM: one flip for all of an image, then for each view a shift or crop, jitter, grayscale.

    The numbers are those of the authors' code (Bachman et al. 2019, arXiv 1906.00910).

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        shift: Largest shift, in pixels. Images must have the side ``size``, and are shifted with probability 0.8. None
            = views are random crops.
        hue: Hue of the colour jitter, in [0, 0.5].
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of its range, or images that are shifted are of another size.

    Example:
        >>> augmentation = AMDIMViews(32, shift=4)
        >>> [type(operation).__name__ for operation in [*augmentation.shared, *augmentation.parts[0].transforms]]
        ['RandomHorizontalFlip', 'RandomShift', 'ColorJitter', 'RandomGrayscale']
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        shift: int | None = None,
        hue: float = 0.2,
        *,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        view = [shift_or_crop(size, shift), *amdim_colors(hue, jitter, color)]
        super().__init__([Views(view, views)], shared=[RandomHorizontalFlip(p=0.5)])


def amdim(image_size: int, in_channels: int = 3) -> AMDIMViews:
    """AMDIM's policy: shifts by up to an eighth of the side below 64 px, crops from 64 px on; half the hue from 128 px.

    The authors' code is for 32, 64 and 128 px. We inferred the policies for all other sizes. Images that are shifted
    must be of this size.

    Args:
        image_size: Side of a view, in pixels, at least 8.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 8.

    Example:
        >>> amdim(32).arguments["shift"], amdim(128).arguments["hue"]
        (4, 0.1)
    """
    return AMDIMViews(image_size, **amdim_settings("amdim", image_size, in_channels))
