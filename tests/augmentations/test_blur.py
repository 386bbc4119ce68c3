import pytest
import torch
from pictures import generator
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import GaussianBlur


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "given", "size"), [((32, 32), None, 3), ((32, 32), 9, 9), ((60, 72), None, 7)])
def test_blur_equals_torchvision(side, given, size, channels):
    images = torch.rand(16, channels, *side, generator=generator())
    blur = GaussianBlur(given, p=0.7)
    parameters = blur.draw(images, generator(1))
    expected = [
        tv.gaussian_blur(image, [size, size], [float(sigma)] * 2) if applied else image
        for image, applied, sigma in zip(images, *parameters, strict=True)
    ]
    torch.testing.assert_close(blur.transform(images, parameters), torch.stack(expected), rtol=0, atol=1e-6)


def test_draws_follow_their_distributions():
    n = 10_000
    applied, sigma = GaussianBlur(sigma=(0.1, 2.0), p=0.3).draw(torch.empty(1, 1, 1, 1).expand(n, 1, 1, 1), generator())
    assert abs(applied.float().mean() - 0.3) < 4 * (0.21 / n) ** 0.5
    assert 0.1 <= sigma.min() < 0.11
    assert 1.99 < sigma.max() <= 2.0
    assert abs(sigma.mean() - 1.05) < 4 * 1.9 * (1 / 12 / n) ** 0.5


def test_blur_of_small_images_raises():
    with pytest.raises(ValueError, match="kernel_size: images of 4 x 8 can't be reflected by 4 pixels"):
        GaussianBlur(9)(torch.rand(1, 1, 4, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size: .* got 4"),
        ({"kernel_size": 0}, "kernel_size: .* got 0"),
        ({"sigma": (0.0, 2.0)}, r"sigma: .* got \(0.0, 2.0\)"),
        ({"p": 1.1}, "p: .* got 1.1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianBlur(**arguments)
