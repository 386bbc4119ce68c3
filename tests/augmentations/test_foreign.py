import copy
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
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
from ssl_modules.utils.configurable import build, storable


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(channels=3, count=6, side=20):
    return torch.randint(256, (count, channels, side, side), generator=generator(), dtype=torch.uint8)


def crops(api):
    return [api.RandomResizedCrop(16), api.RandomHorizontalFlip(), api.ColorJitter(0.4, 0.4)]


def noisy_of_torch(image):
    return (image[:, :16, :16] + 0.1 * torch.rand(16, 16)).clamp(0, 1)


def noisy_of_numpy(image):
    return np.random.rand(16, 16, 3) * 0.1 + image.permute(1, 2, 0).numpy()[:16, :16] * 0.9  # noqa: NPY002


def noisy_of_python(image):
    return image[:, :16, :16] * random.random()


def noisy_batch(images):
    return images[:, :, :16, :16] * torch.rand(len(images), 1, 1, 1)


class Crop(nn.Module):
    """A module with a buffer and in-place changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("most", torch.tensor(0.5))

    def forward(self, image):
        return image.mul_(1 - self.most * torch.rand(()))[..., :16, :16]


class Albumented:
    """The calling convention of albumentations: numpy in, a dict out, generators of its own."""

    def __init__(self, *transforms):
        self.transforms = list(transforms)
        self.set_random_state(np.random.default_rng(), random.Random())

    def __reduce__(self):
        return albumented, tuple(self.transforms)

    def set_random_state(self, of_numpy, of_python):
        self.of_numpy, self.of_python = of_numpy, of_python
        for transform in self.transforms:
            transform.set_random_state(of_numpy, of_python)

    def __call__(self, *, image):
        assert isinstance(image, np.ndarray)
        top, left = self.of_numpy.integers(0, 5), self.of_python.randrange(5)
        image = image[top : top + 16, left : left + 16]
        for transform in self.transforms:
            image = transform(image=image)["image"]
        return {"image": image}


Albumented.__module__ = "albumentations.core.composition"


def albumented(*transforms):
    return Albumented(*transforms)


class Seeded:
    """A callable with a generator of its own, which takes a seed."""

    def __init__(self):
        self.own = np.random.default_rng()

    def set_random_seed(self, seed):
        self.own = np.random.default_rng(seed)

    def __call__(self, image):
        return image[:, :16, :16] * float(self.own.random())


FOREIGN = {
    "torchvision": partial(Foreign, v2.Compose(crops(v2)), 16),
    "torchvision, floats": partial(Foreign, v2.Compose([*crops(v2), v2.ToDtype(torch.float32, scale=True)]), 16),
    "torchvision, first API": partial(Foreign, v1.Compose(crops(v1)), 16),
    "torchvision, PIL": partial(Foreign, v1.Compose([*crops(v1), v1.ToTensor()]), 16),
    "torchvision, sequential": partial(Foreign, nn.Sequential(*crops(v2)), 16),
    "albumentations": partial(Foreign, Albumented(), 16),
    "torch": partial(Foreign, noisy_of_torch, 16),
    "numpy": partial(Foreign, noisy_of_numpy, 16),
    "python": partial(Foreign, noisy_of_python, 16),
    "a seed of its own": partial(Foreign, Seeded(), 16),
    "module": partial(Foreign, Crop(), 16),
    "partial": partial(Foreign, partial(noisy_of_torch), 16),
    "batch": partial(Foreign, noisy_batch, 16, per="batch"),
    "module, batch": partial(Foreign, nn.Sequential(Crop()), 16, per="batch"),
    "one for each view": partial(Foreign, [noisy_of_torch, v2.RandomCrop(16)], 16),
}
every = pytest.mark.parametrize("build_foreign", FOREIGN.values(), ids=FOREIGN)


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


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


def test_pil_images_of_other_channels_are_refused_early():
    augmentation = Foreign(v1.Compose([v1.RandomCrop(16), v1.ToTensor()]), 16)
    with pytest.raises(ValueError, match=r"a torchvision Compose takes PIL images, .* got in_channels=13; leave out"):
        JointViews([augmentation]).check_channels(13)
    with pytest.raises(ValueError, match="got in_channels=13"):
        augmentation(pictures(13))


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


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda x: x[:, :8, :8], ValueError, r"size: expected views of 16 x 16 pixels, but .* made \[3, 8, 8\]"),
        (lambda x: x[0, :16, :16], ValueError, r"has to return one image \[ch, 16, 16\], but returned \[16, 16\]"),
        (lambda x: [x, x], TypeError, "returned a list of 2; give one transform for each view"),
        (lambda x: None, TypeError, "has to return one image, .* but returned a NoneType"),
        (lambda x: {"img": x}, TypeError, "but returned a dict"),
        (lambda x: np.zeros(3), TypeError, r"but returned a numpy array \[3\] of float64"),
        (lambda x: x[:, :16, :16].long(), TypeError, "has to return uint8, or float in .* torch.int64"),
        (
            lambda x: x[:, :16, :16] * 2 - 1,
            ValueError,
            "made pixels from -.*; leave normalisation",
        ),
        (lambda x: x[:, :16, :16] * 255, ValueError, "divide by 255"),
        (lambda x: x[:, :16, :16] * torch.nan, ValueError, "made pixels from nan to nan"),
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
