"""The augmentations of SCE (Denize et al. 2023, arXiv 2111.14585)."""

from collections.abc import Sequence
from typing import Literal

from ssl_modules.augmentations.clips import ClipViews
from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.policies.common import (
    SMALLEST_BLURRED,
    WHOLE_GAUSSIAN,
    JitterMode,
    blur_and_solarize,
    check_blurred_size,
    check_image_size,
    has_color,
    in_proportion,
    jitter_and_gray,
)
from ssl_modules.augmentations.views import Augmentation, JointViews, Views
from ssl_modules.utils.checks import check_number

SCEKind = Literal["weak", "strong", "strong-alpha", "strong-beta", "strong-gamma"]

# Side of the small views at 224 px, and the smallest and largest area of their crops.
SMALL_VIEWS = {192: (0.172, 0.86), 160: (0.143, 0.715), 128: (0.114, 0.571), 96: (0.086, 0.429)}
SMALLEST_MULTICROP = 17  # pixels: the smallest of the small views has 8, which can be blurred


class SCEViews(JointViews):
    """Makes the views of SCE, each of its own kind (Denize et al. 2023, arXiv 2111.14585).

    All kinds begin with a crop and end with a flip. Between the crop and the flip, all kinds except "weak" have a
    colour jitter (brightness 0.4, contrast 0.4, hue 0.1, with probability 0.8) and grayscale (with probability 0.2).
    The kinds differ in three numbers:

    - "strong": saturation 0.4, blur with probability 0.5, no solarisation
    - "strong-alpha": saturation 0.2, blur with probability 1, no solarisation
    - "strong-beta": saturation 0.2, blur with probability 0.1, solarisation with probability 0.2
    - "strong-gamma": saturation 0.2, blur with probability 0.5, solarisation with probability 0.2

    The numbers are those of the official configurations. We inferred from these numbers which configurations the paper
    calls alpha, beta and gamma.

    Args:
        size: Side of a view, in pixels, at least 7 if a kind is blurred.
        kinds: The kind of each view, in order.
        scale: Smallest and largest area of a crop, as shares of the image's area.
        strength: Factor that multiplies the numbers of the colour jitter, in [0, 2.5].
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.
        color: Whether to change saturation, hue and grayscale. Pass False if images have neither 1 nor 3 channels.

    Raises:
        ValueError: if there are no kinds, a kind is unknown, or an argument is out of range.

    Example:
        >>> SCEViews(32).arguments["kinds"]
        ('weak', 'strong')

        Multi-crop with other sizes:

        >>> large = SCEViews(32, ["strong-alpha", "strong-beta"])
        >>> small = SCEViews(16, ["strong-gamma"] * 3, scale=(0.1, 0.5))
        >>> JointViews([large, small]).sizes
        (32, 32, 16, 16, 16)
    """

    def __init__(
        self,
        size: int,
        kinds: Sequence[SCEKind] = ("weak", "strong"),
        scale: tuple[float, float] = (0.2, 1.0),
        *,
        strength: float = 1.0,
        jitter: JitterMode = "exact",
        color: bool = True,
    ) -> None:
        check_number("strength", strength, least=0, most=2.5)
        # Saturation, and the probabilities of blur and of solarisation.
        strong = {
            "strong": (0.4, 0.5, 0.0),
            "strong-alpha": (0.2, 1.0, 0.0),
            "strong-beta": (0.2, 0.1, 0.2),
            "strong-gamma": (0.2, 0.5, 0.2),
        }
        if not kinds:
            raise ValueError(f"kinds: expected the kind of each view, got {kinds!r}")
        if {*kinds} != {"weak"}:
            check_blurred_size(size)
        parts: list[Augmentation] = []
        for kind in kinds:
            transforms: list[Operation] = [RandomResizedCrop(size, scale=scale)]
            if kind != "weak":
                saturation, blur, solarize = strong[kind]
                strengths = (0.4 * strength, 0.4 * strength, saturation * strength, 0.1 * strength)
                transforms += jitter_and_gray(strengths, jitter, color)
                # The official blurs, Pillow's and one of 23 pixels, cut next to nothing off the Gaussian at any size.
                transforms += blur_and_solarize(blur, solarize, WHOLE_GAUSSIAN)
            parts.append(Views([*transforms, RandomHorizontalFlip(p=0.5)], views=1))
        super().__init__(parts)


def sce(image_size: int, in_channels: int = 3) -> SCEViews:
    """SCE's policy: weak and strong below 128 px, strong-alpha and strong-beta from 128 px on.

    The weak view is for the teacher, the strong one for the student. The official configurations are for 32 and 224 px.
    We inferred the policies for all other sizes.

    Args:
        image_size: Side of a view, in pixels, at least 7, because views are blurred.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 7.

    Example:
        >>> sce(32).arguments["kinds"], sce(224).arguments["kinds"]
        (('weak', 'strong'), ['strong-alpha', 'strong-beta'])
    """
    check_image_size("sce", image_size, SMALLEST_BLURRED)
    color = has_color(in_channels)
    if image_size < 128:
        return SCEViews(image_size, color=color)
    return SCEViews(image_size, ["strong-alpha", "strong-beta"], color=color)


def sce_multicrop(image_size: int, in_channels: int = 3) -> JointViews:
    """SCE's multi-crop: two large views, and four smaller ones that show less of the image in proportion to their side.

    The official configuration is for 224 px. We inferred the policies for all other sizes: the smaller views have 6/7,
    5/7, 4/7 and 3/7 of the side, rounded to an even number.

    Args:
        image_size: Side of a large view, in pixels, at least 17. The smallest views then have at least 8 px, and
            smaller views could not be blurred.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 17.

    Example:
        >>> sce_multicrop(224).sizes
        (224, 224, 192, 160, 128, 96)
        >>> sce_multicrop(64).sizes
        (64, 64, 54, 46, 36, 28)
    """
    check_image_size("sce-multicrop", image_size, SMALLEST_MULTICROP)
    color = has_color(in_channels)
    small = [
        SCEViews(in_proportion(size, image_size), ["strong-gamma"], scale, color=color)
        for size, scale in SMALL_VIEWS.items()
    ]
    return JointViews([SCEViews(image_size, ["strong-alpha", "strong-beta"], color=color), *small])


def sce_video(image_size: int, in_channels: int = 3) -> ClipViews:
    """Return SCE's policy for videos: a "strong-alpha" view of one clip and a "strong-beta" view of another.

    Crops have 0.2 to 0.766 of the area. From 128 px on, the colour jitter is twice as strong. The numbers are those of
    the official configurations for 112 and 224 px (Denize et al. 2023, arXiv 2212.11187). One operation of the
    configuration for 224 px is missing here. It replaces a fifth of the clips by differences of their frames. We
    inferred the policies for all other sizes.

    Args:
        image_size: Side of a view, in pixels, at least 7, because views are blurred.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Raises:
        ValueError: if ``image_size`` is below 7.

    Example:
        >>> sce_video(112).clips, sce_video(224).parts[0].arguments["strength"]
        ((0, 1), 2.0)
    """
    check_image_size("sce-video", image_size, SMALLEST_BLURRED)
    strength = 2.0 if image_size >= 128 else 1.0
    parts: list[Augmentation] = [
        SCEViews(image_size, kinds, (0.2, 0.766), strength=strength, color=has_color(in_channels))
        for kinds in (("strong-alpha",), ("strong-beta",))
    ]
    return ClipViews(parts, clips=(0, 1))
