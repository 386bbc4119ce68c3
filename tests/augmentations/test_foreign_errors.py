"""What Foreign refuses: normalisation, wrong images, and arguments that do not fit."""

from functools import partial

import numpy as np
import pytest
import torch
from augmentations.transforms import Albumented, Crop, crops, noisy_of_torch, pictures
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from ssl_modules.augmentations import (
    Foreign,
    JointViews,
    RandomResizedCrop,
    SimCLRViews,
    not_an_augmentation,
)


def test_pil_images_of_other_channels_are_refused_early():
    augmentation = Foreign(v1.Compose([v1.RandomCrop(16), v1.ToTensor()]), 16)
    with pytest.raises(ValueError, match=r"a torchvision Compose takes PIL images, .* got in_channels=13; leave out"):
        JointViews([augmentation]).check_channels(13)
    with pytest.raises(ValueError, match="got in_channels=13"):
        augmentation(pictures(13))


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda x: x[:, :8, :8], ValueError, r"size: expected views of 16 x 16 pixels, but .* made \[3, 8, 8\]"),
        (lambda x: x[0, :16, :16], ValueError, r"has to return one image \[ch, 16, 16\], but returned \[16, 16\]"),
        (
            lambda x: [x, x],
            TypeError,
            "returned a list of 2; give a transform that makes one view, which is then called for each view, or a list",
        ),
        (lambda x: None, TypeError, "has to return one image, .* but returned a NoneType"),
        (lambda x: {"img": x}, TypeError, "but returned a dict"),
        (lambda x: np.zeros(3), TypeError, r"but returned a numpy array \[3\] of float64"),
        (lambda x: x[:, :16, :16].long(), TypeError, "has to return uint8, or float in .* torch.int64"),
        (
            lambda x: x[:, :16, :16] * 2 - 1,
            ValueError,
            r"made pixels from -1 to 1, .*; give \(images \+ 1\) / 2, and leave normalisation",
        ),
        (lambda x: x[:, :16, :16] * 255, ValueError, "divide by 255"),
        (lambda x: x[:, :16, :16] * torch.nan, ValueError, "made NaN pixels from images without NaN"),
    ],
)
def test_wrong_images_are_named(made, error, message):
    with pytest.raises(error, match=message):
        Foreign(made, 16)(pictures())


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda x: x, ValueError, r"size: expected views of 16 x 16 pixels, but .* made \[6, 3, 20, 20\]"),
        (lambda x: x[:2, :, :16, :16], ValueError, r"has to return 6 images \[N, ch, 16, 16\], but returned \[2, 3"),
        (lambda x: x[0, :, :16, :16], ValueError, "use per='image' if it takes one image"),
        (lambda x: [*x], TypeError, "but returned a list of 6; use per='image'"),
    ],
)
def test_wrong_batches_are_named(made, error, message):
    with pytest.raises(error, match=message):
        Foreign(made, 16, per="batch")(pictures())


@pytest.mark.parametrize(
    ("construct", "error", "message"),
    [
        (lambda: Foreign("simclr", 16), TypeError, "transform: expected a callable, .* got 'simclr'"),
        (
            lambda: Foreign(v2.RandomCrop, 16),
            TypeError,
            "transform: got the class RandomCrop; give an instance",
        ),
        (lambda: Foreign(RandomResizedCrop(16), 16), TypeError, r"use Views\(\[RandomResizedCrop\(\.\.\.\)\]\)"),
        (lambda: Foreign(SimCLRViews(16), 16), TypeError, "transform: SimCLRViews is an augmentation already"),
        (lambda: Foreign([], 16), ValueError, "transform: expected a callable, or one for each view, .* empty list"),
        (lambda: Foreign([noisy_of_torch, 3], 16), TypeError, "transform: expected a callable, .* got 3"),
        (lambda: Foreign(noisy_of_torch, 16, per="pixel"), ValueError, "per: expected 'image' or 'batch', got 'pixel'"),
        (lambda: Foreign(noisy_of_torch, 16, views=0), ValueError, "views: expected a number of at least 1, got 0"),
        (lambda: Foreign([noisy_of_torch], 16, views=2), ValueError, "views: expected one for each of 1 .* got 2"),
        (lambda: Foreign(noisy_of_torch, 0), ValueError, "size: .* got 0"),
        (lambda: Foreign(noisy_of_torch, "16"), TypeError, "size: expected int or a list of int, got '16'"),
        (lambda: Foreign(noisy_of_torch, [16]), ValueError, r"size: .* one for each of 2 views, got \[16\]"),
        (
            lambda: Foreign(v2.Compose(crops(v2)), 16, per="batch"),
            ValueError,
            "per: a torchvision Compose would draw once for the whole batch; use per='image'",
        ),
        (
            lambda: Foreign(nn.Sequential(v1.RandomHorizontalFlip()), 16, per="batch"),
            ValueError,
            "per: .* would draw once for the whole batch",
        ),
        (lambda: Foreign(Albumented(), 16, per="batch"), ValueError, "takes one image at a time; use per='image'"),
    ],
)
def test_wrong_arguments_are_named(construct, error, message):
    with pytest.raises(error, match=message):
        construct()


NORMALIZE = v2.Normalize([0.5], [0.5])


@pytest.mark.parametrize(
    "transform",
    [
        NORMALIZE,
        v2.Compose([v2.RandomCrop(16), v2.Compose([NORMALIZE])]),
        v1.Compose([v1.ToTensor(), v1.Normalize([0.5], [0.5])]),
        nn.Sequential(Crop(), NORMALIZE),
        v2.RandomApply([NORMALIZE]),
        partial(v2.Compose([NORMALIZE])),
        [noisy_of_torch, NORMALIZE],
    ],
)
def test_normalisation_is_refused_when_it_is_built(transform):
    with pytest.raises(ValueError, match="normalises; leave Normalize out, as the encoder normalises"):
        Foreign(transform, 16)


def test_classes_of_ones_own_count_as_what_they_derive_from():
    class Crop(v2.RandomCrop):
        pass

    class Normal(v2.Normalize):
        pass

    with pytest.raises(ValueError, match="would draw once for the whole batch"):
        Foreign(Crop(16), 16, per="batch")
    with pytest.raises(ValueError, match="normalises"):
        Foreign(Normal([0.5], [0.5]), 16)


def test_functions_of_torchvision_draw_nothing_and_take_a_batch():
    [view] = Foreign(partial(v2.functional.center_crop, output_size=[16, 16]), 16, views=1, per="batch")(pictures())
    assert torch.equal(view, pictures()[:, :, 2:18, 2:18].float() / 255)


def test_a_transform_that_holds_another_is_looked_into():
    class View:
        def __init__(self, transform):
            self.transform = transform

        def __call__(self, image):
            return self.transform(image)

    [view] = Foreign(View(v1.Compose([v1.RandomCrop(16), v1.ToTensor()])), 16, views=1)(pictures())
    assert view.shape == (6, 3, 16, 16)
    with pytest.raises(ValueError, match="View normalises; leave Normalize out"):
        Foreign(View(NORMALIZE), 16)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (v2.Compose(crops(v2)), "augmentation: got a torchvision Compose; wrap it: Foreign(transform, size=32)"),
        (noisy_of_torch, "augmentation: got the function noisy_of_torch; wrap it: Foreign(transform, size=32)"),
        ([v2.RandomCrop(32)] * 2, "augmentation: got a list of 2 callables; wrap it: Foreign(transforms, size=32)"),
        (
            SimCLRViews,
            "augmentation: expected an object, got the class SimCLRViews; give an instance, SimCLRViews(...)",
        ),
        (
            RandomResizedCrop(32),
            "augmentation: got the operation RandomResizedCrop; wrap it: Views([RandomResizedCrop(...)])",
        ),
        ([RandomResizedCrop(32)], "augmentation: got a list of operations; wrap it: Views(operations)"),
        (
            [SimCLRViews(32)],
            "augmentation: got a list of augmentations; join their views: JointViews(augmentations)",
        ),
        (3, "augmentation: expected an Augmentation or the name of a policy, got 3"),
        ([], "augmentation: expected an Augmentation or the name of a policy, got []"),
    ],
)
def test_the_error_for_what_is_no_augmentation_says_what_makes_one(value, message):
    error = not_an_augmentation(value, 32)
    assert isinstance(error, TypeError)
    assert str(error) == message
