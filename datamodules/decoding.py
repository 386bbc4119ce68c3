"""Decode image files to uint8 pixels, no larger than needed."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import pil_to_tensor

MODES = {1: "L", 3: "RGB"}  # Pillow's mode by number of channels
WIDE = ("I", "I;16", "I;16B", "I;16L")  # Pillow's modes of 16-bit images


def read_image(path: str | Path, channels: int = 3, at_least: int | None = None) -> Tensor:
    """Read an image file with 8 or 16 bits per channel, in any format that Pillow reads.

    The image is rotated by its Exif orientation, and transparency is dropped. 16-bit values are rounded to 8 bits (in
    colour images Pillow drops the lower 8 bits). Of an animation, the first frame is read.

    Args:
        path: path of the file.
        channels: 3 for colour, 1 for gray; other images are converted.
        at_least: minimum length of the shorter side in pixels: a JPEG is decoded at a half, a quarter or an eighth of
            its size if that is large enough, which is faster; None for full size.

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
        with suppress(Exception):  # the metadata is faulty, but the pixels are complete
            ImageOps.exif_transpose(image, in_place=True)
        return pil_to_tensor(_convert(image, MODES[channels]))


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
        image = image.convert("RGBA")  # Pillow warns without this step
    return image if image.mode == mode else image.convert(mode)
