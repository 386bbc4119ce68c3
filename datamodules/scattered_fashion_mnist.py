"""Fashion-MNIST scattered. Garments have a random place, size and brightness on a cluttered canvas."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_modules.datamodules.fashion_mnist import FashionMNISTDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator

SIDE = 28  # of the original images
PIECE = 8  # side of a piece of clutter
SMALLEST = 16  # smallest side of a garment
DARKEST = 0.4  # smallest factor of a garment's brightness
DIMMED = 0.5  # factor of the brightness of a piece


class ScatteredFashionMNISTDataModule(FashionMNISTDataModule):
    """Fashion-MNIST with each garment at a random place, in a random size and brightness, on a cluttered canvas.

    Each garment is scaled to a side of 16 to 28 pixels, multiplied by a brightness of 0.4 to 1, and put at a random
    place of a black canvas. Eight pieces of 8 x 8 pixels lie around and behind it. They are cut from other images of
    the same part and are half as bright. Each pixel is the maximum of garment and pieces. In the original images the
    garments are centred, so raw pixels are good features. On these canvases, raw pixels are not good features. Place,
    size, brightness and clutter of an image depend only on ``scatter_seed`` and the image's row, not on ``seed`` or
    ``subset``.

    Parts, targets and ``coarse`` are those of :class:`FashionMNISTDataModule`. The idea of cluttered canvases is from
    Mnih et al., "Recurrent Models of Visual Attention", NeurIPS 2014, arXiv:1406.6247, section 4.1. We chose the sizes,
    the brightness and the number of pieces. Mean and standard deviation are those of the 60,000 training images at 40
    pixels.

    Args:
        root: folder of data sets; see :class:`FashionMNISTDataModule`.
        image_size: side of the canvas, pixels, at least 28.
        pieces: number of pieces of clutter on each canvas.
        scatter_seed: seed of place, size, brightness and clutter.
        settings: keyword arguments of :class:`FashionMNISTDataModule`, such as coarse, subset and batch_size.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = ScatteredFashionMNISTDataModule(coarse=True)
        >>> data.num_classes, data.dims
        (10, (1, 40, 40))
    """

    name = "scattered_fashion_mnist"
    dims = (1, 40, 40)
    mean = (0.10964311111111111,)
    std = (0.19336095274762233,)

    def __init__(
        self,
        root: str | Path = "data",
        *,
        image_size: int = 40,
        pieces: int = 8,
        scatter_seed: int = 0,
        **settings: Any,
    ) -> None:
        check_number("image_size", image_size, least=SIDE)
        check_number("pieces", pieces, least=0)
        check_number("scatter_seed", scatter_seed, least=0)
        self.dims = (1, image_size, image_size)
        super().__init__(root, **settings)
        self.pieces = pieces
        self.scatter_seed = scatter_seed

    def _part(self, folder: Path, part: str) -> TensorImages:
        plain = super()._part(folder, part)
        generator = derive_generator("scattered_fashion_mnist", part, self.scatter_seed)
        return TensorImages(scatter(plain.images, self.image_size, self.pieces, generator), plain.targets)


def scatter(images: Tensor, size: int, pieces: int, generator: torch.Generator) -> Tensor:
    """Put each image at a random place of a canvas, in a random size and brightness, among pieces of other images.

    Args:
        images: uint8 [N, 1, 28, 28].
        size: side of the canvases, pixels.
        pieces: number of pieces of clutter on each canvas.
        generator: source of randomness.

    Returns:
        uint8 [N, 1, size, size].

    Example:
        >>> white = torch.full((2, 1, 28, 28), 255, dtype=torch.uint8)
        >>> canvases = scatter(white, 40, 0, torch.Generator().manual_seed(0))
        >>> canvases.shape, (canvases > 0).float().mean() < 0.5
        (torch.Size([2, 1, 40, 40]), tensor(True))
    """
    n = len(images)
    sides = torch.randint(SMALLEST, SIDE + 1, (n,), generator=generator)
    brightness = DARKEST + (1 - DARKEST) * torch.rand(n, generator=generator)
    places = torch.rand(2, n, generator=generator)
    canvases = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    for side in range(SMALLEST, SIDE + 1):
        rows = (sides == side).nonzero()[:, 0]
        scaled = interpolate(images[rows].float(), (side, side), mode="bilinear", antialias=True)
        garments = (scaled * brightness[rows, None, None, None]).round().to(torch.uint8)
        _paste(canvases, rows, garments, (places[:, rows] * (size - side + 1)).long())
    for _ in range(pieces):
        others = torch.randint(n, (n,), generator=generator)
        corners = torch.randint(SIDE - PIECE + 1, (2, n), generator=generator)
        cut = (images[others[:, None, None], 0, *_square(corners, PIECE)][:, None] * DIMMED).to(torch.uint8)
        _paste(canvases, torch.arange(n), cut, torch.randint(size - PIECE + 1, (2, n), generator=generator))
    return canvases


def _paste(canvases: Tensor, rows: Tensor, patches: Tensor, corners: Tensor) -> None:
    """Put patches [R, 1, side, side] on some canvases, at the corners [2, R]. The brighter pixel is kept."""
    index = rows[:, None, None], 0, *_square(corners, patches.shape[-1])
    canvases[index] = canvases[index].maximum(patches[:, 0])


def _square(corners: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the rows [R, side, 1] and the columns [R, 1, side] of the squares at the corners [2, R]."""
    steps = torch.arange(side)
    return corners[0, :, None, None] + steps[:, None], corners[1, :, None, None] + steps
