"""The views that the policies of the methods make of images."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from augmentations.policy_classes import CLASSES
from pictures import generator
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import (
    POLICIES,
    AMDIMViews,
    BYOLViews,
    CPCViews,
    MoCoViews,
    SCEViews,
    SimCLRViews,
    YADIMViews,
    policy,
)
from ssl_modules.augmentations.blur import BlurParameters


def test_the_position_of_the_flip_changes_no_pixel():
    images = torch.rand(12, 3, 32, 32, generator=generator())
    crop, *rest = MoCoViews(32).transforms
    drawn = [(operation, operation.draw(images, generator(i))) for i, operation in enumerate(rest)]
    last = first = crop(images, generator(9))
    for operation, parameters in drawn:
        last = operation.transform(last, parameters)
    for operation, parameters in drawn[-1:] + drawn[:-1]:
        first = operation.transform(first, parameters)
    torch.testing.assert_close(first, last, rtol=0, atol=1e-6)


def test_sce_blurs_with_the_whole_gaussian():
    blur = SCEViews(31, ["strong-alpha"]).parts[0].transforms[3]
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[0, 0, 15, 15] = 1
    profile = blur.transform(impulse, BlurParameters(torch.tensor([True]), torch.tensor([2.0]))).sum(2).flatten()
    variance = (profile * (torch.arange(31) - 15) ** 2).sum()
    assert variance.item() == pytest.approx(2.0**2, rel=0.02)


@pytest.mark.parametrize("views", [partial(AMDIMViews, shift=4), AMDIMViews, YADIMViews])
def test_views_share_the_flip_and_nothing_else(views):
    ramp = torch.linspace(0.1, 0.3, 16).expand(400, 3, 16, 16)
    first, second = views(16)(ramp, generator())
    mirrored = [view.mean(1)[..., -1].mean(1) < view.mean(1)[..., 0].mean(1) for view in (first, second)]
    assert torch.equal(*mirrored)
    assert share(mirrored[0]) == pytest.approx(0.5, abs=3 * 0.5 / 400**0.5)
    assert ((first - second).abs().flatten(1).amax(1) > 1e-3).float().mean() > 0.95
    bright = [view.flatten(1).mean(1) for view in (first, second)]
    assert abs(torch.corrcoef(torch.stack(bright))[0, 1]) < 3 / 400**0.5


@pytest.mark.parametrize("per_patch", [False, True])
def test_colors_of_patches_are_shared_or_not(per_patch):
    [view] = CPCViews(16, (8, 4), shift=0, per_patch=per_patch)(torch.full((300, 3, 16, 16), 0.5), generator())
    colors = view[..., 0, 0].flatten(1, 2)  # [N, rows cols, ch]
    assert colors.shape == (300, 9, 3)
    unlike = ((colors - colors[:, :1]).abs().amax(2) > 1e-6)[:, 1:]
    # Two independent draws give the same colour only if neither is jittered: 0.2 x 0.2 = 0.04 of the pairs.
    assert share(unlike) == pytest.approx(0.96 if per_patch else 0.0, abs=0.02 if per_patch else 0)


def share(mask):
    return mask.float().mean().item()


@pytest.mark.parametrize(
    ("augmentation", "solarized"),
    [
        (BYOLViews(8, blur=False), (0, 0.2)),
        (BYOLViews(8), (0, 0.2)),
        (SCEViews(8, ["weak", "strong", "strong-alpha", "strong-beta", "strong-gamma"]), (0, 0, 0, 0.2, 0.2)),
    ],
)
def test_only_some_views_are_solarized(augmentation, solarized):
    # A change of brightness by up to 0.4 leaves white at 0.6 or above. Solarisation then inverts it to 0.4 or below.
    views = augmentation(torch.ones(4000, 1, 8, 8), generator())
    spread = 3 * (0.2 * 0.8 / 4000) ** 0.5
    for view, p in zip(views, solarized, strict=True):
        assert share(view[:, 0, 4, 4] < 0.5) == pytest.approx(p, abs=spread if p else 0)


def test_sce_weak_view_keeps_the_colors():
    images = torch.rand(1000, 3, 1, 1, generator=generator()).expand(-1, -1, 8, 8)
    weak, changed = SCEViews(8)(images, generator(1))
    torch.testing.assert_close(weak, images, rtol=0, atol=1e-6)
    # An image stays unchanged if it gets neither jitter nor grayscale.
    p = 0.2 * 0.8
    unchanged = (changed - images).abs().amax((1, 2, 3)) < 1e-5
    assert share(unchanged) == pytest.approx(p, abs=3 * (p * (1 - p) / 1000) ** 0.5)


@pytest.mark.parametrize("augmentation", [BYOLViews(16), SCEViews(16), SCEViews(16, ["strong-alpha", "strong-beta"])])
def test_views_of_one_image_are_independent_draws(augmentation):
    ramp = torch.linspace(0.1, 0.3, 16).expand(400, 1, 16, 16)  # too dark to be solarised
    mirrored = [view[..., -1].mean((1, 2)) < view[..., 0].mean((1, 2)) for view in augmentation(ramp, generator())]
    for one, other in pairwise(mirrored):
        assert share(one == other) == pytest.approx(0.5, abs=3 * 0.5 / 400**0.5)


def test_a_view_equals_torchvision_step_by_step():
    images = torch.randint(256, (12, 3, 32, 32), generator=generator(), dtype=torch.uint8)
    augmentation = SimCLRViews(32, views=1)
    (view,) = augmentation(images, generator(1))

    rng, current = generator(1), images.float() / 255
    crop, flip, jitter, grayscale, blur = augmentation.transforms
    boxes = crop.draw(current, rng)
    current = torch.stack([tv.resized_crop(x, *map(int, b), [32, 32]) for x, *b in zip(current, *boxes, strict=True)])
    flips = flip.draw(current, rng).applied
    current = torch.stack([tv.horizontal_flip(x) if yes else x for x, yes in zip(current, flips, strict=True)])
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    jittered = []
    for image, applied, *values, order in zip(current, *jitter.draw(current, rng), strict=True):
        for change in order.tolist() if applied else []:
            image = changes[change](image, float(values[change]))  # noqa: PLW2901
        jittered.append(image)
    grays = grayscale.draw(current, rng).applied
    current = [tv.rgb_to_grayscale(x, 3) if yes else x for x, yes in zip(jittered, grays, strict=True)]
    blurs = blur.draw(images, rng)
    current = [
        tv.gaussian_blur(x, [3, 3], [float(s)] * 2) if yes else x for x, yes, s in zip(current, *blurs, strict=True)
    ]
    torch.testing.assert_close(view, torch.stack(current), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("image_size", [20, 64, 96])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_policies_make_views_of_their_sizes(name, image_size, channels):
    augmentation = policy(name, image_size, channels)
    augmentation.check_channels(channels)
    sides = (image_size, image_size) if "Shift" in repr(augmentation) else (28, 20)
    frames = (2,) if name.endswith("video") else ()  # videos of three clips
    clips = (3,) if frames else ()
    images = torch.rand(2, *clips, channels, *frames, *sides, generator=generator())
    for view, size in zip(augmentation(images, generator()), augmentation.sizes, strict=True):
        grid = (7, 7) if augmentation.patches else ()
        side = augmentation.patches[0] if augmentation.patches else size
        assert view.shape == (2, *grid, channels, *frames, side, side)
        assert 0 <= view.min() < view.max() <= 1


@pytest.mark.parametrize("views", CLASSES)
def test_digits_size_works_with_blur(views):
    augmentation = views(8)
    made = augmentation(torch.rand(4, 1, 8, 8), generator())
    expected = [(4, 3, 3, 1, 4, 4)] if augmentation.patches else [(4, 1, 8, 8)] * 2
    assert [view.shape for view in made] == expected
