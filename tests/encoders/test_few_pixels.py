"""Convolutions of few pixels equal PyTorch's, in values and gradients, and replace them only where they are faster."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_modules.encoders import CPCEncoder, Encoder, few_pixels
from ssl_modules.encoders.few_pixels import FEW_IMAGES, FewPixelsConv2d, multiply_few_pixels


@pytest.fixture
def products(monkeypatch):
    """Count the matrix products."""
    calls = []

    def linear(*args):
        calls.append(args)
        return F.linear(*args)

    monkeypatch.setattr(few_pixels, "F", type("F", (), {"linear": staticmethod(linear)}))
    return calls


def pair(*arguments, **settings):
    conv = nn.Conv2d(*arguments, **settings, dtype=torch.float64)
    few = nn.Sequential(deepcopy(conv))
    multiply_few_pixels(few)
    return conv, few[0]


def check_equal(conv, few, maps):
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    made, expected = few(ours), conv(theirs)
    torch.testing.assert_close(made, expected)
    weights = torch.rand_like(expected)
    (made * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for mine, other in zip(few.parameters(), conv.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "settings", "locations"),
    [
        ((1, 1), {"kernel_size": 3, "padding": 1}, 1),
        ((2, 2), {"kernel_size": 3, "padding": 1}, 4),
        ((2, 2), {"kernel_size": 3, "padding": 1, "stride": 2}, 1),
        ((3, 3), {"kernel_size": 3, "padding": 1, "stride": 2}, 4),
        ((1, 2), {"kernel_size": 3, "padding": 1}, 2),
        ((1, 7), {"kernel_size": 3, "padding": 1}, 7),
        ((2, 3), {"kernel_size": 5, "padding": 2}, 6),
        ((2, 4), {"kernel_size": 5, "padding": (2, 1), "stride": (1, 2)}, 2),
        ((1, 1), {"kernel_size": 7, "padding": 3, "stride": 2}, 1),
        ((4, 4), {"kernel_size": 7, "padding": 3}, 16),
        ((1, 1), {"kernel_size": 1}, 1),
        ((2, 2), {"kernel_size": 1, "stride": 2}, 1),
        ((3, 3), {"kernel_size": 3}, 1),
        ((4, 3), {"kernel_size": 3, "stride": 2}, 1),  # the last row meets no weight
    ],
)
def test_values_and_gradients_are_those_of_pytorch(products, shape, settings, locations, layout):
    conv, few = pair(5, 4, **settings)
    maps = torch.rand(FEW_IMAGES, 5, *shape, dtype=torch.float64).to(memory_format=layout)
    check_equal(conv.to(memory_format=layout), few.to(memory_format=layout), maps)
    assert len(products) == locations


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((FEW_IMAGES - 1, 4, 2, 2), {"kernel_size": 3, "padding": 1}),  # too few images
        ((FEW_IMAGES, 4, 3, 3), {"kernel_size": 3, "padding": 1}),  # most weights lie inside the map
        ((FEW_IMAGES, 4, 2, 2), {"kernel_size": 1}),  # more than one pixel
        ((FEW_IMAGES, 4, 1, 1), {"kernel_size": 1, "padding": 1}),
        ((FEW_IMAGES, 4, 2, 2), {"kernel_size": 3, "padding": 1, "groups": 2}),
        ((FEW_IMAGES, 4, 2, 2), {"kernel_size": 3, "padding": 2, "dilation": 2}),
        ((FEW_IMAGES, 4, 2, 2), {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}),
        ((FEW_IMAGES, 4, 2, 2), {"kernel_size": 3, "padding": "same"}),
        ((FEW_IMAGES, 2, 2), {"kernel_size": 3, "padding": 1}),  # one image without batch axis, of many channels
    ],
)
def test_other_convolutions_are_pytorchs(products, shape, settings):
    conv, few = pair(shape[-3], 4, **settings)
    check_equal(conv, few, torch.rand(shape, dtype=torch.float64))
    assert not products


def with_pytorchs_convolutions(encoder):
    """Return a copy of an encoder without convolutions of few pixels."""
    plain = deepcopy(encoder)
    for module in plain.modules():
        if type(module) is FewPixelsConv2d:
            module.__class__ = nn.Conv2d
    return plain


class Last(nn.Module):
    """Returns the last map of an encoder."""

    def forward(self, maps):
        return maps[-1]


def test_a_map_smaller_than_the_kernel_has_pytorchs_error():
    conv, few = pair(3, 4, 5, padding=1)
    maps = torch.rand(FEW_IMAGES, 3, 2, 2, dtype=torch.float64)
    for module in (conv, few):
        with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
            module(maps)


def test_an_encoder_by_name_skips_padding_and_keeps_its_weights_and_maps(products):
    torch.manual_seed(0)
    encoder = Encoder("resnet18", image_size=8, in_channels=1).double().eval()
    plain = with_pytorchs_convolutions(encoder)
    assert encoder.state_dict().keys() == plain.state_dict().keys()
    images = torch.rand(FEW_IMAGES, 1, 8, 8)
    for ours, theirs in zip(encoder(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs)
    # Layer 3 has maps of 2 x 2 pixels: 3 convolutions with 4 products each. Layer 4 has one pixel: 4 convolutions, and
    # one of the shortcut.
    assert len(products) == 17


def test_the_network_of_cpc_uses_products_and_gives_the_same_gradients(products):
    torch.manual_seed(0)
    encoder = CPCEncoder(8, 1, layers=(1, 1, 1, 1), width=4).double()
    plain = with_pytorchs_convolutions(encoder)
    check_equal(nn.Sequential(plain, Last()), nn.Sequential(encoder, Last()), torch.rand(FEW_IMAGES, 1, 8, 8).double())
    # The 3 x 3 convolution of layer 1 has 4 products, one for each pixel of its output. In layers 2, 3 and 4, there are
    # 3, 4 and 4 convolutions whose output has a single pixel.
    assert len(products) == 4 + 3 + 4 + 4


def test_a_module_of_the_user_keeps_its_convolutions():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten())
    Encoder(network, image_size=8, in_channels=3)
    assert type(network[0]) is nn.Conv2d


@pytest.mark.parametrize(
    "trace", [torch.fx.symbolic_trace, lambda few: torch.jit.trace(few, torch.rand(FEW_IMAGES, 3, 1, 1))]
)
def test_a_traced_network_takes_maps_of_other_sizes(trace):
    few = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    multiply_few_pixels(few)
    maps = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(trace(few)(maps), few(maps))


def test_autocast_gives_the_same_type_as_pytorch(products):
    conv, few = (module.float() for module in pair(3, 4, 3, padding=1))
    maps = torch.rand(FEW_IMAGES, 3, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(few(maps), conv(maps), atol=1e-2, rtol=1e-2)
    assert len(products) == 1
