"""Decode image files to uint8 pixels, no larger than needed."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import pil_to_tensor

MODES = {1: "L", 3: "RGB"}  # by number of channels
WIDE = ("I", "I;16", "I;16B", "I;16L")  # modes of 16-bit images


def read_image(path: str | Path, channels: int = 3, at_least: int | None = None) -> Tensor:
    """The pixels of an image file of any format that Pillow reads, of 8 or 16 bits.

    The image is rotated by its Exif orientation, and transparency is dropped. 16 bits are rounded to 8 (in colour
    images Pillow cuts off the lower 8). An animation gives its first frame.

    Args:
        path: of the file.
        channels: 3 for colour, 1 for gray; an image of the other kind is converted.
        at_least: length that the shorter side needs, in pixels: a JPEG is decoded at a half, a quarter or an eighth of
            its size if that is enough, which is faster. None for full size.

    Returns:
        uint8 [channels, H, W].

    Raises:
        OSError: if the file is missing, truncated or not an image.
        ValueError: if its pixels have neither 8 nor 16 bits.

    Example:
        >>> Image.new("L", (40, 30), 7).save("gray.jpg")
        >>> read_image("gray.jpg").shape, read_image("gray.jpg", at_least=10).shape
        (torch.Size([3, 30, 40]), torch.Size([3, 15, 20]))
    """
    with Image.open(path) as image:
        if at_least is not None:
            image.draft(MODES[channels], (at_least, at_least))
        image.load()
        with suppress(Exception):  # faulty metadata; the pixels are complete
            ImageOps.exif_transpose(image, in_place=True)
        return pil_to_tensor(_convert(image, MODES[channels]))


def square(images: Tensor, size: int) -> Tensor:
    """Crop the largest central square, and resize it with antialiasing.

    Args:
        images: uint8 [..., C, H, W], at most 4 axes.
        size: side of the result, in pixels.

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
    """The central square of images [..., H, W], of ``size`` pixels a side, as torchvision takes it.

    Example:
        >>> import torch
        >>> crop(torch.arange(6).view(2, 3), 1)
        tensor([[1]])
    """
    top, left = (round((length - size) / 2) for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in WIDE:
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"expected pixels of 8 or 16 bits, got values from {levels.min()} to {levels.max()}")
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError(
            "expected pixels of 8 or 16 bits, got floats of unknown range; save the image with 8 or 16 bits"
        )
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns if this step is left out
    return image if image.mode == mode else image.convert(mode)
