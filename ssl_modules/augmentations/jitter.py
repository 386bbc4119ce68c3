"""Colour jitter in an order of its own for each image."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_modules.augmentations.color import gray, is_rgb
from ssl_modules.augmentations.operation import Operation, chance, check_probability, per_image, uniform

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the entries of ``order``


class JitterParameters(NamedTuple):
    """Which images change, the factors, the hue shift in turns, and the order of the four changes.

    ``applied`` is bool [N]; the next four are float32 [N]; ``order`` is int64 [N, 4], each row a permutation of
    0 (brightness), 1 (contrast), 2 (saturation), 3 (hue).
    """

    applied: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor


class ColorJitter(Operation):
    """Changes brightness, contrast, saturation and hue, in an order drawn for each image (Howard 2013).

    Each change equals torchvision's on float images, the clamp to [0, 1] after it included. Images of one channel
    have neither saturation nor hue.

    Args:
        brightness: b >= 0; the factor is drawn from U[max(0, 1 - b), 1 + b].
        contrast: The same, about the image's mean gray.
        saturation: The same, about each pixel's gray.
        hue: h in [0, 0.5]; the shift is drawn from U[-h, h] turns of the colour circle.
        p: Probability for each image.

    Raises:
        ValueError: if an argument is out of its range, or the images have neither 1 nor 3 channels.

    Example:
        >>> jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        >>> jitter.draw(torch.rand(1, 3, 8, 8), torch.Generator().manual_seed(0)).order
        tensor([[0, 2, 1, 3]])
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0, p: float = 0.8
    ) -> None:
        super().__init__()
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise ValueError(f"{name}: expected 0 or more, but got {value}")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue: expected a shift in [0, 0.5] turns, but got {hue}")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.p = check_probability(p)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> JitterParameters:
        """Draws factors, shift and order for each image."""
        brightness, contrast, saturation = (
            uniform(max(0.0, 1 - strength), 1 + strength, images, generator)
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        hue = uniform(-self.hue, self.hue, images, generator)
        order = torch.rand(len(images), 4, generator=generator, device=images.device, dtype=torch.float32).argsort(1)
        applied = chance(self.p, images, generator)
        return JitterParameters(applied, brightness, contrast, saturation, hue, order)

    def transform(self, images: Tensor, parameters: JitterParameters) -> Tensor:
        """The changes that come before the hue in each image's order, the hue, then those that come after it."""
        applied, brightness, contrast, saturation, hue, order = parameters
        if not is_rgb(images):
            saturation = torch.ones_like(saturation)
        # Three of the four changes are a blend; factor 1 leaves an image exactly as it is.
        factors = torch.stack([brightness, contrast, saturation, torch.ones_like(hue)], 1).gather(1, order)  # [N, 4]
        hue_step = (order == HUE).int().argmax(1)

        jittered = images
        for step in (0, 1, 2):
            jittered = _blend(jittered, order[:, step], factors[:, step].where(step < hue_step, 1.0))
        if self.hue > 0 and is_rgb(images):
            jittered = _shift_hue(jittered, hue)
        for step in (1, 2, 3):
            jittered = _blend(jittered, order[:, step], factors[:, step].where(step > hue_step, 1.0))
        return torch.where(per_image(applied), jittered, images)


def _blend(images: Tensor, change: Tensor, factor: Tensor) -> Tensor:
    """clamp(f x + (1 - f) y), where y is black (brightness), the mean gray (contrast) or the gray (saturation)."""
    luma = gray(images)
    target = luma.mean((2, 3), keepdim=True).where(per_image(change == CONTRAST), luma)
    target = target.where(per_image(change != BRIGHTNESS), 0.0)
    factor = per_image(factor)
    return (factor * images + (1 - factor) * target).clamp(0, 1)


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of RGB images by ``shift`` [N] turns, in HSV, without leaving RGB."""
    red, green, blue = images.unbind(1)  # [N, H, W] each
    low, high = images.aminmax(dim=1)
    chroma = high - low
    divisor = chroma.where(chroma > 0, 1.0)
    sextant = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant = sextant + 6 * shift[:, None, None]
    # Each channel is a trapezoid of the hue: full for two sextants, empty for two, a ramp in between.
    distance = [(sextant + offset).remainder(6) for offset in (5, 3, 1)]  # red, green, blue
    return torch.stack([high - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in distance], 1)
