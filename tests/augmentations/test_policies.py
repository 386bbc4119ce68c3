from itertools import pairwise

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import (
    POLICIES,
    BYOLViews,
    ColorJitter,
    GaussianBlur,
    JointViews,
    MoCoViews,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomSolarize,
    SCEViews,
    SimCLRViews,
    policy,
)
from ssl_modules.augmentations.blur import BlurParameters
from ssl_modules.configurable import build, storable, to_config

CLASSES = [SimCLRViews, MoCoViews, BYOLViews, SCEViews]
MOCO_JITTER, BYOL_JITTER = (0.4, 0.4, 0.4, 0.1, 0.8), (0.4, 0.4, 0.2, 0.1, 0.8)  # the last is the probability
FLIP, GRAY = RandomHorizontalFlip(p=0.5), RandomGrayscale(p=0.2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def operations(augmentation):
    """The operations of each view as plain data, with all their arguments."""
    if isinstance(augmentation, JointViews):
        return [view for part in augmentation.parts for view in operations(part)]
    return [to_config(list(augmentation.transforms))] * augmentation.views


def same(augmentation, *views):
    assert operations(augmentation) == to_config(views)


@pytest.mark.parametrize(
    ("name", "size", "strength", "blur"),
    [("simclr-32", 32, 0.5, False), ("simclr-96", 96, 1.0, True), ("simclr-224", 224, 1.0, True)],
)
def test_simclr_is_the_papers(name, size, strength, blur):
    crop, flip, jitter, grayscale, *last = policy(name).transforms
    assert policy(name).sizes == (size, size)
    assert (type(crop), type(flip)) == (RandomResizedCrop, RandomHorizontalFlip)
    assert (crop.size, crop.scale, crop.ratio, crop.interpolation) == (size, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
    assert flip.p == 0.5
    assert (type(jitter), type(grayscale)) == (ColorJitter, RandomGrayscale)
    assert jitter.brightness == jitter.contrast == jitter.saturation == 0.8 * strength
    assert (jitter.hue, jitter.p) == (0.2 * strength, 0.8)
    assert grayscale.p == 0.2
    assert [type(operation) for operation in last] == [GaussianBlur] * blur
    assert all((operation.sigma, operation.p) == ((0.1, 2.0), 0.5) for operation in last)


@pytest.mark.parametrize(
    ("name", "size", "blur"),
    [
        ("moco-32", 32, False),
        ("moco-96", 96, True),
        ("moco-224", 224, True),
        ("rince-32", 32, False),
        ("rince-224", 224, False),
    ],
)
def test_moco_and_rince_are_the_papers(name, size, blur):
    view = [RandomResizedCrop(size, (0.2, 1.0)), ColorJitter(*MOCO_JITTER), GRAY, *[GaussianBlur(p=0.5)] * blur, FLIP]
    same(policy(name), view, view)
    assert policy(name).sizes == (size, size)


def test_where_the_flip_comes_changes_no_pixel():
    images = torch.rand(12, 3, 32, 32, generator=generator())
    crop, *rest = MoCoViews(32).transforms
    drawn = [(operation, operation.draw(images, generator(i))) for i, operation in enumerate(rest)]
    last = first = crop(images, generator(9))
    for operation, parameters in drawn:
        last = operation.transform(last, parameters)
    for operation, parameters in drawn[-1:] + drawn[:-1]:
        first = operation.transform(first, parameters)
    torch.testing.assert_close(first, last, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "size", "blur"), [("byol-32", 32, False), ("byol-224", 224, True)])
def test_byol_is_the_papers(name, size, blur):
    common = [RandomResizedCrop(size, (0.08, 1.0)), FLIP, ColorJitter(*BYOL_JITTER), GRAY]
    first = common + [GaussianBlur(p=1.0)] * blur
    second = [*common, *[GaussianBlur(p=0.1)] * blur, RandomSolarize(threshold=0.5, p=0.2)]
    same(policy(name), first, second)
    assert policy(name).sizes == (size, size)


@pytest.mark.parametrize(("name", "size"), [("sce-32", 32), ("sce-96", 96)])
def test_sce_is_weak_and_strong_for_small_images(name, size):
    crop = RandomResizedCrop(size, (0.2, 1.0))
    same(policy(name), [crop, FLIP], [crop, ColorJitter(*MOCO_JITTER), GRAY, GaussianBlur(13, p=0.5), FLIP])


def strong(size, scale, blur, solarize):
    crop = RandomResizedCrop(size, scale)
    return [crop, ColorJitter(*BYOL_JITTER), GRAY, GaussianBlur(13, p=blur), *[RandomSolarize(p=0.2)] * solarize, FLIP]


def test_sce_is_alpha_and_beta_for_imagenet():
    alpha, beta = strong(224, (0.2, 1.0), 1.0, solarize=False), strong(224, (0.2, 1.0), 0.1, solarize=True)
    same(policy("sce-224"), alpha, beta)

    scales = {192: (0.172, 0.86), 160: (0.143, 0.715), 128: (0.114, 0.571), 96: (0.086, 0.429)}
    small = [strong(size, scale, 0.5, solarize=True) for size, scale in scales.items()]
    same(policy("sce-multicrop-224"), alpha, beta, *small)
    assert policy("sce-multicrop-224").sizes == (224, 224, 192, 160, 128, 96)


def test_sce_blurs_with_the_whole_gaussian():
    blur = SCEViews(31, ["strong-alpha"]).parts[0].transforms[3]
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[0, 0, 15, 15] = 1
    profile = blur.transform(impulse, BlurParameters(torch.tensor([True]), torch.tensor([2.0]))).sum(2).flatten()
    variance = (profile * (torch.arange(31) - 15) ** 2).sum()
    assert variance.item() == pytest.approx(2.0**2, rel=0.02)


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
def test_some_views_alone_are_solarized(augmentation, solarized):
    # White stays at 0.6 or above when its brightness changes by 0.4, at 0.4 or below when it is then inverted.
    views = augmentation(torch.ones(4000, 1, 8, 8), generator())
    spread = 3 * (0.2 * 0.8 / 4000) ** 0.5
    for view, p in zip(views, solarized, strict=True):
        assert share(view[:, 0, 4, 4] < 0.5) == pytest.approx(p, abs=spread if p else 0)


def test_sce_weak_view_keeps_the_colors():
    images = torch.rand(1000, 3, 1, 1, generator=generator()).expand(-1, -1, 8, 8)
    weak, changed = SCEViews(8)(images, generator(1))
    torch.testing.assert_close(weak, images, rtol=0, atol=1e-6)
    # Unchanged are those that are neither jittered nor gray.
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
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_work_on_images_of_any_size(name, channels):
    images = torch.rand(2, channels, 28, 20, generator=generator())
    for view, size in zip(policy(name)(images, generator()), policy(name).sizes, strict=True):
        assert view.shape == (2, channels, size, size)
        assert 0 <= view.min() < view.max() <= 1


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_new_each_time_and_can_be_stored(name):
    assert policy(name) is not policy(name)
    config = storable({"augmentation": policy(name)})["augmentation"]
    again = build("augmentation", config)
    assert type(again) is type(policy(name))
    assert operations(again) == operations(policy(name))
    assert storable({"augmentation": again})["augmentation"] == config


def test_the_stored_form_names_the_paper():
    config = storable({"augmentation": policy("sce-224")})["augmentation"]
    assert config["class_path"] == "ssl_modules.augmentations.policies.SCEViews"
    assert config["init_args"]["kinds"] == ["strong-alpha", "strong-beta"]


@pytest.mark.parametrize("views", CLASSES)
@pytest.mark.parametrize("mode", ["exact", "linear"])
def test_the_jitter_can_be_the_faster_one(views, mode):
    made = [operation["init_args"] for view in operations(views(16, jitter=mode)) for operation in view]
    assert {arguments["mode"] for arguments in made if "mode" in arguments} == {mode}


@pytest.mark.parametrize("views", CLASSES)
def test_digits_size_works_with_blur(views):
    made = views(8)(torch.rand(4, 1, 8, 8), generator())
    assert [view.shape for view in made] == [(4, 1, 8, 8)] * 2


def test_the_smallest_crop_is_an_argument():
    assert MoCoViews(8, min_scale=0.3).transforms[0].scale == (0.3, 1.0)
    assert [part.transforms[0].scale for part in BYOLViews(8, min_scale=0.3).parts] == [(0.3, 1.0)] * 2
    assert [part.transforms[0].scale for part in SCEViews(8, scale=(0.3, 0.9)).parts] == [(0.3, 0.9)] * 2


def test_an_unknown_policy_lists_what_there_is():
    with pytest.raises(ValueError, match="no policy 'simclr-64'; there are simclr-32, simclr-96, simclr-224, moco-32"):
        policy("simclr-64")


def test_wrong_strength_is_named():
    with pytest.raises(ValueError, match=r"strength: .* got 3"):
        SimCLRViews(32, strength=3)


@pytest.mark.parametrize("kinds", [[], ["weak", "alpha"], "weak"])
def test_wrong_kinds_are_named(kinds):
    with pytest.raises(ValueError, match=r"kinds: expected a list of weak, strong, strong-alpha, .* got ['\[]"):
        SCEViews(32, kinds)


@pytest.mark.parametrize("views", CLASSES)
def test_wrong_arguments_are_named(views):
    with pytest.raises(ValueError, match=r"size: .* got 0"):
        views(0)
    with pytest.raises(ValueError, match=r"mode: .* got 'fast'"):
        views(32, jitter="fast")
    with pytest.raises(ValueError, match=r"scale: .* got \(2, 1.0\)"):
        views(32, **({"scale": (2, 1.0)} if views is SCEViews else {"min_scale": 2}))
