"""From an image file to uint8 pixels, no larger than they are needed."""

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

    It is turned upright where its Exif orientation says how. Transparency is dropped; 16 bits become the nearest of 8,
    but of colours Pillow gives the upper 8; of an animation the first picture is taken.

    Args:
        path: of the file.
        channels: 3 for colour, 1 for gray; an image of the other kind is converted.
        at_least: pixels that the shorter side needs; a JPEG is then decoded at a half, a quarter or an eighth of its
            size where that is enough, which is faster. None for full size.

    Returns:
        uint8 [channels, H, W].

    Raises:
        OSError: if the file is missing, cut short or no image.
        ValueError: if its pixels are neither of 8 nor of 16 bits.

    Example:
        >>> Image.new("L", (40, 30), 7).save("gray.jpg")
        >>> read_image("gray.jpg").shape, read_image("gray.jpg", at_least=10).shape
        (torch.Size([3, 30, 40]), torch.Size([3, 15, 20]))
    """
    with Image.open(path) as image:
        if at_least is not None:
            image.draft(MODES[channels], (at_least, at_least))
        image.load()
        with suppress(Exception):  # faults in what is noted beside the pixels, which are whole
            ImageOps.exif_transpose(image, in_place=True)
        return pil_to_tensor(_convert(image, MODES[channels]))


def square(images: Tensor, size: int) -> Tensor:
    """Cuts out the largest central square, and resizes it with antialiasing.

    Args:
        images: uint8 [..., C, H, W], of at most 4 axes.
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
            raise ValueError(f"an image of {levels.min()} to {levels.max()}, which are not 16 bits")
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("an image of floats, whose black and white are unknown; save it with 8 or 16 bits")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of doing it at once
    return image if image.mode == mode else image.convert(mode)
