"""Networks, arguments and images for which an encoder raises an error."""

import pytest
import torch
import torchvision
from torch import nn

from ssl_modules.encoders import Encoder


def pooled(encoder, images):
    return encoder(images)[-1].flatten(2).mean(2)


@pytest.mark.parametrize(
    ("encoder", "arguments", "error", "message"),
    [
        ("resnet81", {}, ValueError, "encoder: timm knows no model 'resnet81'; did you mean .*resnet18"),
        ("", {}, ValueError, r"encoder: timm knows no model ''; timm.list_models\(\) lists them all"),
        (18, {}, TypeError, "encoder: expected a name or a module, got 18"),
        (nn.Identity(), {"pretrained": True}, ValueError, "pretrained: goes with a timm name, .* Identity"),
        (
            "test_vit",
            {"image_size": 8},
            ValueError,
            r"encoder: test_vit can't take images of .* 8 pixels \(image_size\)",
        ),
        (nn.Conv2d(1, 2, 1), {}, ValueError, r"Conv2d can't take images of 3 channels \(in_channels\)"),
        (
            "test_resnet",
            {"mean": (0.5,)},
            ValueError,
            r"mean: expected 3 numbers in \[0, 1\], got \[0.5\]; give one per channel",
        ),
        ("test_resnet", {"std": (1, 0, 1)}, ValueError, r"std: expected 3 numbers in \(0, 1\], got \[1, 0, 1\]"),
        ("test_resnet", {"mean": 0.5}, TypeError, "mean: expected a list .* got 0.5; give one number per channel"),
        (
            "test_resnet",
            {"mean": (123, 116, 103)},
            ValueError,
            r"mean: expected 3 numbers in \[0, 1\], .*; pixels are in \[0, 1\]: divide by 255",
        ),
        (Encoder(nn.Identity(), image_size=8, in_channels=3), {}, ValueError, "is an Encoder, which normalises"),
        (
            torchvision.models.mobilenet_v3_small(),
            {},
            ValueError,
            "this MobileNetV3 would give its class scores",
        ),
        (
            "test_resnet",
            {"std": (1, 1)},
            ValueError,
            r"std: expected 3 numbers in \(0, 1\], got \[1, 1\]; give one per channel",
        ),
    ],
)
def test_what_does_not_fit_is_named(encoder, arguments, error, message):
    with pytest.raises(error, match=message):
        Encoder(encoder, **{"image_size": 32, "in_channels": 3, **arguments})


def test_a_compiled_module_is_refused():
    with pytest.raises(ValueError, match=r"encoder: is compiled; .* module.encoder.compile"):
        Encoder(torch.compile(nn.Identity()), image_size=32, in_channels=3)


def test_a_module_that_returns_something_else_is_named():
    class Output(nn.Module):
        def forward(self, x):
            return {"features": x}

    with pytest.raises(TypeError, match=r"encoder: expected a vector, a map or .* from Output, got a dict"):
        Encoder(Output(), image_size=8, in_channels=1)


@pytest.mark.parametrize("statistics", [{}, {"mean": (0.5,), "std": (0.5,)}])
def test_every_batch_must_be_of_raw_pixels(statistics):
    """Every batch is checked, also by an encoder that does not normalise."""
    encoder = Encoder(nn.Identity(), image_size=8, in_channels=1, **statistics)
    pixels = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    for _ in range(2):
        encoder(pixels)
        with pytest.raises(ValueError, match=r"images: float images have to lie in \[0, 1\], .* from 0 to 255; divide"):
            encoder(pixels * 255)
        with pytest.raises(ValueError, match=r"from -1 to 1; give \(images \+ 1\) / 2"):
            encoder(pixels * 2 - 1)
        with pytest.raises(ValueError, match="images: pixels hold NaN"):
            encoder(pixels * torch.nan)


def test_a_traced_encoder_holds_no_check():
    encoder = Encoder("resnet18", image_size=32, in_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    images = torch.rand(2, 3, 32, 32)
    exported = torch.export.export(encoder, (images,)).module()
    for ours, theirs in zip(encoder(images), exported(images), strict=True):
        torch.testing.assert_close(ours, theirs)
    compiled = torch.compile(Encoder(nn.Identity(), image_size=8, in_channels=1), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images[:, :1])[0], images[:, :1])


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(2, 1, 32, 32), ValueError, "have 1 channels, .* in_channels=3; build it with in_channels=1"),
        (
            torch.rand(2, 32, 32, 3),
            ValueError,
            r"expected 3 channels on axis 1, got .*; give images.permute\(0, 3, 1, 2\)",
        ),
        (torch.rand(3, 32, 32), ValueError, r"expected the four axes .*, got shape \(3, 32, 32\)"),
        (torch.rand(2, 3, 3, 32, 32), ValueError, r"expected the four axes .*; clips .* need an encoder of clips"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), TypeError, "expected uint8, or float in .*, got torch.int64"),
    ],
)
def test_wrong_images_are_refused(images, error, message):
    encoder = Encoder(nn.Identity(), image_size=32, in_channels=3)
    with pytest.raises(error, match=f"images: {message}"):
        encoder(images)


def test_a_name_that_is_nearly_one_of_ours_is_told():
    with pytest.raises(ValueError, match=r"encoder: timm knows no model 'amdin'; did you mean .*amdim"):
        Encoder("amdin", image_size=32, in_channels=3)
