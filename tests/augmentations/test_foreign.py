"""Foreign: transforms of other libraries as augmentations."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from augmentations.transforms import (
    FOREIGN,
    Albumented,
    Crop,
    equal,
    every,
    noisy_of_torch,
    pictures,
)
from pictures import generator
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from ssl_modules.augmentations import (
    Foreign,
    JointViews,
    SimCLRViews,
)
from ssl_modules.utils.configurable import build, storable


@every
@pytest.mark.parametrize("floats", [False, True])
def test_views_have_the_declared_sizes_and_type(build_foreign, floats):
    augmentation = build_foreign()
    images = pictures().float() / 255 if floats else pictures()
    before = images.clone()
    views = augmentation(images, generator())
    assert augmentation.sizes == (16, 16)
    assert [view.shape for view in views] == [(6, 3, 16, 16)] * 2
    for view in views:
        assert type(view) is torch.Tensor
        assert view.dtype == torch.float32
        assert not view.requires_grad
        assert 0 <= view.min() < 0.1
        assert 0.2 < view.max() <= 1
    assert torch.equal(images, before)


@every
def test_all_randomness_follows_from_the_generator(build_foreign):
    augmentation, images = build_foreign(), pictures()
    first = augmentation(images, generator(1))
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    assert equal(first, augmentation(images, generator(1)))
    assert equal(first, build_foreign()(images, generator(1)))
    assert not equal(first, augmentation(images, generator(2)))


@every
def test_global_states_stay(build_foreign):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    expected = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    build_foreign()(pictures(), generator())
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])  # noqa: NPY002
    assert random.random() == expected[2]


def test_global_states_stay_where_a_transform_fails():
    def fails(image):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        raise RuntimeError("no")

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="no"):
        Foreign(fails, 16)(pictures(), generator())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


@every
def test_without_a_generator_the_global_one_serves(build_foreign):
    augmentation, images = build_foreign(), pictures()
    torch.manual_seed(1)
    first = augmentation(images)
    assert not equal(first, augmentation(images))
    torch.manual_seed(1)
    assert equal(first, augmentation(images))


@every
def test_views_and_images_are_draws_of_their_own(build_foreign):
    same = pictures(count=1).expand(6, -1, -1, -1)
    first, second = build_foreign()(same, generator())
    assert not torch.equal(first, second)
    if build_foreign is not FOREIGN["module, batch"]:  # draws once for the batch
        assert (first != first[:1]).flatten(1).any(1).any()


def test_alike_transforms_of_two_views_draw_apart():
    first, second = Foreign([Albumented(), Albumented()], 16)(pictures(), generator())
    assert not torch.equal(first, second)


def test_operations_of_one_albumentations_pipeline_draw_apart():
    drawn = []

    class Records(Albumented):
        def __call__(self, *, image):
            drawn.append((self.of_numpy.random(), self.of_python.random()))
            return {"image": image}

    Foreign(Albumented(Records(), Records()), 16)(pictures(count=4), generator())
    assert len({*drawn}) == len(drawn) == 16


@every
def test_it_can_be_copied_and_pickled(build_foreign):
    augmentation, images = build_foreign(), pictures()
    views = augmentation(images, generator())
    assert equal(views, copy.deepcopy(augmentation)(images, generator()))
    assert equal(views, pickle.loads(pickle.dumps(augmentation))(images, generator()))


def test_a_copy_shares_nothing():
    crop = Crop()
    original = Foreign(crop, 16)
    copied = copy.deepcopy(original)
    assert copied.transforms[0] is copied.modules_inside[0]
    assert copied.transforms[0] is not crop


def test_modules_follow_to_another_device():
    augmentation = Foreign([Crop(), noisy_of_torch], 16).to("meta")
    assert augmentation.transforms[0].most.device.type == "meta"


def test_a_checkpoint_says_that_it_holds_no_transform():
    config = storable({"augmentation": Foreign(noisy_of_torch, 16)})
    with pytest.raises(ValueError, match=r"augmentation: a checkpoint can't hold this .*Foreign; pass it again"):
        build("augmentation", config["augmentation"])


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_any_number_of_channels_passes_where_the_transform_takes_it(channels):
    augmentation = Foreign(v2.Compose([v2.RandomResizedCrop(16), v2.RandomHorizontalFlip()]), 16)
    augmentation.check_channels(channels)
    assert augmentation(pictures(channels))[0].shape == (6, channels, 16, 16)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pil_images_have_the_pixels_and_channels(channels):
    images = pictures(channels)
    for given in (images, images.float() / 255):
        [view] = Foreign(v1.Compose([v1.CenterCrop(20), v1.ToTensor()]), 20, views=1)(given)
        torch.testing.assert_close(view, images.float() / 255)


@pytest.mark.parametrize(
    "give",
    [
        lambda image: image,
        lambda image: image[None],
        lambda image: (image * 255).round().byte(),
        lambda image: image.double(),
        lambda image: image.permute(1, 2, 0).numpy(),
        lambda image: (image * 255).round().byte().permute(1, 2, 0).numpy(),
        lambda image: {"image": image.permute(1, 2, 0).numpy()},
        lambda image: Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()),
    ],
)
def test_all_forms_of_an_image_are_the_same_image(give):
    images = pictures()
    [view] = Foreign(give, 20, views=1)(images)
    torch.testing.assert_close(view, images.float() / 255)


def test_a_gray_array_may_have_no_axis_of_channels():
    images = pictures(1)
    [view] = Foreign(lambda image: image[0].numpy(), 20, views=1)(images)
    torch.testing.assert_close(view, images.float() / 255)


def test_slight_overshoot_is_clamped():
    [view] = Foreign(lambda image: image * 1.4 - 0.2, 20, views=1)(pictures())
    assert (view.min(), view.max()) == (0, 1)


def test_joint_with_views_of_this_package():
    augmentation = JointViews([Foreign(noisy_of_torch, 16, views=1), SimCLRViews(24)])
    assert augmentation.sizes == (16, 24, 24)
    assert [view.shape[-1] for view in augmentation(pictures(), generator())] == [16, 24, 24]


def test_sizes_of_their_own():
    augmentation = Foreign([v2.RandomCrop(16), v2.RandomCrop(12)], size=[16, 12])
    assert augmentation.sizes == (16, 12)
    assert [view.shape[-1] for view in augmentation(pictures())] == [16, 12]


@pytest.mark.parametrize("per", ["image", "batch"])
def test_kornia(per):
    kornia = pytest.importorskip("kornia.augmentation")
    crop, flip = kornia.RandomResizedCrop((16, 16)), kornia.RandomHorizontalFlip(p=0.5)
    transform = kornia.AugmentationSequential(crop, flip, kornia.ColorJitter(0.4, 0.4, 0.4, 0.1), data_keys=["input"])
    augmentation, images = Foreign(transform, 16, per=per), pictures()
    first, second = augmentation(images, generator())
    assert first.shape == (6, 3, 16, 16)
    assert not torch.equal(first, second)
    assert equal((first, second), augmentation(images, generator()))
    assert equal((first, second), copy.deepcopy(augmentation)(images, generator()))
    same = augmentation(images[:1].expand(6, -1, -1, -1), generator())[0]
    assert (same != same[:1]).flatten(1).any(1).any()
    with pytest.raises(ValueError, match="normalises"):
        Foreign(kornia.Normalize(0.5, 0.5), 16, per="batch")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("floats", [False, True])
def test_albumentations(channels, floats):
    library = pytest.importorskip("albumentations")
    transform = library.Compose([library.RandomResizedCrop(size=(16, 16)), library.HorizontalFlip(p=0.5)])
    augmentation, images = Foreign(transform, 16), pictures(channels)
    images = images.float() / 255 if floats else images
    first, second = augmentation(images, generator())
    assert first.shape == (6, channels, 16, 16)
    assert not torch.equal(first, second)
    assert equal((first, second), augmentation(images, generator()))
    assert equal((first, second), pickle.loads(pickle.dumps(augmentation))(images, generator()))
    with pytest.raises(ValueError, match="normalises"):
        Foreign(library.Compose([library.Normalize()]), 16)


def test_operations_of_albumentations_are_independent():
    library = pytest.importorskip("albumentations")
    transform = library.Compose([library.HorizontalFlip(p=0.5), library.VerticalFlip(p=0.5)])
    corner = torch.zeros(400, 1, 2, 2)
    corner[:, :, 0, 0] = 1
    [view] = Foreign(transform, 2, views=1)(corner, generator())
    counts = view.flatten(1).argmax(1).bincount(minlength=4)
    assert (counts - 100).abs().max() < 4 * 75**0.5


def test_a_transform_that_makes_nan_is_named():
    with pytest.raises(ValueError, match=r"transform: .* made NaN pixels"):
        Foreign(lambda images: images / 0 * 0, size=8, per="batch")(torch.rand(2, 3, 8, 8))
