import pytest
import torch
from jsonargparse import auto_cli
from pictures import generator

from ssl_modules.augmentations import (
    Augmentation,
    ColorJitter,
    GaussianBlur,
    JointViews,
    Operation,
    PatchGrid,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    RandomSolarize,
    Views,
    policy,
)
from ssl_modules.utils.configurable import build, storable


def byol():
    """Two different views: the second is rarely blurred, and may be solarised."""
    first = [RandomResizedCrop(32), RandomHorizontalFlip(), GaussianBlur(p=1.0)]
    second = [RandomResizedCrop(32), RandomHorizontalFlip(), GaussianBlur(p=0.1), RandomSolarize(p=0.2)]
    return JointViews([Views(first, views=1), Views(second, views=1)])


def amdim():
    """Two views that share one flip."""
    return JointViews([Views([RandomShift(4), ColorJitter(0.4, 0.4, 0.4, 0.2)])], shared=[RandomHorizontalFlip()])


def multi_crop():
    """Two large and three small views."""
    return JointViews([Views([RandomResizedCrop(32)]), Views([RandomResizedCrop(16, (0.05, 0.14))], views=3)])


AUGMENTATIONS = [
    (Views([RandomResizedCrop(24), ColorJitter(0.4)], views=3), (24, 24, 24)),
    (Views([RandomResizedCrop(24), PatchGrid(8)], views=1), (24,)),
    (byol(), (32, 32)),
    (amdim(), (None, None)),
    (multi_crop(), (32, 32, 16, 16, 16)),
    (
        JointViews([Views([RandomHorizontalFlip()]), Views([RandomResizedCrop(8)], 1)], [RandomResizedCrop(20)]),
        (20, 20, 8),
    ),
]
every = pytest.mark.parametrize(("augmentation", "sizes"), AUGMENTATIONS)


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_the_declared_sizes_and_type(augmentation, sizes, channels):
    images = torch.randint(256, (5, channels, 30, 30), generator=generator(), dtype=torch.uint8)
    views = augmentation(images, generator())
    assert augmentation.sizes == sizes
    assert len(views) == len(sizes)
    for view, size in zip(views, sizes, strict=True):
        if view.ndim == 4:
            assert view.shape == (5, channels, size or 30, size or 30)
        else:
            assert view.shape == (5, 3, 3, channels, 8, 8)
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1


@every
def test_equal_seeds_give_equal_views_and_others_do_not(augmentation, sizes):
    images = torch.rand(8, 3, 32, 32, generator=generator())
    first, again, other = (augmentation(images, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@every
def test_uint8_equals_float_divided_by_255(augmentation, sizes):
    images = torch.randint(256, (5, 3, 32, 32), generator=generator(), dtype=torch.uint8)
    views = augmentation(images, generator())
    assert all(torch.equal(a, b) for a, b in zip(views, augmentation(images.float() / 255, generator()), strict=True))


@every
def test_an_augmentation_can_be_stored_and_built_again(augmentation, sizes):
    images = torch.rand(5, 3, 32, 32, generator=generator())
    again = build("augmentation", storable({"augmentation": augmentation})["augmentation"])
    views = augmentation(images, generator())
    assert all(torch.equal(a, b) for a, b in zip(views, again(images, generator()), strict=True))


def test_views_are_draws_of_their_own():
    images = torch.rand(4000, 1, 1, 2, generator=generator())
    first, second = Views([RandomHorizontalFlip()], views=2)(images, generator())
    flips = torch.stack([(view != images).flatten(1).any(1) for view in (first, second)], 1)  # [N, V]
    counts = flips.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 4
    assert (counts - 1000).abs().max() < 4 * 1000**0.5


def test_shared_operations_are_common_to_all_views():
    images = torch.rand(64, 1, 4, 4, generator=generator())
    augmentation = JointViews([Views([RandomSolarize(p=0.0)], views=3)], shared=[RandomHorizontalFlip()])
    first, *others = augmentation(images, generator())
    assert all(torch.equal(first, other) for other in others)
    flipped = (first != images).flatten(1).any(1)
    assert 0 < flipped.sum() < 64
    assert torch.equal(first[flipped], images[flipped].flip(3))


def test_operations_run_in_the_given_order():
    images = torch.rand(2, 1, 8, 8, generator=generator())
    crop_first, crop_last = (
        Views(transforms, views=1)(images, generator())[0]
        for transforms in (
            [RandomResizedCrop(8, (0.2, 0.2)), RandomSolarize(p=1.0)],
            [RandomSolarize(p=1.0), RandomResizedCrop(8, (0.2, 0.2))],
        )
    )
    assert not torch.equal(crop_first, crop_last)


def from_yaml(text):
    def same(augmentation: Augmentation) -> Augmentation:
        return augmentation

    return auto_cli(same, args=[f"--augmentation={text}"], as_positional=False)


def test_yaml_builds_what_python_builds():
    augmentation = from_yaml(
        """
        class_path: ssl_modules.augmentations.JointViews
        init_args:
          shared:
            - class_path: ssl_modules.augmentations.RandomHorizontalFlip
          parts:
            - class_path: Views
              init_args:
                views: 2
                transforms:
                  - class_path: RandomResizedCrop
                    init_args: {size: 24, scale: [0.2, 1.0], interpolation: bicubic}
                  - class_path: ColorJitter
                    init_args: {brightness: 0.4, hue: 0.1}
            - class_path: SimCLRViews
              init_args: {size: 16, views: 1}
        """
    )
    part = Views([RandomResizedCrop(24, (0.2, 1.0), interpolation="bicubic"), ColorJitter(brightness=0.4, hue=0.1)])
    assert augmentation.sizes == (24, 24, 16)
    images = torch.rand(5, 3, 32, 32, generator=generator())
    expected = JointViews([part], shared=[RandomHorizontalFlip()])(images, generator())
    assert all(torch.equal(a, b) for a, b in zip(augmentation(images, generator())[:2], expected, strict=True))


def test_yaml_can_name_a_policy():
    augmentation = from_yaml(
        "{class_path: ssl_modules.augmentations.policy, init_args: {name: simclr, image_size: 32}}"
    )
    assert augmentation.arguments == policy("simclr", 32).arguments


def test_yaml_can_name_a_transform_of_another_library():
    augmentation = from_yaml(
        """
        class_path: Foreign
        init_args:
          size: [16, 12]
          transform:
            - {class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 16}}
            - {class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 12}}
        """
    )
    assert [view.shape[-1] for view in augmentation(torch.rand(2, 3, 20, 20), generator())] == [16, 12]


@every
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(3, 32, 32), ValueError, r"images: .*four axes.* got shape \(3, 32, 32\)"),
        (torch.rand(0, 3, 32, 32), ValueError, r"images: .*at least one image.* got shape \(0, 3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), TypeError, "images: .* got torch.int64"),
        (torch.full((2, 3, 32, 32), 255.0), ValueError, "images: float images .* go from 255 to 255"),
        (torch.full((2, 3, 32, 32), -0.5), ValueError, "images: float images .* go from -0.5 to -0.5"),
        (torch.full((2, 3, 32, 32), float("nan")), ValueError, "images: pixels hold NaN or infinity"),
    ],
)
def test_wrong_images_are_named(augmentation, sizes, images, error, message):
    with pytest.raises(error, match=message):
        augmentation(images)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda operation: Views([RandomHorizontalFlip(), operation]),
        lambda operation: Views([PatchGrid(8, transforms=[operation])]),
        lambda operation: JointViews([Views([RandomHorizontalFlip()])], shared=[operation]),
        lambda operation: JointViews([JointViews([Views([RandomHorizontalFlip()]), Views([operation])])]),
    ],
)
def test_channels_are_checked_however_deep_an_operation_is(wrap):
    wrap(GaussianBlur()).check_channels(13)
    augmentation = wrap(ColorJitter(0.4, saturation=0.4))
    augmentation.check_channels(1)
    augmentation.check_channels(3)
    with pytest.raises(ValueError, match="ColorJitter with saturation or hue needs 1 or 3 channels, got in_channels=4"):
        augmentation.check_channels(4)


def test_channels_are_asked_of_an_augmentation_of_ones_own():
    class OnlyGray(Augmentation):
        sizes = (8,)

        def check_channels(self, in_channels):
            if in_channels != 1:
                raise ValueError("only gray")

    JointViews([OnlyGray()]).check_channels(1)
    with pytest.raises(ValueError, match="only gray"):
        JointViews([OnlyGray()]).check_channels(3)


def test_rounding_beyond_the_range_is_clamped():
    images = torch.tensor([-1e-6, 0.5, 1 + 1e-6]).view(1, 1, 1, 3)
    assert Views([RandomHorizontalFlip(p=0.0)], 1)(images)[0].flatten().tolist() == [0.0, 0.5, 1.0]


def test_a_generator_on_another_device_is_named():
    class Elsewhere:
        device = torch.device("cuda")

    with pytest.raises(ValueError, match="generator: it is on cuda, but the images are on cpu"):
        Views([RandomHorizontalFlip()])(torch.rand(1, 1, 4, 4), Elsewhere())


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: Views([]), "transforms: .* got none"),
        (lambda: Views([RandomHorizontalFlip()], views=0), "views: .* got 0"),
        (lambda: JointViews([]), "parts: .* got none"),
    ],
)
def test_wrong_arguments_are_named(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


@every
@pytest.mark.parametrize("portion", [1, 5000])
def test_a_few_images_at_a_time_equal_all_together(augmentation, sizes, portion, monkeypatch):
    images = torch.randint(256, (30, 3, 32, 32), generator=generator(), dtype=torch.uint8)
    whole = augmentation(images, generator())
    monkeypatch.setattr("ssl_modules.augmentations.views.PORTION", portion)
    for view, expected in zip(augmentation(images, generator()), whole, strict=True):
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


def test_an_augmentation_of_ones_own_gets_floats():
    class Dark(Augmentation):
        sizes = (None,)

        def make_views(self, images, generator):
            return [images / 2]

    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    [view] = Dark()(images)
    torch.testing.assert_close(view.flatten(), torch.tensor([0, 0.1, 0.5]))


def test_an_operation_may_work_in_place_and_views_stay_their_own():
    class Dim(Operation):
        def draw(self, images, generator=None):
            return torch.rand(len(images), generator=generator)

        def transform(self, images, parameters):
            return images.mul_(parameters.view(-1, 1, 1, 1))

    images = torch.rand(4, 3, 8, 8, generator=generator())
    before = images.clone()
    first, second = Views([Dim()], views=2)(images, generator())
    assert torch.equal(images, before)
    assert not torch.equal(first, second)
