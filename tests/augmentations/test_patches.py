import pytest
import torch
from pictures import generator

from ssl_modules.augmentations import (
    ColorDrop,
    ColorJitter,
    JointViews,
    PatchGrid,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Views,
)
from ssl_modules.augmentations.operation import rows_of


@pytest.mark.parametrize(
    ("side", "size", "overlap", "grid"),
    [((32, 32), 8, 4, (7, 7)), ((26, 26), 8, 2, (4, 4)), ((20, 31), 8, 4, (4, 6)), ((12, 8), 4, 0, (3, 2))],
)
def test_patches_are_the_windows_of_the_image_row_by_row(side, size, overlap, grid):
    images = torch.rand(2, 3, *side, generator=torch.Generator().manual_seed(0))
    patches = PatchGrid(size, overlap)(images)
    assert patches.shape == (2, *grid, 3, size, size)
    stride = size - overlap
    for row in range(grid[0]):
        for column in range(grid[1]):
            window = images[:, :, row * stride : row * stride + size, column * stride : column * stride + size]
            assert torch.equal(patches[:, row, column], window)


def test_patches_of_one_image_share_its_draw():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (view,) = Views([RandomHorizontalFlip(p=1.0), PatchGrid(4)], views=1)(images)
    assert torch.equal(view, PatchGrid(4)(images.flip(3)))


def test_patches_with_transforms_have_draws_of_their_own():
    jitter, flip = ColorJitter(0.4, 0.4, 0.4, 0.2), RandomHorizontalFlip()
    grid = PatchGrid(8, 4, [jitter, flip])
    images = torch.rand(3, 3, 16, 20, generator=generator())
    parameters = grid.draw(images, generator(1))
    patches, plain = grid.transform(images, parameters), PatchGrid(8, 4)(images)
    assert patches.shape == (3, 3, 4, 3, 8, 8)
    for image in range(3):
        for row in range(3):
            for column in range(4):
                expected = plain[image, row, column][None]
                for operation, drawn in zip((jitter, flip), parameters, strict=True):
                    own = type(drawn)(*(values[image, row, column][None] for values in drawn))
                    expected = operation.transform(expected, own)
                torch.testing.assert_close(patches[image, row, column], expected[0], rtol=0, atol=1e-6)


def test_draws_of_patches_are_independent():
    # Each white patch keeps one channel: each with probability 1/3, independently of its neighbours.
    [view] = Views([PatchGrid(2, transforms=[ColorDrop(p=1.0)])], views=1)(torch.ones(2000, 3, 4, 4), generator())
    kept = view[..., 0, 0].argmax(3).flatten(1)  # [N, rows cols]
    assert kept.shape == (2000, 4)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    for i, j in pairs:
        counts = torch.bincount(3 * kept[:, i] + kept[:, j], minlength=9)
        assert (counts - 2000 / 9).abs().max() < 4 * (2000 / 9) ** 0.5


def test_a_few_images_at_a_time_give_the_same_patches(monkeypatch):
    augmentation = Views([ColorJitter(0.4, 0.4, 0.4, 0.2), PatchGrid(4, 2, [RandomGrayscale(p=0.5)])])
    images = torch.rand(12, 3, 8, 8, generator=generator())
    together = augmentation(images, generator(1))
    monkeypatch.setattr("ssl_modules.augmentations.views.PORTION", 3 * 8 * 8 * 5)
    for view, expected in zip(augmentation(images, generator(1)), together, strict=True):
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


def test_the_parameters_of_some_images_are_those_of_their_patches():
    grid = PatchGrid(4, 2, [ColorDrop()])
    images = torch.rand(6, 3, 8, 8, generator=generator())
    parameters, rows = grid.draw(images, generator(1)), torch.tensor([4, 0, 2])
    some = grid.transform(images[rows], rows_of(parameters, rows))
    assert torch.equal(some, grid.transform(images, parameters)[rows])


def test_an_augmentation_tells_the_patches_it_cuts():
    cut, whole = Views([RandomResizedCrop(16), PatchGrid(8, 4)]), Views([RandomResizedCrop(16)])
    assert (cut.patches, whole.patches) == ((8, 4), None)
    assert cut.sizes == (16, 16)
    assert JointViews([cut, cut]).patches == (8, 4)
    with pytest.raises(ValueError, match=r"parts: expected patches of one \(size, overlap\), got \(8, 4\) and None"):
        JointViews([cut, whole])


def test_transforms_of_patches_keep_their_size():
    PatchGrid(8, transforms=[RandomResizedCrop(8)])
    with pytest.raises(ValueError, match="transforms: RandomResizedCrop makes 16 pixels of patches of 8"):
        PatchGrid(8, transforms=[RandomResizedCrop(16)])


def test_a_patch_larger_than_the_image_raises():
    with pytest.raises(ValueError, match="size: images of 8 x 6 are smaller than a patch of 7"):
        PatchGrid(7)(torch.rand(1, 1, 8, 6))


@pytest.mark.parametrize(("size", "overlap", "name"), [(0, 0, "size: .* got 0"), (4, 4, "overlap: .* got 4")])
def test_wrong_arguments_are_named(size, overlap, name):
    with pytest.raises(ValueError, match=name):
        PatchGrid(size, overlap)
