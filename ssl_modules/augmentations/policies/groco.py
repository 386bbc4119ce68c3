"""The augmentations of GroCo (Shvetsova et al. 2023, arXiv 2301.02009)."""

from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.policies.common import (
    BLUR_FROM,
    WHOLE_GAUSSIAN,
    JitterMode,
    blur_and_solarize,
    check_multicrop,
    check_scales,
    has_color,
    jitter_and_gray,
    small_side,
)
from ssl_modules.augmentations.views import Augmentation, JointViews, Views


class GroCoViews(JointViews):
    """The views of GroCo: crop, flip, jitter, grayscale, blur, solarise (Shvetsova et al. 2023, arXiv 2301.02009).

    There are three kinds of views:

    - the first and the third full view: crops of 0.14 to 1 of the area, always blurred, never solarised
    - the second and the fourth full view: crops of 0.14 to 1, blur with probability 0.1, solarisation with 0.2
    - the small views: crops of 0.05 to 0.14, blur with probability 0.5, never solarised

    The numbers are those of the authors' code for ImageNet. It makes two to four full views at 224 px, or two full
    views and six small views at 96 px.

    Args:
        size: Side of a full view, in pixels, at least 7 with ``blur``.
        views: How many full views to make, at least 1.
        small_views: How many small views to make after the full views.
        small_size: Side of a small view, in pixels, at least 7 with ``blur``.
        blur: Whether views are blurred.
        min_scale: Smallest area of a full view's crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> GroCoViews(224, small_views=6).sizes
        (224, 224, 96, 96, 96, 96, 96, 96)
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        small_views: int = 0,
        small_size: int = 96,
        *,
        blur: bool = True,
        min_scale: float = 0.14,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_multicrop(size, views, small_views, small_size, blur=blur)
        check_scales(min_scale)

        def view(size: int, scale: tuple[float, float], blurred: float, solarized: float) -> list[Operation]:
            crop = RandomResizedCrop(size, scale, interpolation="bicubic")
            colors = jitter_and_gray((0.4, 0.4, 0.2, 0.1), jitter, color)
            # Pillow's blur, which the official code uses, hardly truncates the Gaussian.
            last = blur_and_solarize(blurred if blur else 0.0, solarized, WHOLE_GAUSSIAN)
            return [crop, RandomHorizontalFlip(p=0.5), *colors, *last]

        kinds = [(1.0, 0.0), (0.1, 0.2)]  # probabilities of blur and solarisation
        parts: list[Augmentation] = [Views(view(size, (min_scale, 1.0), *kinds[i % 2]), views=1) for i in range(views)]
        if small_views:
            parts.append(Views(view(small_size, (0.05, 0.14), 0.5, 0.0), small_views))
        super().__init__(parts)


def groco(image_size: int, in_channels: int = 3) -> GroCoViews:
    """GroCo's policy: two full views, blurred from 64 px on.

    The authors' code is for 224 px. We inferred the policies for all other sizes, and the rule for the blur.

    Args:
        image_size: Side of a view, in pixels.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Example:
        >>> groco(32).arguments["blur"], groco(224).arguments["blur"]
        (False, True)
    """
    return GroCoViews(image_size, blur=image_size >= BLUR_FROM, color=has_color(in_channels))


def groco_multicrop(image_size: int, in_channels: int = 3) -> GroCoViews:
    """GroCo's multi-crop: two full and six small views, blurred where ``image_size`` is at least 64 px.

    The authors' code is for 224 px. We inferred the policies for all other sizes: the small views have 3/7 of the side,
    rounded to an even number.

    Args:
        image_size: Side of a full view, in pixels, at least 3.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 3.

    Example:
        >>> groco_multicrop(32).sizes
        (32, 32, 14, 14, 14, 14, 14, 14)
    """
    small, blur = small_side("groco-multicrop", image_size), image_size >= BLUR_FROM
    return GroCoViews(image_size, small_views=6, small_size=small, blur=blur, color=has_color(in_channels))
