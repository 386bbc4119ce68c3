"""What the policies of several methods share."""

from typing import Any, Literal

from ssl_modules.augmentations.blur import GaussianBlur
from ssl_modules.augmentations.color import RandomGrayscale, RandomSolarize
from ssl_modules.augmentations.geometry import RandomResizedCrop, RandomShift
from ssl_modules.augmentations.jitter import ColorJitter
from ssl_modules.augmentations.operation import Operation
from ssl_modules.utils.checks import check_number

JitterMode = Literal["exact", "linear"]
Strengths = tuple[float, float, float, float]  # brightness, contrast, saturation, hue

BLUR_FROM = 64  # pixels: below, the policies leave the blur out
WHOLE_GAUSSIAN = 13  # pixels: three standard deviations of 2 to either side
SMALLEST_BLURRED = WHOLE_GAUSSIAN // 2 + 1  # pixels: an image is reflected by half a kernel
SMALLEST_MULTICROP = 3  # pixels: small views have 3/7 of this side, which is rounded to 2
SMALLEST_SHIFTED = 8  # pixels: below, an eighth of the side is less than a pixel


def jitter_and_gray(
    strengths: Strengths, mode: JitterMode, color: bool, gray: float = 0.2
) -> list[ColorJitter | RandomGrayscale]:
    """Return colour jitter and grayscale. Without colour, return only the jitter of brightness and contrast."""
    if color:
        return [ColorJitter(*strengths, p=0.8, mode=mode), RandomGrayscale(p=gray)]
    return [ColorJitter(*strengths[:2], p=0.8, mode=mode)]


def blur_and_solarize(blur: float, solarize: float = 0.0, kernel_size: int | None = None) -> list[Operation]:
    """Return blur and solarisation with these probabilities. An operation of probability 0 is left out."""
    operations: list[Operation] = []
    if blur > 0:
        operations.append(GaussianBlur(kernel_size, p=blur))
    if solarize > 0:
        operations.append(RandomSolarize(p=solarize))
    return operations


def shift_or_crop(size: int, shift: int | None) -> Operation:
    """Return the geometry of AMDIM: a shift by up to ``shift`` pixels, or a crop if ``shift`` is None."""
    check_number("size", size, above=0)
    if shift is None:
        return RandomResizedCrop(size, scale=(0.3, 1.0), ratio=(0.7, 1.4), interpolation="bicubic")
    check_number("shift", shift, least=0, below=size)
    return RandomShift(shift, p=0.8, size=size)


def amdim_colors(hue: float, mode: JitterMode, color: bool) -> list[Operation]:
    """Return colour jitter and grayscale with the numbers of AMDIM."""
    return [*jitter_and_gray((0.4, 0.4, 0.4, hue), mode, color, gray=0.25)]


def amdim_settings(name: str, image_size: int, in_channels: int) -> dict[str, Any]:
    """Return the arguments of AMDIM's views at an image size: shift (None = crop, from 64 px on), hue and color.

    Args:
        name: name of the policy, for the error message.
        image_size: side of a view, in pixels, at least 8.
        in_channels: number of image channels.

    Raises:
        ValueError: if ``image_size`` is below 8.

    Example:
        >>> amdim_settings("amdim", 32, in_channels=3)
        {'shift': 4, 'hue': 0.2, 'color': True}
    """
    check_image_size(name, image_size, SMALLEST_SHIFTED)
    shift = image_size // 8 if image_size < 64 else None
    return {"shift": shift, "hue": 0.1 if image_size >= 128 else 0.2, "color": has_color(in_channels)}


def has_color(in_channels: int) -> bool:
    """Whether a policy keeps its colour operations: images of one channel pass through them unchanged.

    Example:
        >>> [has_color(channels) for channels in (1, 3, 13)]
        [True, True, False]
    """
    return in_channels in (1, 3)


def in_proportion(at_224: int, image_size: int) -> int:
    """The side of a small view, given at 224 px, for images of another size: the nearest even number of pixels.

    Example:
        >>> in_proportion(96, 224), in_proportion(96, 64)
        (96, 28)
    """
    return 2 * round(at_224 * image_size / 224 / 2)


def small_side(name: str, image_size: int) -> int:
    """Return the side of the small views of multi-crop: 96 of 224 pixels, and the same share of other sizes.

    Args:
        name: name of the policy, for the error message.
        image_size: side of a large view, in pixels, at least 3.

    Raises:
        ValueError: if ``image_size`` is below 3.

    Example:
        >>> small_side("swav", 32)
        14
    """
    check_image_size(name, image_size, SMALLEST_MULTICROP)
    return in_proportion(96, image_size)


def check_multicrop(size: int, views: int, small_views: int, small_size: int, *, blur: bool) -> None:
    """Raise an error unless numbers and sizes of large and small views are valid, and large enough for the blur."""
    check_number("views", views, least=1)
    check_number("small_views", small_views, least=0)
    check_number("small_size", small_size, above=0)
    if blur:
        check_blurred_size(size)
    if blur and small_views:
        check_blurred_size(small_size, "small_size")


def check_scales(min_scale: float, max_scale: float = 1.0) -> None:
    """Raise an error unless these are the smallest and the largest area of a crop, as shares of the image's area."""
    check_number("max_scale", max_scale, above=0, most=1)
    check_number("min_scale", min_scale, above=0, most=max_scale)


def check_image_size(name: str, image_size: int, smallest: int) -> None:
    """Raise an error unless images of this size are large enough for the policy.

    Args:
        name: Name of the policy, for the error message.
        image_size: Side of a view, in pixels.
        smallest: The smallest side that works, in pixels.

    Raises:
        ValueError: if ``image_size`` is smaller.
    """
    if image_size < smallest:
        raise ValueError(
            f"image_size: the policy {name!r} needs at least {smallest} pixels, got image_size={image_size}; "
            "give larger images or another policy"
        )


def check_blurred_size(size: int, name: str = "size") -> None:
    """Raises unless views of this side, in pixels, can be blurred with the whole Gaussian."""
    if size < SMALLEST_BLURRED:
        raise ValueError(
            f"{name}: expected at least {SMALLEST_BLURRED} pixels where views are blurred, got {size}; "
            "give larger views, or leave the blur out"
        )
