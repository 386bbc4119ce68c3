from torchvision.transforms import v2

from ssl_modules.augmentations import (
    Augmentation,
    ColorDrop,
    ColorJitter,
    Foreign,
    GaussianBlur,
    JointViews,
    Operation,
    PatchGrid,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    ReadyViews,
    Views,
    policy,
)


def lines(module):
    return [line.strip() for line in repr(module).splitlines()]


def test_an_operation_shows_its_arguments_on_one_line():
    crop = "RandomResizedCrop(size=32, scale=(0.08, 1.0), ratio=(0.75, 1.333), interpolation='bilinear')"
    assert repr(RandomResizedCrop(32)) == crop
    assert repr(ColorJitter(0.8 * 0.5, hue=0.1)) == (
        "ColorJitter(brightness=0.4, contrast=0.0, saturation=0.0, hue=0.1, p=0.8, mode='exact')"
    )
    assert repr(GaussianBlur()) == "GaussianBlur(sigma=(0.1, 2.0), p=0.5)"
    assert repr(RandomShift(4, size=8)) == "RandomShift(pixels=4, p=0.8, size=8)"
    assert repr(PatchGrid(8, 4)) == "PatchGrid(size=8, overlap=4)"
    assert repr(ReadyViews([32, 16])) == "ReadyViews(sizes=[32, 16])"


def test_operations_inside_show_theirs_below():
    assert lines(PatchGrid(8, transforms=[ColorDrop(p=1.0)])) == [
        "PatchGrid(",
        "size=8, overlap=0",
        "(transforms): ModuleList(",
        "(0): ColorDrop(p=1.0)",
        ")",
        ")",
    ]
    views = Views([RandomHorizontalFlip()], views=3)
    assert lines(JointViews([views])) == [
        "JointViews(",
        "(parts): ModuleList(",
        "(0): Views(",
        "views=3",
        "(transforms): ModuleList(",
        "(0): RandomHorizontalFlip(p=0.5)",
        *[")"] * 4,
    ]


def test_a_policy_shows_its_numbers():
    shown = lines(policy("simclr", 32))
    assert shown[1].startswith("size=32, views=2, strength=0.5, blur=False, min_scale=0.08, max_scale=1.0")
    assert shown[4:6] == [
        "(1): RandomHorizontalFlip(p=0.5)",
        "(2): ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8, mode='exact')",
    ]


def test_a_foreign_transform_is_named():
    def crop(image):
        return image

    assert repr(Foreign(crop, 32)).splitlines()[1].strip() == "transform=crop, size=32, per='image'"
    assert any(
        line.endswith("RandomCrop(size=(32, 32), pad_if_needed=False, fill=0, padding_mode=constant)")
        for line in lines(Foreign(v2.RandomCrop(32), 32))
    )


def test_classes_of_ones_own_show_their_arguments_as_well():
    class Dim(Operation):
        def __init__(self, share: float, weights: list[float] | None = None) -> None:
            super().__init__()

    class Same(Augmentation):
        sizes = (None,)

    assert repr(Dim(1 / 3)) == "Dim(share=0.3333)"
    assert repr(Dim(0.5, [1.0, 2.0])) == "Dim(share=0.5, weights=[1.0, 2.0])"
    assert repr(Same()) == "Same()"
