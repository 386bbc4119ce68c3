"""Decode image files to uint8 pixels, no larger than needed."""

from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_modules.datamodules.conversion import MODES, WhiteLevel, to_uint8
from ssl_modules.datamodules.unreadable import read_bytes


def read_image(
    path: str | Path, channels: int = 3, at_least: int | None = None, white: WhiteLevel | None = None
) -> Tensor:
    """Read an image file with 8 or 16 bits per channel, in any format and mode that Pillow reads.

    The image is rotated by its Exif orientation, and transparency is dropped. 16-bit values are rounded to 8 bits; in
    colour images, Pillow drops the lower 8 bits. Only the first frame of an animation is read.

    Args:
        path: path of the file.
        channels: 3 for colour, 1 for gray; other images are converted.
        at_least: minimum length of the shorter side in pixels: a JPEG is decoded at a half, a quarter or an eighth of
            its size if that is large enough, which is faster; None for full size.
        white: the pixel value of white in gray images of 16 bits; None for 65535.

    Returns:
        uint8 [channels, H, W].

    Raises:
        OSError: if the file is missing, truncated or not an image, or a system error prevents reading.
        ValueError: if its pixels have neither 8 nor 16 bits.

    Example:
        >>> Image.new("L", (40, 30), 7).save("gray.jpg")
        >>> read_image("gray.jpg").shape, read_image("gray.jpg", at_least=10).shape
        (torch.Size([3, 30, 40]), torch.Size([3, 15, 20]))
    """
    # Read all bytes first, to separate storage errors from decoding errors.
    return decode_image(read_bytes(path), path, channels, at_least, white)


def decode_image(
    content: bytes,
    path: str | Path = "",
    channels: int = 3,
    at_least: int | None = None,
    white: WhiteLevel | None = None,
) -> Tensor:
    """Decode the content of an image file, as :func:`read_image` does.

    Args:
        content: the bytes of the file.
        path: path of the file, for error messages.
        channels: see :func:`read_image`.
        at_least: see :func:`read_image`.
        white: see :func:`read_image`.

    Example:
        >>> content = BytesIO()
        >>> Image.new("L", (40, 30), 7).save(content, "JPEG")
        >>> decode_image(content.getvalue()).shape
        torch.Size([3, 30, 40])
    """
    white = WhiteLevel() if white is None else white
    try:
        image = Image.open(BytesIO(content))
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"cannot identify image file {str(path)!r}") from None
    with image:
        if at_least is not None:
            image.draft(MODES[channels], (at_least, at_least))
        is_cut = _is_cut(image)
        image.load()
        pixels = to_uint8(image, channels, white)
        if is_cut:
            white.note_cut(pixels)
        return pixels


def square(images: Tensor, size: int) -> Tensor:
    """Crop the largest central square, and resize it with antialiasing.

    Args:
        images: uint8 [..., C, H, W], at most 4 axes.
        size: side length of the result in pixels.

    Returns:
        uint8 [..., C, size, size].

    Example:
        >>> import torch
        >>> square(torch.arange(8, dtype=torch.uint8).view(1, 2, 4), 2)
        tensor([[[1, 2],
                 [5, 6]]], dtype=torch.uint8)
    """
    images = crop(images, min(images.shape[-2:]))
    if images.shape[-1] == size:
        return images
    batch = images if images.ndim == 4 else images[None]
    return interpolate(batch, (size, size), mode="bilinear", antialias=True).view(*images.shape[:-2], size, size)


def crop(images: Tensor, size: int) -> Tensor:
    """Crop the central square of ``size`` x ``size`` pixels from images [..., H, W], as torchvision does.

    Example:
        >>> import torch
        >>> crop(torch.arange(6).view(2, 3), 1)
        tensor([[1]])
    """
    top, left = (round((length - size) / 2) for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def _is_cut(image: ImageFile) -> bool:
    """Return whether an open file has 16 bits per channel, of which Pillow will keep only the upper 8."""
    return not image.mode.startswith("I") and ";16" in str(image.tile[:1])  # such as "RGB;16B"
