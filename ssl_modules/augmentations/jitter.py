"""Colour jitter with a random order of the changes per image."""

from functools import cache, partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_modules.augmentations.color import LUMA, check_color, gray
from ssl_modules.augmentations.operation import (
    Operation,
    Rows,
    chance,
    change_chosen,
    check_probability,
    rows_of,
    uniform,
)
from ssl_modules.utils.checks import check_number

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # values in ``order``
GRAY = 1e-12  # the chroma below which a pixel has no hue


class JitterParameters(NamedTuple):
    """Which images to change, the factors, the hue shift in turns, and the order of the four changes.

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

    ``mode="exact"``: each change equals torchvision's on float images, including the clamp to [0, 1] after it.

    ``mode="linear"``: the four changes are combined into one affine map of an image's colours, which takes a fraction
    of the time. Brightness, contrast and saturation equal "exact" except for the clamp, which is applied once at the
    end. The hue is rotated about the gray axis of YIQ, which keeps the luma; HSV keeps the largest channel instead.
    The modes hardly differ for small jitters of mid-tones, but do for strongly saturated colours. On smooth coloured
    noise, with SimCLR's strength of 0.5, they differ by 0.04 on average; the jitter itself changes pixels by 0.13.

    Images of one channel have neither saturation nor hue. Images with a number of channels other than 1 or 3 allow
    only brightness and contrast; their gray is the mean of the channels.

    Args:
        brightness: b >= 0; the factor is drawn from U[max(0, 1 - b), 1 + b].
        contrast: The same, about the image's mean gray.
        saturation: The same, about each pixel's gray.
        hue: h in [0, 0.5]; the shift is drawn from U[-h, h] turns of the colour circle.
        p: Probability for each image.
        mode: "exact" or "linear", see above.

    Raises:
        ValueError: if an argument is outside its range, or saturation or hue is above 0 and the images have neither 1
            nor 3 channels.

    Example:
        >>> jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        >>> jitter.draw(torch.rand(1, 3, 8, 8), torch.Generator().manual_seed(0)).order
        tensor([[0, 2, 1, 3]])
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        p: float = 0.8,
        *,
        mode: Literal["exact", "linear"] = "exact",
    ) -> None:
        super().__init__()
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            check_number(name, value, least=0)
        check_number("hue", hue, least=0, most=0.5)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.p = check_probability(p)
        self.mode = mode

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> JitterParameters:
        """Draws which images to change, and the factors, hue shift and order for each."""
        brightness, contrast, saturation = (
            uniform(max(0.0, 1 - strength), 1 + strength, images, generator)
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        hue = uniform(-self.hue, self.hue, images, generator)
        order = torch.rand(len(images), 4, generator=generator, device=images.device, dtype=torch.float32).argsort(1)
        applied = chance(self.p, images, generator)
        return JitterParameters(applied, brightness, contrast, saturation, hue, order)

    def group_key(self, parameters: JitterParameters) -> Tensor:
        """The step at which the hue changes, -1 for images that don't change."""
        return _hue_step(parameters.order).where(parameters.applied, -1)

    def check_channels(self, in_channels: int) -> None:
        """Raises if saturation or hue is above 0 and images have neither 1 nor 3 channels."""
        if self.saturation > 0 or self.hue > 0:
            check_color("ColorJitter with saturation or hue", in_channels)

    def transform(self, images: Tensor, parameters: JitterParameters) -> Tensor:
        """Changes the chosen images, each in its own order."""
        self.check_channels(images.shape[1])
        applied, rgb = parameters.applied, images.shape[1] == 3
        if self.mode == "linear":
            return change_chosen(images, applied, partial(_jitter_linearly, parameters))
        hue = parameters.hue if self.hue > 0 and rgb else None
        steps, hue_step = _blends(parameters, rgb), _hue_step(parameters.order)
        if images.device.type != "cpu":
            return change_chosen(images, applied, partial(_jitter_side_by_side, steps, hue, hue_step))
        for step in range(4):
            images = change_chosen(images, applied & (hue_step == step), partial(_jitter, steps, hue, step))
        return images


def _hue_step(order: Tensor) -> Tensor:
    return (order == HUE).int().argmax(1)


def _blends(parameters: JitterParameters, rgb: bool) -> Tensor:
    """Weights of the pixel itself, its gray, and the mean gray, for each of an image's four steps; [3, 4, N].

    Three of the four changes are blends f x + (1 - f) y, where y is black (brightness), the mean gray (contrast) or
    the gray (saturation).
    """
    order = parameters.order.T  # [4, N]
    one = torch.ones_like(parameters.hue)
    factors = [parameters.brightness, parameters.contrast, parameters.saturation if rgb else one, one]
    factor = torch.stack(factors).gather(0, order)
    return torch.stack([factor, (1 - factor) * (order == SATURATION), (1 - factor) * (order == CONTRAST)])


def _jitter(steps: Tensor, hue: Tensor | None, hue_step: int, images: Tensor, rows: Rows) -> Tensor:
    """Jitter images whose hue changes at the same step: three blends and the hue."""
    images = _blend(images, steps[:, :hue_step, rows])
    if hue is not None:
        images = _shift_hue(images, hue[rows])
    return _blend(images, steps[:, hue_step + 1 :, rows])


def _jitter_side_by_side(steps: Tensor, hue: Tensor | None, hue_step: Tensor, images: Tensor, rows: Rows) -> Tensor:
    """Jitter images of any order: six blends, three of them without effect on a given image, and the hue."""
    before = hue_step > torch.arange(4, device=images.device)[:, None]  # [4, N]
    same = torch.eye(3, 1, device=images.device)[..., None]  # [3, 1, 1], the pixel itself
    images = _blend(images, steps.where(before, same)[:, :3, rows])
    if hue is not None:
        images = _shift_hue(images, hue[rows])
    return _blend(images, steps.where(~before, same)[:, 1:, rows])


def _blend(images: Tensor, steps: Tensor) -> Tensor:
    for of_pixel, of_gray, of_mean in steps[..., None, None, None].unbind(1):  # [N, 1, 1, 1] each
        luma = gray(images)
        rest = torch.addcmul(luma.mean((2, 3), keepdim=True) * of_mean, luma, of_gray)
        images = torch.addcmul(rest, images, of_pixel).clamp_(0, 1)
    return images


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shifts the HSV hue of RGB images by ``shift`` [N] turns, without converting them to HSV.

    With each pixel's colours spread to [0, 1], r' = (r - low) / chroma, the hue in sextants is +-(1 + g' + b' - r'),
    with the sign of g - b. Each channel is a trapezoid of the hue: 1 for two sextants, 0 for two, linear in between.
    """
    red, green, blue = images.unbind(1)  # [N, H, W] each
    high = torch.maximum(red, torch.maximum(green, blue))
    low = torch.minimum(red, torch.minimum(green, blue))
    chroma = high - low
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=GRAY)).add_(1).copysign_(green - blue)
    hue.add_(6 * shift[:, None, None])
    hue.sub_((hue / 6).floor_(), alpha=6)  # in [0, 6]

    # low + chroma ramp; the ramps are |hue - 3| - 1 for red, 2 - |hue - 2| for green, 2 - |hue - 4| for blue, in [0, 1]
    shifted = torch.empty_like(images)
    torch.addcmul(low - chroma, chroma, (hue - 3).abs_().clamp_(1, 2), out=shifted[:, 0])
    full = torch.add(low, chroma, alpha=2)
    torch.addcmul(full, chroma, (hue - 2).abs_().clamp_(1, 2), value=-1, out=shifted[:, 1])
    torch.addcmul(full, chroma, (hue - 4).abs_().clamp_(1, 2), value=-1, out=shifted[:, 2])
    return shifted


def _jitter_linearly(parameters: JitterParameters, images: Tensor, rows: Rows) -> Tensor:
    """Apply one affine map of the colours per image; it depends on the image only through its mean colour."""
    matrix, of_mean = _fold(rows_of(parameters, rows), images.shape[1])
    pixels = images.flatten(2)  # [N, ch, H W]
    offset = of_mean @ pixels.mean(2, keepdim=True)  # [N, ch, 1]
    return torch.baddbmm(offset, matrix, pixels).clamp_(0, 1).view_as(images)


def _fold(parameters: JitterParameters, channels: int) -> tuple[Tensor, Tensor]:
    """Matrices A, B [N, ch, ch]: the jittered pixel is A times the pixel plus B times the image's mean colour."""
    order, device = parameters.order, parameters.order.device
    brightness, contrast, saturation, hue = (values[:, None, None] for values in parameters[1:5])
    same = torch.eye(channels, device=device)
    to_gray = same.new_full((channels, channels), 1 / channels)
    if channels == 3:
        to_gray = _luma(device).expand(3, 3)
    turned = _hue_rotation(hue) if channels == 3 else same.expand(len(order), channels, channels)
    changes = torch.stack([brightness * same, contrast * same, torch.lerp(to_gray, same, saturation), turned], 1)
    changes = changes.take_along_dim(order[:, :, None, None], 1)  # [N, 4, ch, ch], in order
    to_mean = (1 - contrast) * (order == CONTRAST)[:, :, None]  # [N, 4, 1]

    matrix, of_mean = same, torch.zeros_like(same)
    for change, share in zip(changes.unbind(1), to_mean[..., None].unbind(1), strict=True):
        # Only contrast uses the mean gray, which at this step is to_gray (matrix + of_mean) mean.
        matrix, of_mean = change @ matrix, change @ of_mean + share * (to_gray @ (matrix + of_mean))
    return matrix, of_mean


def _hue_rotation(shift: Tensor) -> Tensor:
    """Matrices [N, 3, 3] that rotate RGB colours about the gray axis of YIQ by ``shift`` [N, 1, 1] turns."""
    angle = 2 * torch.pi * shift
    stays, in_phase, in_quadrature = _hue_basis(shift.device)
    return stays + angle.cos() * in_phase + angle.sin() * in_quadrature


@cache  # each copy to a GPU would wait until the GPU is idle
def _luma(device: torch.device) -> Tensor:
    return torch.tensor(LUMA, device=device)


@cache
def _hue_basis(device: torch.device) -> Tensor:
    return _HUE_ROTATION.to(device)


def _in_rgb(of_yiq: list[list[float]]) -> Tensor:
    to_yiq = torch.tensor([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    return torch.linalg.inv(to_yiq) @ torch.tensor(of_yiq) @ to_yiq


# The rotation by an angle a is the sum of the first matrix, cos a times the second, and sin a times the third.
_HUE_ROTATION = torch.stack(
    [
        _in_rgb([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        _in_rgb([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        _in_rgb([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    ]
)
