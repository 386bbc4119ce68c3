import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import (
    POLICIES,
    ColorJitter,
    GaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    SimCLRViews,
    policy,
)
from ssl_modules.configurable import build, storable


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize("name", ["simclr-32", "simclr-96"])
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_work_on_images_of_any_size(name, channels):
    for view, size in zip(policy(name)(torch.rand(2, channels, 28, 20), generator()), policy(name).sizes, strict=True):
        assert view.shape == (2, channels, size, size)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_new_each_time_and_can_be_stored(name):
    assert policy(name) is not policy(name)
    config = storable({"augmentation": policy(name)})["augmentation"]
    assert config["class_path"] == "ssl_modules.augmentations.policies.SimCLRViews"
    assert build("augmentation", config).arguments == policy(name).arguments


def test_digits_size_works_with_blur():
    views = SimCLRViews(8, min_scale=0.3)(torch.rand(4, 1, 8, 8), generator())
    assert [view.shape for view in views] == [(4, 1, 8, 8)] * 2


def test_an_unknown_policy_lists_what_there_is():
    with pytest.raises(ValueError, match="no policy 'simclr-64'; there are simclr-32, simclr-96, simclr-224"):
        policy("simclr-64")


def test_wrong_strength_is_named():
    with pytest.raises(ValueError, match=r"strength: .* got 3"):
        SimCLRViews(32, strength=3)
