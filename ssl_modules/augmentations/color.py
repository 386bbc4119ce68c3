"""Operations on colours: grayscale, solarise, colour drop."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_modules.augmentations.operation import (
    ChoiceParameters,
    Operation,
    Rows,
    chance,
    change_chosen,
    check_probability,
    uniform,
)
from ssl_modules.utils.checks import check_number

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue, as in torchvision (ITU-R BT.601)


class DropParameters(NamedTuple):
    """Which images to change (bool), and the channel to keep (int64); [N] each."""

    applied: Tensor
    channel: Tensor


class RandomGrayscale(Operation):
    """Turns an image gray and keeps its number of channels; an image of one channel is unchanged.

    Args:
        p: Probability for each image.

    Raises:
        ValueError: if p is outside [0, 1], or the images have neither 1 nor 3 channels.

    Example:
        >>> RandomGrayscale(p=1.0)(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([0.5924, 0.5924, 0.5924])
    """

    def __init__(self, p: float = 0.2) -> None:
        super().__init__()
        self.p = check_probability(p)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> ChoiceParameters:
        """Draws which images to turn gray."""
        return ChoiceParameters(chance(self.p, images, generator))

    def check_channels(self, in_channels: int) -> None:
        """Raises unless images have 1 or 3 channels."""
        check_color("RandomGrayscale", in_channels)

    def transform(self, images: Tensor, parameters: ChoiceParameters) -> Tensor:
        """Turns the chosen images gray."""
        self.check_channels(images.shape[1])
        if images.shape[1] == 1:
            return images
        return change_chosen(images, parameters.applied, lambda some, _: gray(some).repeat(1, 3, 1, 1))


class RandomSolarize(Operation):
    """Inverts the pixels at or above a threshold (BYOL: Grill et al. 2020, arXiv 2006.07733).

    Args:
        threshold: In [0, 1].
        p: Probability for each image.

    Example:
        >>> RandomSolarize(p=1.0)(torch.tensor([[[[0.25, 0.5, 1.0]]]]))
        tensor([[[[0.2500, 0.5000, 0.0000]]]])
    """

    def __init__(self, threshold: float = 0.5, p: float = 0.2) -> None:
        super().__init__()
        check_number("threshold", threshold, least=0, most=1)
        self.threshold = threshold
        self.p = check_probability(p)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> ChoiceParameters:
        """Draws which images to solarise."""
        return ChoiceParameters(chance(self.p, images, generator))

    def transform(self, images: Tensor, parameters: ChoiceParameters) -> Tensor:
        """Inverts the bright pixels of the chosen images."""
        return change_chosen(images, parameters.applied, self._solarize)

    def _solarize(self, images: Tensor, rows: Rows) -> Tensor:
        return torch.where(images >= self.threshold, 1 - images, images)


class ColorDrop(Operation):
    """Keeps one of three channels and sets the other two to zero.

    This hides the chromatic aberration of lenses, which would reveal a patch's position (CPC v2: Hénaff et al. 2020,
    arXiv 1905.09272). An image of one channel is unchanged.

    Args:
        p: Probability for each image.

    Raises:
        ValueError: if p is outside [0, 1], or the images have neither 1 nor 3 channels.

    Example:
        >>> keep = DropParameters(torch.tensor([True]), channel=torch.tensor([1]))
        >>> ColorDrop().transform(torch.tensor([1.0, 0.5, 0.2]).view(1, 3, 1, 1), keep).flatten()
        tensor([0.0000, 0.5000, 0.0000])
    """

    def __init__(self, p: float = 0.2) -> None:
        super().__init__()
        self.p = check_probability(p)

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> DropParameters:
        """Draws which images to change, and the channel to keep for each."""
        return DropParameters(chance(self.p, images, generator), uniform(0, 3, images, generator).long())

    def check_channels(self, in_channels: int) -> None:
        """Raises unless images have 1 or 3 channels."""
        check_color("ColorDrop", in_channels)

    def transform(self, images: Tensor, parameters: DropParameters) -> Tensor:
        """Sets all channels but the kept one to zero."""
        self.check_channels(images.shape[1])
        if images.shape[1] == 1:
            return images
        kept = torch.arange(3, device=images.device) == parameters.channel[:, None]  # [N, 3]
        return images * (kept | ~parameters.applied[:, None])[:, :, None, None]


def check_color(operation: str, in_channels: int) -> None:
    """Raises unless the number of channels is 3 (colour) or 1 (gray).

    Args:
        operation: Name of the operation, for the error message.
        in_channels: Number of image channels.

    Raises:
        ValueError: for any other number of channels.

    Example:
        >>> check_color("RandomGrayscale", 3)
    """
    if in_channels not in (1, 3):
        raise ValueError(
            f"augmentation: {operation} needs 1 or 3 channels, got in_channels={in_channels}; crop, flip, shift, blur, "
            "solarise and ColorJitter(brightness, contrast) take any number"
        )


def gray(images: Tensor) -> Tensor:
    """Gray images [N, 1, H, W] of images [N, ch, H, W]: the luma (ITU-R BT.601) if ch is 3, else the channels' mean."""
    channels = images.shape[1]
    if channels == 1:
        return images
    if channels != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
