import itertools

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import ColorJitter

CHANGES = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def torchvision_jitter(images, parameters, hue=True):
    jittered = []
    for image, applied, *values, order in zip(images, *parameters, strict=True):
        for change in order.tolist() if applied else []:
            if change < 3 or hue:
                image = CHANGES[change](image, float(values[change]))  # noqa: PLW2901
        jittered.append(image)
    return torch.stack(jittered)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("hue", [0.0, 0.2])
def test_jitter_equals_torchvision_for_every_order(channels, hue):
    images = torch.rand(48, channels, 32, 32, generator=generator())
    jitter = ColorJitter(0.8, 0.8, 0.8, hue, p=0.8)
    parameters = jitter.draw(images, generator(1))
    orders = torch.tensor(list(itertools.permutations(range(4)))).repeat(2, 1)
    parameters = parameters._replace(order=orders)
    expected = torchvision_jitter(images, parameters, hue=hue > 0)
    torch.testing.assert_close(jitter.transform(images, parameters), expected, rtol=0, atol=1e-5)


def test_hue_is_right_at_grays_ties_and_corners():
    levels = torch.tensor([0.0, 0.5, 1.0])
    colours = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 3, 9)
    images = colours.expand(21, 3, 3, 9)
    jitter = ColorJitter(hue=0.5, p=1.0)
    parameters = jitter.draw(images, generator())._replace(hue=torch.linspace(-0.5, 0.5, 21))
    expected = torchvision_jitter(images, parameters)
    torch.testing.assert_close(jitter.transform(images, parameters), expected, rtol=0, atol=1e-5)


def test_images_not_chosen_stay_exactly():
    images = torch.rand(200, 3, 8, 8, generator=generator())
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.5)
    parameters = jitter.draw(images, generator())
    same = (jitter.transform(images, parameters) == images).flatten(1).all(1)
    assert torch.equal(same, ~parameters.applied)


def test_draws_follow_their_distributions():
    n = 24_000
    images = torch.empty(1, 3, 1, 1).expand(n, 3, 1, 1)
    applied, brightness, contrast, saturation, hue, order = ColorJitter(0.4, 1.5, 0.2, 0.1, p=0.8).draw(
        images, generator()
    )
    assert abs(applied.float().mean() - 0.8) < 4 * (0.16 / n) ** 0.5
    for values, low, high in ((brightness, 0.6, 1.4), (contrast, 0, 2.5), (saturation, 0.8, 1.2), (hue, -0.1, 0.1)):
        share = (values - low) / (high - low)
        assert -1e-6 <= share.min() < 0.001
        assert 0.999 < share.max() <= 1 + 1e-6
        assert abs(share.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    orders, counts = order.unique(dim=0, return_counts=True)
    assert orders.tolist() == sorted(map(list, itertools.permutations(range(4))))
    assert (counts - 1000).abs().max() < 4 * 1000**0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brightness": -1}, "brightness: .* got -1"),
        ({"contrast": -0.5}, "contrast: .* got -0.5"),
        ({"saturation": -2}, "saturation: .* got -2"),
        ({"hue": 0.6}, "hue: .* got 0.6"),
        ({"p": 3}, "p: .* got 3"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ColorJitter(**arguments)
