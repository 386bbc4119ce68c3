import re

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import ColorDrop, ColorJitter, RandomGrayscale, RandomSolarize
from ssl_modules.augmentations.color import DropParameters
from ssl_modules.augmentations.operation import ChoiceParameters


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("operation", "reference"),
    [
        (RandomGrayscale(), lambda image: tv.rgb_to_grayscale(image, num_output_channels=len(image))),
        (RandomSolarize(threshold=0.6), lambda image: tv.solarize(image, 0.6)),
    ],
)
def test_chosen_images_equal_torchvision_and_others_stay(operation, reference, channels):
    images = noise(8, channels, 32, 32)
    applied = torch.arange(8) % 3 == 0
    changed = operation.transform(images, ChoiceParameters(applied))
    torch.testing.assert_close(
        changed[applied], torch.stack([reference(i) for i in images[applied]]), rtol=0, atol=1e-6
    )
    assert torch.equal(changed[~applied], images[~applied])


def test_solarize_includes_its_threshold():
    images = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)
    assert RandomSolarize(0.75, p=1.0)(images).flatten().tolist() == [0.0, 0.25, 0.5, 0.25, 0.0]


def test_color_drop_keeps_one_channel_in_place():
    images = noise(4, 3, 6, 6) + 0.01
    applied = torch.tensor([True, True, True, False])
    dropped = ColorDrop().transform(images, DropParameters(applied, torch.tensor([0, 1, 2, 0])))
    for i in range(3):
        assert torch.equal(dropped[i, i], images[i, i])
        assert dropped[i].sum() == images[i, i].sum()
    assert torch.equal(dropped[3], images[3])


def test_color_drop_keeps_each_channel_equally_often():
    parameters = ColorDrop(p=0.3).draw(torch.empty(1, 3, 1, 1).expand(9000, 3, 1, 1), torch.Generator().manual_seed(0))
    assert abs(parameters.applied.float().mean() - 0.3) < 0.02
    assert (parameters.channel.bincount(minlength=3) - 3000).abs().max() < 4 * 2000**0.5


@pytest.mark.parametrize("operation", [RandomGrayscale(p=1.0), ColorDrop(p=1.0), ColorJitter(0, 0, 0.8, 0.4, p=1.0)])
def test_one_channel_has_no_colour_to_change(operation):
    images = noise(4, 1, 8, 8)
    assert torch.equal(operation(images), images)


@pytest.mark.parametrize("channels", [2, 4, 13])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (RandomGrayscale(), "RandomGrayscale"),
        (ColorDrop(), "ColorDrop"),
        (ColorJitter(saturation=0.4), "ColorJitter with saturation or hue"),
        (ColorJitter(0.4, hue=0.1), "ColorJitter with saturation or hue"),
        (ColorJitter(hue=0.1, mode="linear"), "ColorJitter with saturation or hue"),
    ],
)
def test_operations_that_need_colour_say_so(operation, name, channels):
    message = (
        f"augmentation: {name} needs 1 or 3 channels, got in_channels={channels}; crop, flip, shift, blur, solarise "
        "and ColorJitter(brightness, contrast) take any number"
    )
    for ask in (lambda: operation.check_channels(channels), lambda: operation(noise(2, channels, 8, 8))):
        with pytest.raises(ValueError, match=re.escape(message)):
            ask()
    operation.check_channels(1)
    operation.check_channels(3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomGrayscale(p=-0.1), "p: .* got -0.1"),
        (lambda: RandomSolarize(threshold=128), "threshold: .* got 128"),
        (lambda: ColorDrop(p=2), "p: .* got 2"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
