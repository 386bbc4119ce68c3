"""Converts all images to uint8 pixels: PIL images and tensors, from files and from data sets."""

import math
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_modules.utils.checks import check_number
from ssl_modules.utils.pixels import overshoots

MODES = {1: "L", 3: "RGB"}  # Pillow's mode by number of channels
GRAY = ("1", "L", "LA", "I", "F")
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
WHITE = 2**16 - 1  # white in images of 16 bits
DARK = 2**14 - 1  # the largest value of 14 bits, a quarter of white
LUMA = torch.tensor([19595, 38470, 7471]).view(3, 1, 1)  # Pillow's weights of red, green and blue; their sum is 2 ** 16


class WhiteLevel:
    """Converts pixel values of more than 8 bits to 8 bits, and records the largest values seen by all workers.

    Args:
        level: the pixel value of white, such as 4095 for 12-bit data and 1023 for 10-bit data. Larger values become
            white. None for 65535, white in 16 bits.

    Raises:
        ValueError: if ``level`` is below 1.

    Example:
        >>> WhiteLevel(4095).to_bytes(torch.tensor([0, 2048, 4095]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """

    def __init__(self, level: int | None = None) -> None:
        if level is not None:
            check_number("white", level, least=1)
        self.level = level
        self._brightest = torch.zeros(2, dtype=torch.int64).share_memory_()  # gray and tensors; colour
        self._warned = False

    def to_bytes(self, levels: Tensor) -> Tensor:
        """Scale and round non-negative integers of any type to 8 bits.

        Raises:
            ValueError: if a value is negative, or above 65535 without ``level``.
        """
        levels = levels.long()
        low, high = (int(bound) for bound in levels.aminmax())
        if low < 0 or (self.level is None and high > WHITE):
            fix = "subtract the lowest" if low < 0 else "give white=, the level that means white"
            raise ValueError(f"expected pixels of 8 or 16 bits, got values from {low} to {high}; {fix}")
        self._note(0, high)
        white = self.level or WHITE
        return ((510 * levels.clamp(max=white) + white) // (2 * white)).to(torch.uint8)

    def note_cut(self, pixels: Tensor) -> None:
        """Record pixels of a colour file with 16 bits per channel; Pillow keeps only the upper 8 bits.

        Raises:
            ValueError: if ``level`` is given, because it can't be applied to the upper 8 bits.
        """
        if self.level is not None:
            raise ValueError(
                "white: expected None for colour images with 16 bits per channel, of which Pillow keeps the upper 8, "
                f"got {self.level}; save them with 8 bits per channel"
            )
        self._note(1, int(pixels.max()) * 257)

    def warn_if_dark(self, name: str) -> None:
        """Warn once if the largest value so far is at most a quarter of 65535 and no ``level`` was given.

        Args:
            name: name of the data set in the warning.
        """
        gray, colour = self._brightest.tolist()
        if self._warned or self.level is not None or not (0 < gray <= DARK or 0 < colour <= DARK):
            return
        self._warned = True
        if 0 < gray <= DARK:
            fix = f"for data of {_bits(gray)} bits give white={2 ** _bits(gray) - 1}"
        else:
            fix = "save colour images with 8 bits per channel, as Pillow keeps only the upper 8 of 16"
        warnings.warn(
            f"{name}: the brightest level of the images with 16 bits read so far is {gray or colour}, far below white "
            f"({WHITE}), which leaves few of 256 levels; {fix}",
            stacklevel=3,
        )

    def _note(self, kind: int, level: int) -> None:
        self._brightest[kind] = max(self._brightest[kind], level)


def as_tensor(name: str, values: Any) -> Tensor:
    """Convert a tensor, an array, a number or a list of numbers to a tensor, without copying tensors and arrays.

    Args:
        name: name of the argument in the error.
        values: the values.

    Raises:
        TypeError: for anything else, such as strings, or lists of different lengths.

    Example:
        >>> as_tensor("targets", [3, 1])
        tensor([3, 1])
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
            return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: expected a tensor, an array or a list of numbers, got {_shown(values)}; give numbers, the same "
            "count in each row"
        ) from error


def _shown(values: Any) -> str:
    text = repr(values)
    return text if len(text) <= 80 else f"a {type(values).__name__} that begins {text[:60]}"


def to_uint8(
    image: Image.Image | Tensor | np.ndarray, channels: int | None = None, white: WhiteLevel | None = None
) -> Tensor:
    """Convert an image to uint8 [channels, H, W].

    A PIL image may have any mode. Palettes are looked up, transparency is dropped, and the image is rotated by its Exif
    orientation. Integers of more than 8 bits are rounded to 8 bits.

    Args:
        image: a PIL image, or a tensor or array [C, H, W]. A tensor is uint8, uint16, or float with values k / 255; if
            ``white`` has a level, it may have any integer type.
        channels: 1 converts to gray, with Pillow's weights, and 3 to colour. Another number keeps the channels of the
            image. None gives 1 channel for a gray PIL image and 3 for others, and keeps those of a tensor.
        white: the pixel value of white in integers of more than 8 bits; None for 65535.

    Raises:
        TypeError: if the image has another type.
        ValueError: if a float image holds other values than k / 255, or integers are out of range.

    Example:
        >>> to_uint8(torch.tensor([0.0, 51 / 255, 1.0]).view(1, 1, 3))
        tensor([[[  0,  51, 255]]], dtype=torch.uint8)
        >>> to_uint8(Image.new("P", (2, 1)), channels=1).shape
        torch.Size([1, 1, 2])
    """
    white = WhiteLevel() if white is None else white
    if isinstance(image, Image.Image):
        image = _from_pil(_upright(image), channels, white)
    if not isinstance(image, Tensor | np.ndarray):
        raise TypeError(
            f"image: expected a PIL image, or a tensor or array [C, H, W], got {type(image).__name__}; give items "
            "(image, target), or mappings with the keys image and label"
        )
    image = as_tensor("image", image)
    if image.is_floating_point():
        image = _from_floats(image)
    elif image.dtype != torch.uint8:
        is_known = white.level is not None or image.dtype == torch.uint16
        if image.dtype == torch.bool or image.is_complex() or not is_known:
            raise TypeError(
                f"image: expected uint8 or float in [0, 1], got {image.dtype}; for integers give white=, the level "
                "that means white, such as 255 or 4095; for bool image.float()"
            )
        image = white.to_bytes(image)
    return _with_channels(image, channels)


def _upright(image: Image.Image) -> Image.Image:
    with suppress(Exception):  # faulty metadata; the pixels are complete
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def _from_pil(image: Image.Image, channels: int | None, white: WhiteLevel) -> Tensor:
    """The pixels of a PIL image: uint8 [C, H, W], or floats [1, H, W] for mode F."""
    if image.mode.startswith("I"):
        return white.to_bytes(torch.from_numpy(np.asarray(image).astype(np.int64))[None])
    if image.mode == "F":
        return torch.from_numpy(np.array(image))[None]
    if channels is not None and channels not in MODES:
        return pil_to_tensor(image)
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    gray = image.mode in GRAY if channels is None else channels == 1
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns without this step
    mode = MODES[1 if gray else 3]
    return pil_to_tensor(image if image.mode == mode else image.convert(mode))


def _from_floats(image: Tensor) -> Tensor:
    levels = (image * 255).round().clamp(0, 255)
    # ToTensor divides by 255, v2.ToDtype multiplies by 1 / 255: the results differ by at most one rounding.
    if not ((image - levels / 255).abs() <= torch.finfo(image.dtype).eps).all():
        low, high = (bound.item() for bound in image.aminmax())
        raise ValueError(
            f"image: expected values k / 255, got floats ({image.dtype}) with others, from {low:.4g} to {high:.4g}; "
            f"{_fix(low, high)}"
        )
    return levels.to(torch.uint8)


def fix_of_images(images: Tensor) -> str:
    """Return advice, for an error, on how to convert images in a tensor or an array to a tensor of uint8."""
    if images.dtype == torch.bool:
        return "give torch.as_tensor(images).to(torch.uint8) * 255"
    if images.is_complex() or images.numel() == 0:
        return "give torch.as_tensor(images).to(torch.uint8)"
    if images.is_floating_point():
        low, high = (bound.item() for bound in images.aminmax())
        if low >= 0 and high <= 1:
            return "for floats in [0, 1] give (torch.as_tensor(images) * 255).round().to(torch.uint8)"
        return _fix(low, high).replace("image", "torch.as_tensor(images)")
    low, high = (int(bound) for bound in images.long().aminmax())
    if low >= 0 and high <= 255:
        of_one = " * 255 if 1 means white, or without * 255 if 255 does" if high <= 1 else ""
        return f"give torch.as_tensor(images).to(torch.uint8){of_one}"
    return (
        "choose the level that means white, such as white = 4095, and give (torch.as_tensor(images).float() * (255 / "
        "white)).round().clamp(0, 255).to(torch.uint8)"
    )


def _fix(low: float, high: float) -> str:
    """Advice on how to convert float images with this minimum and maximum to uint8."""
    if math.isnan(low):
        return "replace NaN, such as by image.nan_to_num()"
    if (low < 0 or high > 1) and overshoots(low, high):
        return "if resizing has moved pixels out of [0, 1], give (image.clamp(0, 1) * 255).round().to(torch.uint8)"
    if low >= 0 and high > 1:
        white = next((level for level in (255, 4095, WHITE) if high <= level), f"{high:g}")
        scaled = "image" if white == 255 else f"(image * (255 / {white}))"
        return f"for levels from 0 to {white} give {scaled}.round().to(torch.uint8)"
    if -1 <= low < 0 and high <= 1:
        return "for values from -1 to 1 give ((image + 1) * 127.5).round().to(torch.uint8)"
    if low < 0:
        return "leave normalisation to the module, or give uint8"
    return "leave augmentation to the module, or give (image * 255).round().to(torch.uint8)"


def _with_channels(pixels: Tensor, channels: int | None) -> Tensor:
    if pixels.ndim != 3 or channels is None or len(pixels) == channels:
        return pixels
    if len(pixels) == 1 and channels == 3:
        return pixels.expand(3, -1, -1)
    if len(pixels) == 3 and channels == 1:
        return ((pixels * LUMA).sum(0, keepdim=True) + 2**15 >> 16).to(torch.uint8)
    return pixels


def _bits(level: int) -> int:
    """The smallest of the usual numbers of bits, 8, 10, 12 or 14, that can hold a value."""
    return max(8, -(-level.bit_length() // 2) * 2)
