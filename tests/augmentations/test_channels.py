"""Operations without colour take any number of channels, and change each channel as they change a gray image."""

import pytest
import torch

from ssl_modules import SimCLR
from ssl_modules.augmentations import (
    POLICIES,
    Augmentation,
    ColorDrop,
    ColorJitter,
    Foreign,
    GaussianBlur,
    JointViews,
    PatchGrid,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    RandomSolarize,
    Views,
    policy,
)
from ssl_modules.datamodules import ImageFiles

CHANNELS = [1, 2, 3, 4, 13]
PER_CHANNEL = [
    RandomResizedCrop(8, scale=(0.2, 0.6)),
    RandomResizedCrop(8, scale=(0.2, 0.6), interpolation="bicubic"),
    RandomHorizontalFlip(),
    RandomShift(3),
    GaussianBlur(kernel_size=3),
    RandomSolarize(p=0.5),
    ColorJitter(brightness=0.8, p=0.7),
    ColorJitter(brightness=0.8, p=0.7, mode="linear"),
    PatchGrid(6, overlap=3),
]
OF_COLOUR = [
    ColorJitter(saturation=0.4),
    ColorJitter(hue=0.1),
    ColorJitter(hue=0.1, mode="linear"),
    RandomGrayscale(),
    ColorDrop(),
]


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("operation", PER_CHANNEL, ids=str)
def test_each_channel_is_changed_as_a_gray_image_is(operation, channels):
    images = torch.rand(6, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    operation.check_channels(channels)
    made = operation(images, seeded())
    axis = made.ndim - 3
    for channel in range(channels):
        alone = operation(images[:, channel : channel + 1], seeded())
        torch.testing.assert_close(made.narrow(axis, channel, 1), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 4, 13])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_makes_views_of_any_number_of_channels(name, channels):
    of_video = name.endswith("video")
    images = torch.rand(2, 3, channels, 2, 32, 32) if of_video else torch.rand(2, channels, 32, 32)
    views = policy(name, 32, channels)(images, seeded())
    assert {view.shape[-4 if of_video else -3] for view in views} == {channels}


@pytest.mark.parametrize("operation", OF_COLOUR, ids=str)
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_an_operation_of_colour_is_refused_when_the_module_is_built(operation, channels):
    crop = RandomResizedCrop(8)
    for augmentation in (
        Views([crop, operation]),
        Views([crop, PatchGrid(4, transforms=[operation])]),
        JointViews([Views([crop]), Views([crop, operation])]),
        JointViews([Views([crop], views=2)], shared=[operation]),
    ):
        with pytest.raises(ValueError, match=f"augmentation: .* 1 or 3 channels, got in_channels={channels}; crop, fl"):
            SimCLR(augmentation, "test_resnet", image_size=8, in_channels=channels)
    repaired = [crop, RandomHorizontalFlip(), RandomShift(2), GaussianBlur(3), RandomSolarize(), ColorJitter(0.4, 0.4)]
    module = SimCLR(Views(repaired), "test_resnet", image_size=8, in_channels=channels)
    assert len(module.augmentation(torch.rand(2, channels, 12, 12))) == 2


class OfTwo(Augmentation):
    """A custom augmentation for two channels."""

    sizes = (8, 8)

    def check_channels(self, in_channels):
        if in_channels != 2:
            raise ValueError(f"augmentation: OfTwo needs 2 channels, got in_channels={in_channels}; give other images")


def test_views_that_workers_make_are_checked_as_well():
    with pytest.raises(ValueError, match="augmentation: OfTwo needs 2 channels, got in_channels=3"):
        ImageFiles(".", ["1.png"], image_size=8, augmentation=OfTwo())
    plain = Foreign(lambda image: image[:, :8, :8], size=8)
    ImageFiles(".", ["1.png"], image_size=8, augmentation=plain)
