"""Operations that move pixels: random resized crop, horizontal flip, shift with reflection."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_modules.augmentations.operation import (
    ChoiceParameters,
    Operation,
    chance,
    change_chosen,
    check_probability,
    uniform,
)
from ssl_modules.utils.checks import check_interval, check_number

LARGE = 48  # pixels; on a CPU, crops from this size on are resized one by one
CANDIDATES = 10  # boxes tried per image before falling back to the central one, as in torchvision


class CropParameters(NamedTuple):
    """The box of each image, in pixels; int64, [N] each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class ShiftParameters(NamedTuple):
    """Which images to move (bool), and by how many pixels down and to the right (int64); [N] each."""

    applied: Tensor
    down: Tensor
    right: Tensor


class RandomResizedCrop(Operation):
    """Cuts a random box out of each image and resizes it to a square, as in Inception (Szegedy et al. 2015).

    The distribution of boxes and the antialiased interpolation equal those of torchvision's ``RandomResizedCrop``.

    Args:
        size: Side of the result, in pixels.
        scale: Smallest and largest area of a box, as a share of the image's area.
        ratio: Smallest and largest width / height of a box.
        interpolation: "bilinear" or "bicubic"; bicubic results are clamped to [0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> images = torch.rand(4, 3, 40, 48)
        >>> crop = RandomResizedCrop(32, scale=(0.2, 1.0))
        >>> crop(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    ) -> None:
        super().__init__()
        check_number("size", size, above=0)
        check_interval("scale", scale, above=0, most=1)
        check_interval("ratio", ratio, above=0)
        self.image_size = self.size = size
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> CropParameters:
        """Draws one box per image: the first of ten that fits, else the largest central one of allowed ratio."""
        n, _, rows, columns = images.shape
        random = torch.rand(4, n, CANDIDATES, generator=generator, device=images.device, dtype=torch.float32)
        area = rows * columns * (self.scale[0] + (self.scale[1] - self.scale[0]) * random[0])
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * random[1])
        width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()  # [N, candidates]
        fits = (width >= 1) & (width <= columns) & (height >= 1) & (height <= rows)
        top = (random[2] * (rows - height + 1)).floor()
        left = (random[3] * (columns - width + 1)).floor()

        first = fits.int().argmax(1, keepdim=True)
        fitting = fits.any(1)
        boxes = zip((top, left, height, width), self._central(rows, columns), strict=True)
        return CropParameters(*(drawn.gather(1, first)[:, 0].long().where(fitting, rest) for drawn, rest in boxes))

    def _central(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        height, width = rows, columns
        if columns / rows < self.ratio[0]:
            height = max(1, round(columns / self.ratio[0]))
        elif columns / rows > self.ratio[1]:
            width = max(1, round(rows * self.ratio[1]))
        return (rows - height) // 2, (columns - width) // 2, height, width

    def transform(self, images: Tensor, parameters: CropParameters) -> Tensor:
        """Crops and resizes the images."""
        n, channels, rows, columns = images.shape
        if images.device.type == "cpu" and max(self.size, rows, columns) >= LARGE:
            return self._one_by_one(images, parameters)
        top, left, height, width = parameters
        weights = _resize_weights(
            torch.cat([top, left]), torch.cat([height, width]), max(rows, columns), self.size, self.interpolation
        )
        vertical, horizontal = weights.chunk(2)  # [N, max(H, W), size] each
        lines = images.flatten(1, 2) @ horizontal[:, :columns]  # [N, ch H, size]
        resized = vertical[:, None, :rows].mT.contiguous() @ lines.view(n, channels, rows, self.size)
        return resized.clamp_(0, 1)

    def _one_by_one(self, images: Tensor, parameters: CropParameters) -> Tensor:
        """Resizes images one by one; on a CPU and for large boxes, faster than a matrix product of mostly zeros."""
        resized = images.new_empty(*images.shape[:2], self.size, self.size)
        for i, (top, left, height, width) in enumerate(zip(*(p.tolist() for p in parameters), strict=True)):
            box = images[i : i + 1, :, top : top + height, left : left + width]
            resized[i] = F.interpolate(box, (self.size, self.size), mode=self.interpolation, antialias=True)[0]
        return resized.clamp_(0, 1)


class RandomHorizontalFlip(Operation):
    """Mirrors an image left to right.

    Args:
        p: Probability for each image.

    Example:
        >>> RandomHorizontalFlip(p=1.0)(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
        tensor([[[[1.0000, 0.5000, 0.0000]]]])
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability(p)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> ChoiceParameters:
        """Draws which images to mirror."""
        return ChoiceParameters(chance(self.p, images, generator))

    def transform(self, images: Tensor, parameters: ChoiceParameters) -> Tensor:
        """Mirrors the chosen images."""
        return change_chosen(images, parameters.applied, lambda some, _: some.flip(3), cheap=True)


class RandomShift(Operation):
    """Moves an image by whole pixels and fills the gap by reflection, as AMDIM does at 32 px.

    The border pixel itself is not repeated. Bachman et al. 2019, arXiv 1906.00910.

    Args:
        pixels: Largest shift; the shift along each axis is drawn from U{-pixels, ..., pixels}.
        p: Probability for each image.
        size: Required side of the images, in pixels; None allows any.

    Raises:
        ValueError: if an argument is outside its range, or the images have the wrong size or are too small to shift.

    Example:
        >>> shift = RandomShift(pixels=2, p=1.0)
        >>> move = ShiftParameters(torch.tensor([True]), down=torch.tensor([0]), right=torch.tensor([2]))
        >>> shift.transform(torch.tensor([[[[0.1, 0.2, 0.3, 0.4]]]]), move)
        tensor([[[[0.3000, 0.2000, 0.1000, 0.2000]]]])
    """

    def __init__(self, pixels: int = 4, p: float = 0.8, size: int | None = None) -> None:
        super().__init__()
        check_number("pixels", pixels, least=0)
        if size is not None:
            check_number("size", size, above=pixels, fix="images have to be larger than the move")
        self.pixels = pixels
        self.p = check_probability(p)
        self.image_size = self.size = size

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> ShiftParameters:
        """Draws which images to shift, and the shift along both axes."""
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            raise ValueError(
                f"size: a shift makes no {self.size} x {self.size} pixels of images of {images.shape[2]} x "
                f"{images.shape[3]}; give the size of the images, or use crops"
            )
        if self.pixels >= min(images.shape[2:]):
            raise ValueError(
                f"pixels: images of {images.shape[2]} x {images.shape[3]} can't be reflected by {self.pixels} pixels; "
                "use fewer pixels or larger images"
            )
        moves = [uniform(-self.pixels, self.pixels + 1, images, generator).floor().long() for _ in range(2)]
        return ShiftParameters(chance(self.p, images, generator), *moves)

    def transform(self, images: Tensor, parameters: ShiftParameters) -> Tensor:
        """Shifts the chosen images by indexing."""
        applied, down, right = parameters
        n, channels, height, width = images.shape
        rows = _reflect(torch.arange(height, device=images.device) - (down * applied)[:, None], height)  # [N, H]
        columns = _reflect(torch.arange(width, device=images.device) - (right * applied)[:, None], width)  # [N, W]
        image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
        return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _reflect(index: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - index.abs()).abs()


def _resize_weights(start: Tensor, length: Tensor, full: int, size: int, interpolation: str) -> Tensor:
    """Weights [N, full, size] that resize the pixels start ... start + length - 1 of an axis to ``size`` pixels."""
    kernel, radius = KERNELS[interpolation]
    scale = length.float()[:, None] / size  # [N, 1]
    centre = (torch.arange(size, dtype=torch.float32, device=start.device) + 0.5) * scale - 0.5  # [N, size]
    # Antialiasing: the kernel is widened by the scale, so it averages all pixels that shrink into one.
    support = scale.clamp(min=1)
    # Few pixels have a weight; their indices are relative to the start of the crop: [N, taps, size].
    taps = torch.arange(2 * math.ceil(radius * max(1, full / size)), dtype=torch.float32, device=start.device)
    pixel = (centre - radius * support).ceil_()[:, None] + taps[:, None]
    weights = kernel(((pixel - centre[:, None]) / support[:, :, None]).abs_())
    inside = pixel.clamp(min=0).minimum(length[:, None, None] - 1)
    weights *= pixel == inside
    weights /= weights.sum(1, keepdim=True)
    row = (inside + start[:, None, None]).long()
    return weights.new_zeros(len(start), full, size).scatter_add_(1, row, weights)


def _linear(x: Tensor) -> Tensor:
    return (1 - x).clamp_(min=0)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """The cubic convolution kernel (Keys 1981)."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


KERNELS = {"bilinear": (_linear, 1), "bicubic": (_cubic, 2)}  # kernel, and the distance from which it is 0
