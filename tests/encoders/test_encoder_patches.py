"""Encoders of patches: the backbone processes each patch separately."""

import pytest
import torch
from encoders.networks import Clips, pixels, randomised

from ssl_modules import SimCLR
from ssl_modules.augmentations import PatchGrid, RandomResizedCrop, Views
from ssl_modules.encoders import Encoder
from ssl_modules.encoders.views import encode


def pooled(encoder, images):
    return encoder(images)[-1].flatten(2).mean(2)


# They cover: the mean of the last map, a class token, norm after or before pooling, a layer after the last map.
BACKBONES = {
    "test_resnet": 32,
    "resnet10t": 32,
    "test_vit": 32,
    "test_vit3": 64,
    "test_convnext": 32,
    "test_efficientnet": 32,
}


def test_patches_go_through_the_backbone_one_by_one():
    encoder = randomised(Encoder("test_resnet", image_size=32, in_channels=3, patches=(16, 8), mean=(0.5,) * 3))
    x = pixels(2, size=32)
    maps = encoder(x)
    backbone = encoder.backbone
    assert [m.shape for m in maps] == [(2, c, 3, 3) for c in encoder.out_channels]
    for row in range(3):
        for column in range(3):
            patch = x[:, :, 8 * row : 8 * row + 16, 8 * column : 8 * column + 16]
            for m, expected in zip(maps, backbone(patch / 255 - 0.5), strict=True):
                torch.testing.assert_close(m[:, :, row, column], expected.mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_what_is_built_by_name_is_built_for_patches():
    encoder = Encoder("test_vit", image_size=96, in_channels=1, patches=(32, 16))
    assert encoder(pixels(1, 1, 96))[-1].shape == (1, 64, 5, 5)
    assert Encoder("resnet18", image_size=96, in_channels=1, patches=(32, 16)).small_stem
    assert not Encoder("resnet18", image_size=96, in_channels=1).small_stem


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("test_resnet", {"patches": (40, 8)}, "patches: of 40 pixels are larger than the images, image_size=32"),
        (
            "test_resnet",
            {"patches": (8, 8)},
            r"patches: expected \(size, overlap\) with 0 <= overlap < size, got \(8, 8\)",
        ),
        ("test_vit", {"patches": (8, 4)}, r"test_vit can't take images of .* 8 pixels \(patches\)"),
        (Clips(), {"patches": (8, 4)}, "patches: are cut along two spatial axes, but Clips has 3"),
    ],
)
def test_patches_that_do_not_fit_are_named(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        Encoder(model, image_size=32, in_channels=3, **arguments)


def test_images_smaller_than_a_patch_are_refused():
    encoder = Encoder("test_resnet", image_size=32, in_channels=3, patches=(16, 8))
    with pytest.raises(ValueError, match="size: images of 8 x 8 are smaller than a patch of 16"):
        encoder(pixels(size=8))


def test_the_representation_is_the_mean_over_the_grid():
    augmentation = Views([RandomResizedCrop(32), PatchGrid(16, 8)])
    module = SimCLR(augmentation, "test_resnet", mean=(0.5,) * 3).eval()
    x = pixels(3) / 255
    grid = PatchGrid(16, 8)(x)  # [N, rows, cols, ch, h, w]
    maps = encode(module.encoder, grid)
    for m, expected in zip(module.encoder(x), maps, strict=True):
        torch.testing.assert_close(m, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(x), maps[-1].mean((2, 3)), rtol=1e-4, atol=1e-5)
    patches = torch.stack([module(patch) for patch in grid.flatten(1, 2).unbind(1)])
    torch.testing.assert_close(module(x), patches.mean(0), rtol=1e-4, atol=1e-5)
