import pytest
import torch

from ssl_modules.augmentations import PatchGrid, RandomHorizontalFlip, Views


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


def test_a_patch_larger_than_the_image_raises():
    with pytest.raises(ValueError, match="size: images of 8 x 6 are smaller than a patch of 7"):
        PatchGrid(7)(torch.rand(1, 1, 8, 6))


@pytest.mark.parametrize(("size", "overlap", "name"), [(0, 0, "size: .* got 0"), (4, 4, "overlap: .* got 4")])
def test_wrong_arguments_are_named(size, overlap, name):
    with pytest.raises(ValueError, match=name):
        PatchGrid(size, overlap)
