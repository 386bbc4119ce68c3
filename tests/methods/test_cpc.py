import pytest
import torch

from ssl_modules import CPC
from ssl_modules.augmentations import CPCViews, SimCLRViews
from ssl_modules.encoders import CPCEncoder
from ssl_modules.encoders.views import encode


def small(**given):
    return CPC(CPCViews(16, patches=(4, 2)), CPCEncoder(4, layers=(1, 1, 1, 1), width=2), image_size=16, **given)


def test_the_default_encoder_is_for_the_patches_of_the_augmentation():
    with torch.device("meta"):
        assert CPC().encoder.backbone.image_size == 8
        assert CPC(image_size=64).encoder.backbone.image_size == 16
        module = CPC(CPCViews(28, patches=(7, 4)), image_size=28, in_channels=1)
    assert module.encoder.backbone.image_size == 7
    assert module.encoder.backbone.in_channels == 1


def test_the_representation_is_the_mean_over_the_patches():
    module = small().eval()
    images = torch.rand(2, 3, 16, 16)
    patches = images.unfold(2, 4, 2).unfold(3, 4, 2).permute(0, 2, 3, 1, 4, 5)  # [N, rows, cols, ch, h, w]
    vectors = [module.encoder.backbone(patches[:, r, c])[-1].flatten(1) for r in range(7) for c in range(7)]
    torch.testing.assert_close(module(images), torch.stack(vectors).mean(0))


def test_patches_tell_nothing_of_each_other():
    module = small()
    view = torch.rand(2, 7, 7, 3, 4, 4)
    before, changed = encode(module.encoder, view), view.clone()
    changed[0, 2, 3] = 0
    after = encode(module.encoder, changed)
    moved = (after[-1] != before[-1]).any(1)  # [N, rows, cols]
    assert moved.nonzero().tolist() == [[0, 2, 3]]


def test_the_default_encoder_needs_patches():
    with pytest.raises(
        ValueError,
        match=r'distances: in a grid of 1 x 1 patches .* use an augmentation that cuts more patches, such as "cpc"',
    ):
        CPC(SimCLRViews(32))
