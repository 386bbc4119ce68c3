"""The augmentation of CPC v2 (Hénaff et al. 2020, arXiv 1905.09272)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.patches import PatchGrid, check_patches
from ssl_modules.augmentations.policies.common import (
    JitterMode,
    amdim_colors,
    amdim_settings,
    shift_or_crop,
)
from ssl_modules.augmentations.views import Views


class CPCViews(Views):
    """The view of CPC: flip, shift or crop, jitter, grayscale, then a grid of overlapping patches.

    The numbers are those of lightning-bolts: AMDIM's numbers, and patches of a quarter of the side that overlap by
    half. The paper (Hénaff et al. 2020, arXiv 1905.09272) changes the colours of each patch separately, as
    ``per_patch`` does. The paper also drops colours. To do this, build the view from
    :class:`~ssl_modules.augmentations.PatchGrid`.

    Args:
        size: Side of the view, in pixels, before it is cut.
        patches: Side and overlap of the patches, in pixels.
        shift: Largest shift, in pixels. Images must have the side ``size``, and are shifted with probability 0.8. None
            = views are random crops.
        hue: Hue of the colour jitter, in [0, 0.5].
        per_patch: Whether jitter and grayscale are drawn for each patch on its own, otherwise once for all of an image.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of its range, or images that are shifted are of another size.

    Example:
        >>> import torch
        >>> [view] = CPCViews(32, patches=(8, 4), shift=4)(torch.rand(4, 3, 32, 32))
        >>> view.shape  # [N, rows, cols, ch, h, w]
        torch.Size([4, 7, 7, 3, 8, 8])
    """

    def __init__(
        self,
        size: int,
        patches: tuple[int, int],
        shift: int | None = None,
        hue: float = 0.2,
        per_patch: bool = False,
        *,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_patches(patches)
        view: list[Operation] = [RandomHorizontalFlip(p=0.5), shift_or_crop(size, shift)]
        colors = amdim_colors(hue, jitter, color)
        grid = [PatchGrid(*patches, transforms=colors)] if per_patch else [*colors, PatchGrid(*patches)]
        super().__init__([*view, *grid], views=1)


def cpc(image_size: int, in_channels: int = 3) -> CPCViews:
    """CPC's policy: AMDIM's shifts, crops and colours, then a grid of 7 x 7 patches, an eighth of the side apart.

    lightning-bolts is for 32, 64 and 128 px, with patches of 8, 16 and 32 px. We inferred the policies for all other
    sizes. The patches cover the whole image, so they overlap by more than half where the side is no multiple of 8.
    Images that are shifted must be of this size.

    Args:
        image_size: Side of the view, in pixels, at least 8.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 8.

    Example:
        >>> cpc(32).patches, cpc(28).patches  # side and overlap, in pixels
        ((8, 4), (10, 7))
    """
    settings = amdim_settings("cpc", image_size, in_channels)
    stride = image_size // 8
    side = image_size - 6 * stride  # the seventh patch ends where the image does
    return CPCViews(image_size, (side, side - stride), **settings)
