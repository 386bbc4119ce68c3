"""The augmentation of YADIM (Falcon and Cho 2020, arXiv 2009.00104)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip
from ssl_modules.augmentations.patches import PatchGrid, check_patches
from ssl_modules.augmentations.policies.common import (
    JitterMode,
    amdim_colors,
    amdim_settings,
    shift_or_crop,
)
from ssl_modules.augmentations.views import JointViews, Views


class YADIMViews(JointViews):
    """The views of YADIM, the union of AMDIM's and CPC's (Falcon and Cho 2020, arXiv 2009.00104): a reconstruction.

    They are AMDIM's views. ``patches`` cuts them into a grid. The paper has no public code, and we don't know whether
    the authors cut their views.

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        shift: Largest shift, in pixels. Images must have the side ``size``, and are shifted with probability 0.8. None
            = views are random crops.
        hue: Hue of the colour jitter, in [0, 0.5].
        patches: Side and overlap, in pixels, of the patches that views are cut into; None = they stay whole.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of its range, or images that are shifted are of another size.

    Example:
        >>> import torch
        >>> [view.shape for view in YADIMViews(64, patches=(16, 8))(torch.rand(2, 3, 70, 80))]
        [torch.Size([2, 7, 7, 3, 16, 16]), torch.Size([2, 7, 7, 3, 16, 16])]
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        shift: int | None = None,
        hue: float = 0.2,
        patches: tuple[int, int] | None = None,
        *,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        if patches is not None:
            check_patches(patches)
        grid = [] if patches is None else [PatchGrid(*patches)]
        view = [shift_or_crop(size, shift), *amdim_colors(hue, jitter, color), *grid]
        super().__init__([Views(view, views)], shared=[RandomHorizontalFlip(p=0.5)])


def yadim(image_size: int, in_channels: int = 3) -> YADIMViews:
    """YADIM's policy, which is AMDIM's: shifts below 64 px, crops from 64 px on; half the hue from 128 px.

    All of it is inferred, as the paper has no public code. Images that are shifted must be of this size.

    Args:
        image_size: Side of a view, in pixels, at least 8.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 8.

    Example:
        >>> yadim(32).arguments["shift"], yadim(128).arguments["hue"]
        (4, 0.1)
    """
    return YADIMViews(image_size, **amdim_settings("yadim", image_size, in_channels))
