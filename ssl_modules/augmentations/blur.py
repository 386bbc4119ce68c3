"""Gaussian blur with a random width per image."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_modules.augmentations.operation import (
    Operation,
    chance,
    change_chosen,
    check_probability,
    per_image,
    uniform,
)
from ssl_modules.utils.checks import check_interval


class BlurParameters(NamedTuple):
    """Which images to blur (bool), and the standard deviation of the Gaussian in pixels (float32); [N] each."""

    applied: Tensor
    sigma: Tensor


class GaussianBlur(Operation):
    """Blurs an image with a Gaussian, reflecting it at the border (SimCLR: Chen et al. 2020, arXiv 2002.05709).

    Args:
        kernel_size: Side of the kernel in pixels, odd; None is about a tenth of the images' shorter side, at least 3.
        sigma: Smallest and largest standard deviation, in pixels.
        p: Probability for each image.

    Raises:
        ValueError: if an argument is outside its range, or the images are too small for the kernel.

    Example:
        >>> images = torch.zeros(1, 1, 5, 5)
        >>> images[0, 0, 2, 2] = 1
        >>> blur = GaussianBlur(kernel_size=3)
        >>> blurred = blur.transform(images, BlurParameters(torch.tensor([True]), sigma=torch.tensor([1.0])))
        >>> blurred[0, 0, 2]
        tensor([0.0000, 0.1238, 0.2042, 0.1238, 0.0000])
    """

    def __init__(self, kernel_size: int | None = None, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5) -> None:
        super().__init__()
        if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
            raise ValueError(f"kernel_size: expected a positive odd number of pixels, got {kernel_size}")
        self.kernel_size = kernel_size
        check_interval("sigma", sigma, above=0)
        self.sigma = sigma
        self.p = check_probability(p)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> BlurParameters:
        """Draws which images to blur, and a width for each."""
        return BlurParameters(chance(self.p, images, generator), uniform(*self.sigma, images, generator))

    def transform(self, images: Tensor, parameters: BlurParameters) -> Tensor:
        """Blurs the chosen images, each with its own kernel."""
        height, width = images.shape[2:]
        size = self.kernel_size or default_kernel_size(min(height, width))
        radius = size // 2
        if radius >= min(height, width):
            raise ValueError(
                f"kernel_size: images of {height} x {width} can't be reflected by {radius} pixels; lower it"
            )
        return change_chosen(images, parameters.applied, lambda some, rows: _blur(some, parameters.sigma[rows], radius))


def _blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Weighted sums of shifted images, first along the columns, then along the rows."""
    distance = torch.arange(radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)  # [N, radius + 1]
    weights = weights / (2 * weights.sum(1, keepdim=True) - 1)
    images = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    for axis in (3, 2):
        size = images.shape[axis] - 2 * radius
        centre, *others = (per_image(weight) for weight in weights.unbind(1))
        blurred = images.narrow(axis, radius, size) * centre
        for shift, weight in enumerate(others, start=1):
            both = images.narrow(axis, radius - shift, size) + images.narrow(axis, radius + shift, size)
            blurred.addcmul_(both, weight)
        images = blurred
    return images.clamp_(0, 1)


def default_kernel_size(side: int) -> int:
    """A tenth of the side, made odd, at least 3.

    Example:
        >>> [default_kernel_size(side) for side in (8, 32, 96, 224)]
        [3, 3, 9, 23]
    """
    size = max(3, side // 10)
    return size + 1 - size % 2
