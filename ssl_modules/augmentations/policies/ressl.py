"""The augmentations of ReSSL (Zheng et al. 2021, arXiv 2107.09282)."""

from collections.abc import Sequence

from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.policies.common import (
    BLUR_FROM,
    SMALLEST_MULTICROP,
    WHOLE_GAUSSIAN,
    JitterMode,
    blur_and_solarize,
    check_blurred_size,
    check_image_size,
    has_color,
    in_proportion,
    jitter_and_gray,
)
from ssl_modules.augmentations.policies.sce import SMALL_VIEWS
from ssl_modules.augmentations.views import Augmentation, JointViews, Views
from ssl_modules.utils.checks import check_interval, check_number


class ReSSLViews(JointViews):
    """Makes the views of ReSSL: a weak one for the teacher, and strong ones (Zheng et al. 2021, arXiv 2107.09282).

    The first view is the weak one. It has a crop and a flip. A strong view also has colour jitter, grayscale and, with
    probability 0.5, blur. The numbers are those of the official code for ImageNet.

    Args:
        size: Side of the weak view and of the first strong view, in pixels, at least 7 with ``blur``.
        small_sizes: Side of each further strong view, in pixels.
        small_scales: Smallest and largest area of the crop of each further strong view, as shares of the image's area.
        blur: Whether strong views are blurred.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of range, or the numbers of sizes and scales differ.

    Example:
        >>> ReSSLViews(32, small_sizes=[24], small_scales=[(0.1, 0.5)]).sizes
        (32, 32, 24)
    """

    def __init__(
        self,
        size: int,
        small_sizes: Sequence[int] = (),
        small_scales: Sequence[tuple[float, float]] = (),
        *,
        blur: bool = True,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        if len(small_sizes) != len(small_scales):
            raise ValueError(
                f"small_scales: expected one for each of the {len(small_sizes)} small_sizes, got {len(small_scales)}"
            )
        for side, scale in zip(small_sizes, small_scales, strict=True):
            check_number("small_sizes", side, above=0)
            check_interval("small_scales", scale, above=0, most=1)
        scales = [(0.2, 1.0), *small_scales]
        parts: list[Augmentation] = [Views([RandomResizedCrop(size, scales[0]), RandomHorizontalFlip(p=0.5)], views=1)]
        for side, scale in zip([size, *small_sizes], scales, strict=True):
            if blur:
                check_blurred_size(side)
            transforms: list[Operation] = [RandomResizedCrop(side, scale)]
            transforms += jitter_and_gray((0.4, 0.4, 0.4, 0.1), jitter, color)
            # Pillow's blur, which the official code uses, hardly truncates the Gaussian.
            transforms += blur_and_solarize(0.5 if blur else 0.0, 0.0, WHOLE_GAUSSIAN)
            parts.append(Views([*transforms, RandomHorizontalFlip(p=0.5)], views=1))
        super().__init__(parts)


def ressl(image_size: int, in_channels: int = 3) -> ReSSLViews:
    """Return ReSSL's policy: a weak view and a strong view. The strong view is blurred from 64 px on.

    The official code is for 224 px. We inferred the policies for all other sizes, and the rule for the blur.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> ressl(32).arguments["blur"], ressl(224).arguments["blur"]
        (False, True)
    """
    return ReSSLViews(image_size, blur=image_size >= BLUR_FROM, color=has_color(in_channels))


def ressl_multicrop(image_size: int, in_channels: int = 3) -> ReSSLViews:
    """Return ReSSL's multi-crop: a weak view and five strong views of decreasing sizes, blurred from 64 px on.

    The official code is for 224 px. We inferred the policies for all other sizes: the smaller views have 6/7, 5/7, 4/7
    and 3/7 of the side, rounded to an even number.

    Args:
        image_size: Side of the weak view and of the largest strong view, in pixels, at least 3.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 3.

    Example:
        >>> ressl_multicrop(224).sizes
        (224, 224, 192, 160, 128, 96)
    """
    check_image_size("ressl-multicrop", image_size, SMALLEST_MULTICROP)
    sizes = [in_proportion(size, image_size) for size in SMALL_VIEWS]
    scales = list(SMALL_VIEWS.values())
    return ReSSLViews(image_size, sizes, scales, blur=image_size >= BLUR_FROM, color=has_color(in_channels))
