import copy

import pytest
import torch
from encoders.networks import Clips, TwoMaps, pixels, randomised
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN, RetinaNet, fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ssl_modules.encoders import DetectionBackbone, Encoder

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def encoder(network="resnet18", **given):
    return randomised(
        Encoder(network, **{"image_size": 64, "in_channels": 3, "mean": MEAN, "std": STD, "small_stem": False} | given)
    )


def images():
    """Return images of two sizes, neither of them the encoder's."""
    return [pixels(1, size=64)[0, :, :48] / 255, pixels(1, size=80)[0] / 255]


TARGETS = [
    {"boxes": torch.tensor([[4.0, 4.0, 30.0, 40.0]]), "labels": torch.tensor([1])},
    {"boxes": torch.tensor([[10.0, 5.0, 60.0, 70.0], [1.0, 1.0, 20.0, 20.0]]), "labels": torch.tensor([2, 1])},
]


def detector(kind, backbone, **given):
    size = {"min_size": 64, "max_size": 80}
    return kind(backbone, 3, image_mean=backbone.image_mean, image_std=backbone.image_std, **size, **given)


@pytest.mark.parametrize("network", ["resnet18", resnet18])
def test_the_pyramid_is_torchvisions_own_of_the_same_weights(network):
    ours = DetectionBackbone(encoder(network if isinstance(network, str) else network())).eval()
    reference = _resnet_fpn_extractor(resnet18(), trainable_layers=5)
    reference.body.load_state_dict({k.removeprefix("model."): w for k, w in ours.body.state_dict().items()})
    reference.fpn.load_state_dict(ours.fpn.state_dict())
    x = torch.rand(2, 3, 64, 96)
    maps, expected = ours(x), reference.eval()(x)
    assert list(maps) == list(expected) == ["0", "1", "2", "3", "pool"]
    for name, m in expected.items():
        torch.testing.assert_close(maps[name], m, rtol=1e-4, atol=1e-4 * m.abs().max().item())
    assert ours.out_channels == reference.out_channels == 256


def test_the_exported_weights_load_into_a_detector_that_torchvision_built():
    own = encoder("resnet50")
    body = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone.body.eval()
    body.load_state_dict(own.export()[0])
    x = pixels(size=64)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for m, expected in zip(own(x)[1:], body((x / 255 - mean) / std).values(), strict=True):
        torch.testing.assert_close(m, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    with pytest.raises(RuntimeError, match=r"conv1.weight: .*\[64, 3, 3, 3\]\) from checkpoint"):
        body.load_state_dict(encoder("resnet50", small_stem=True).export()[0])


def test_the_detector_normalises_once():
    backbone = DetectionBackbone(encoder())
    faster = detector(FasterRCNN, backbone)
    seen = []
    backbone.body.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(3, 64, 64)
    faster.eval()([x])
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(seen[0][0], (x - mean) / std)


@pytest.mark.parametrize(
    ("kind", "few", "given"),
    [
        (FasterRCNN, {"rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 50}, {}),
        (RetinaNet, {}, {"levels": 3, "out_channels": 32, "extra_blocks": LastLevelP6P7(32, 32)}),
    ],
)
@pytest.mark.parametrize("network", ["resnet18", "test_convnext"])
def test_a_detector_learns_and_detects(kind, few, given, network):
    torch.manual_seed(0)
    backbone = DetectionBackbone(encoder(network), **given)
    model = detector(kind, backbone, **few)
    losses = model(images(), copy.deepcopy(TARGETS))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    trained = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None or not grad.isfinite().all()] == []
    assert any(name.startswith("body") and grad.any() for name, grad in trained.items())
    for found in model.eval()(images()):
        assert found["boxes"].shape == (len(found["scores"]), 4)
        assert found["boxes"].isfinite().all()


def test_what_is_pooled_beyond_the_maps_is_left_out_and_frozen():
    backbone = DetectionBackbone(encoder("test_convnext"))
    frozen = [name for name, p in backbone.body.named_parameters() if not p.requires_grad]
    assert frozen == ["model.head.norm.weight", "model.head.norm.bias"]
    assert backbone.fpn.inner_blocks[-1][0].in_channels == 64
    assert {m.shape[2:] for m in backbone(torch.rand(1, 3, 64, 64)).values()} == {
        (side, side) for side in (16, 8, 4, 2, 1)
    }


def test_the_encoder_is_copied_and_keeps_what_it_has():
    own = encoder("test_convnext").train()
    before = copy.deepcopy(own.state_dict())
    maps = [m.detach() for m in own.eval()(pixels(size=64))]
    backbone = DetectionBackbone(own, freeze_batch_norm=True)
    with torch.no_grad():
        for p in backbone.parameters():
            p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())
    assert all(p.requires_grad for p in own.parameters())
    assert all(torch.equal(m, e) for m, e in zip(own(pixels(size=64)), maps, strict=True))


@pytest.mark.parametrize("given", [{}, {"batch_norm_splits": 2}])
def test_frozen_batch_norms_are_those_of_evaluation(given):
    own = encoder(**given)
    frozen = DetectionBackbone(own, freeze_batch_norm=True).train()
    norms = [m for m in frozen.body.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 20
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    x = torch.rand(3, 3, 64, 64)
    state = copy.deepcopy(frozen.body.state_dict())
    for m, expected in zip(frozen.body(x), own.backbone(x), strict=True):
        torch.testing.assert_close(m, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert all(torch.equal(v, state[k]) for k, v in frozen.body.state_dict().items())


@pytest.mark.parametrize(
    ("given", "levels", "error", "message"),
    [
        (resnet18, 4, TypeError, r"encoder: expected an object of the class Encoder, got ResNet\(...\); give Encoder"),
        (lambda: encoder(patches=(32, 16)), 4, ValueError, "encoder: a detector gives whole images .* takes patches"),
        (lambda: encoder(Clips(), mean=None, std=None), 2, ValueError, "two spatial axes, but Clips takes 3 axes"),
        (
            lambda: encoder(TwoMaps()),
            3,
            ValueError,
            r"levels: expected a number in \[1, 2\], got 3; TwoMaps has 2 maps",
        ),
        (
            lambda: encoder(TwoMaps()),
            0,
            ValueError,
            r"levels: expected a number in \[1, 2\], got 0; TwoMaps has 2 maps",
        ),
    ],
)
def test_what_does_not_fit_is_named(given, levels, error, message):
    with pytest.raises(error, match=message):
        DetectionBackbone(given(), levels=levels)
