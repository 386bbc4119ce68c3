"""What policies refuse: unknown names, sizes, channels and numbers out of range."""

import re
from functools import partial

import pytest
import torch
from augmentations.policy_classes import CLASSES

from ssl_modules.augmentations import (
    POLICIES,
    AMDIMViews,
    BYOLViews,
    CPCViews,
    GroCoViews,
    MoCoViews,
    SCEViews,
    SimCLRViews,
    YADIMViews,
    policy,
)


@pytest.mark.parametrize("name", ["amdim", "cpc", "yadim"])
def test_shifts_refuse_images_of_another_size(name):
    with pytest.raises(ValueError, match="size: a shift makes no 32 x 32 pixels of images of 28 x 28; give the size"):
        policy(name, 32)(torch.rand(2, 3, 28, 28))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dino", "augmentation: there is no policy 'dino'; there are simclr, moco, byol, sce, rince, s2r2, groco"),
        ("simcrl", "augmentation: there is no policy 'simcrl'; there are .*; did you mean 'simclr'"),
        ("groco-multi-crop", "augmentation: there is no policy .*; did you mean 'groco-multicrop'"),
        ("simcrl-32", "augmentation: there is no policy 'simcrl-32'; there are .*; did you mean 'simclr'"),
        (None, "augmentation: there is no policy None; there are simclr"),
    ],
)
def test_an_unknown_policy_lists_what_there_is(name, message):
    with pytest.raises(ValueError, match=message):
        policy(name, 32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("simclr-32", "augmentation: 'simclr-32' is now 'simclr' with image_size=32"),
        ("groco-96", "augmentation: 'groco-96' is now 'groco' with image_size=96"),
        ("sce-multicrop-224", "augmentation: 'sce-multicrop-224' is now 'sce-multicrop' with image_size=224"),
    ],
)
def test_a_name_with_a_size_is_said_how_to_write(name, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        policy(name, 32)


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("sce", 7),
        ("amdim", 8),
        ("cpc", 8),
        ("yadim", 8),
        ("sce-multicrop", 17),
        ("sce-video", 7),
        ("s2r2-multicrop", 3),
        ("groco-multicrop", 3),
        ("ressl-multicrop", 3),
        ("swav", 3),
    ],
)
def test_a_size_that_is_too_small_is_named(name, smallest):
    side = 32 if smallest < 8 else smallest  # images that are shifted have the size of a view
    images = torch.rand(2, 3, 1, 2, side, side) if name.endswith("video") else torch.rand(2, 1, side, side)
    for view in policy(name, smallest)(images):
        assert view.isfinite().all()
    message = f"image_size: the policy '{name}' needs at least {smallest} pixels, got image_size={smallest - 1}; "
    with pytest.raises(ValueError, match=message):
        policy(name, smallest - 1)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size: expected a whole number of pixels, at least 1, got 0"),
        ({"image_size": "32"}, "image_size: .* got '32'"),
        ({"image_size": (32, 32)}, r"image_size: .* got \(32, 32\)"),
        ({"image_size": 32, "in_channels": 0}, "in_channels: expected a whole number of channels, at least 1, got 0"),
    ],
)
def test_wrong_sizes_and_channels_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        policy(name, **arguments)


@pytest.mark.parametrize("views", [SCEViews, GroCoViews, partial(GroCoViews, 32, 2, 1)])
def test_views_that_are_too_small_to_blur_are_named_early(views):
    views(7)
    with pytest.raises(ValueError, match="size: expected at least 7 pixels where views are blurred, got 6"):
        views(6)
    SCEViews(6, ["weak"])
    GroCoViews(6, blur=False)


def test_wrong_strength_is_named():
    with pytest.raises(ValueError, match=r"strength: .* got 3"):
        SimCLRViews(32, strength=3)


@pytest.mark.parametrize("kinds", [[], ["weak", "alpha"], "weak"])
def test_wrong_kinds_are_named(kinds):
    with pytest.raises(
        ValueError, match=r"kinds: expected (a list of 'weak', 'strong'|the kind of each view).* got ['\[]"
    ):
        SCEViews(32, kinds)


@pytest.mark.parametrize("views", CLASSES)
def test_wrong_arguments_are_named(views):
    with pytest.raises(ValueError, match=r"size: .* got 0"):
        views(0)
    with pytest.raises(ValueError, match="jitter: expected 'exact' or 'linear', got 'fast'"):
        views(32, jitter="fast")


@pytest.mark.parametrize(
    "build",
    [
        lambda: SimCLRViews(32, min_scale=2),
        lambda: MoCoViews(32, min_scale=2),
        lambda: BYOLViews(32, min_scale=2),
        lambda: SCEViews(32, scale=(2, 1.0)),
    ],
)
def test_wrong_scales_are_named(build):
    with pytest.raises(ValueError, match=r"^(min_)?scale: .* got (2|\(2, 1.0\))$"):
        build()


@pytest.mark.parametrize("views", [AMDIMViews, partial(CPCViews, patches=(4, 2)), YADIMViews])
def test_wrong_shifts_are_named(views):
    with pytest.raises(ValueError, match=r"shift: expected a number in \[0, 8\), got 8"):
        views(8, shift=8)
    with pytest.raises(ValueError, match=r"hue: .* got 0\.6"):
        views(8, hue=0.6)
