import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_modules.encoders import AMDIMEncoder, CPCEncoder, Encoder
from ssl_modules.encoders.amdim import ResidualUnit
from ssl_modules.interop.bolts import amdim_encoder
from ssl_modules.utils.configurable import build, storable

REFERENCE = Path(__file__).parents[1] / "reference"
LAYOUTS = json.loads((REFERENCE / "encoders.json").read_text())["amdim"]
SIZES = [7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 22, 24, 28, 32, 36, 40, 44, 48, 56, 64, 72, 80, 88, 96, 112, 128, 144]


def published(layout):
    with torch.device("meta"):
        return AMDIMEncoder(
            layout["px"],
            width=layout["ndf"],
            features=layout["n_rkhs"],
            depth=layout["depth"],
            batch_norm=layout["use_bn"],
        )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: f"{x['px']}-{x['ndf']}-{x['depth']}-{x['use_bn']}")
def test_the_authors_layouts(layout):
    encoder = published(layout)
    channels, same, features = encoder.out_channels
    assert features == layout["n_rkhs"]
    assert channels == same
    heads = 2 * (2 * channels * features + features**2 + 3 * features)  # the reference counts two heads
    if layout["use_bn"]:
        heads += 2 * 2 * features
    live = layout["params_public"] if layout["use_bn"] else layout["params_without_dead_bn"]
    assert sum(p.numel() for p in encoder.parameters()) + heads == live

    shapes = []
    layers = [*encoder.stages[0], encoder.stages[1], *encoder.stages[2]]
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: shapes.append(list(out.shape[1:])))
    images = torch.empty(2, 3, layout["px"], layout["px"], device="meta")
    maps = [list(m.shape[1:]) for m in encoder(images)]
    assert maps == [[channels, 7, 7], [channels, 5, 5], [features, 1, 1]]
    if layout["layer_out_shapes"]:
        assert [shape for layer, shape in zip(layers, shapes, strict=True) if not isinstance(layer, nn.ReLU)] == layout[
            "layer_out_shapes"
        ]


def test_maps_are_those_of_the_authors_network():
    values = np.load(REFERENCE / "amdim_6_encoder32_tiny.npz")
    weights = {name[2:]: torch.from_numpy(values[name]).double() for name in values if name.startswith("w.")}
    weights["layer_list.8.bn.num_batches_tracked"] = torch.tensor(0)
    encoder = amdim_encoder(weights, batch_norm=False).double()
    seven, five, one = encoder(torch.from_numpy(values["x"]).double())
    torch.testing.assert_close(one, torch.from_numpy(values["r1"]), rtol=0, atol=1e-10)
    for m, side in ((five, 5), (seven, 7)):
        w = {name.removeprefix(f"rkhs_block_{side}."): value for name, value in weights.items()}
        y = F.conv2d(F.conv2d(m, w["conv1.weight"]).relu(), w["conv2.weight"])
        y = y + F.conv2d(m, w["shortcut.weight"], w["shortcut.bias"])
        head = F.batch_norm(y, None, None, w["bn_out.bn.weight"], w["bn_out.bn.bias"], training=True)
        torch.testing.assert_close(head, torch.from_numpy(values[f"r{side}"]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("image_size", SIZES)
def test_other_sizes_end_in_one_location_and_lose_no_pixel(image_size):
    torch.manual_seed(0)
    encoder = AMDIMEncoder(image_size, width=4, features=64, depth=1).eval()
    for name, parameter in encoder.named_parameters():
        nn.init.normal_(parameter, mean=5 * name.endswith("bias"), std=0.3)  # large biases keep all units active
    images = torch.rand(1, 3, image_size, image_size, requires_grad=True)
    first, second, last = encoder(images)
    side = first.shape[-1]
    assert 5 <= side <= 9
    assert second.shape[-1] == side - 2
    assert last.shape == (1, 64, 1, 1)
    for m in (first, last):
        [gradient] = torch.autograd.grad(m.sin().sum(), images, retain_graph=True)
        assert (gradient.abs().sum(1) > 0).all()


def test_the_sizes_in_between_do_not_fit():
    for image_size in {*range(1, 145)} - {*SIZES}:
        with pytest.raises(ValueError, match=f"image_size: {image_size} pixels"):
            AMDIMEncoder(image_size)


def test_a_location_sees_no_border():
    # Shifting an image by the distance between two locations shifts its maps by one, up to the last column.
    torch.manual_seed(0)
    encoder = AMDIMEncoder(32, width=4, features=16).double().eval()
    wide = torch.rand(1, 3, 32, 36, dtype=torch.float64)
    for before, after in itertools.islice(zip(encoder(wide[..., :32]), encoder(wide[..., 4:]), strict=True), 2):
        torch.testing.assert_close(before[..., 1:], after[..., :-1], rtol=0, atol=1e-12)


def test_a_unit_begins_as_its_skip():
    unit = ResidualUnit(3, 5, kernel=4, stride=2)
    x = torch.rand(2, 3, 10, 10)
    y = unit(x)
    torch.testing.assert_close(y[:, :3], F.avg_pool2d(x, 4, 2))
    assert not y[:, 3:].any()
    nn.init.normal_(unit.conv2.weight)
    residual = unit(x) - y
    expected = F.conv2d(F.conv2d(x, unit.conv1.weight, stride=2).clamp(min=0), unit.conv2.weight)
    torch.testing.assert_close(residual, expected)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_two_steps_give_every_parameter_a_gradient(batch_norm):
    torch.manual_seed(0)
    encoder = AMDIMEncoder(16, width=4, features=16, depth=2, batch_norm=batch_norm)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(m.sin().mean() for m in encoder(torch.rand(8, 3, 16, 16))).backward()
        optimizer.step()
    assert [name for name, p in encoder.named_parameters() if not p.grad.any()] == []


def test_the_whole_network_in_the_wrapper():
    torch.manual_seed(0)
    plain = AMDIMEncoder(16, 1, width=4, features=16, depth=2)
    encoder = Encoder(plain, image_size=16, in_channels=1, mean=[0.3], std=[0.2], channels_last=False).eval()
    assert (encoder.out_channels, encoder.spatial_dims) == ((8, 8, 16), 2)
    images = torch.randint(256, (3, 1, 16, 16), dtype=torch.uint8)
    expected = plain((images / 255 - 0.3) / 0.2)
    for m, e in zip(encoder(images), expected, strict=True):
        torch.testing.assert_close(m, e)
    weights, metadata = encoder.export()
    again = AMDIMEncoder(**metadata["arguments"]).eval()
    again.load_state_dict(weights)
    for m, e in zip(again((images / 255 - 0.3) / 0.2), expected, strict=True):
        assert torch.equal(m, e)
    last = Encoder(plain, image_size=16, in_channels=1, mean=[0.3], std=[0.2]).eval()
    for m, e in zip(last(images), expected, strict=True):
        torch.testing.assert_close(m, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "encoder",
    [AMDIMEncoder(16, 1, width=4, features=16, depth=1), CPCEncoder(8, 1, layers=[1, 2, 1, 1], width=2)],
)
def test_a_checkpoint_can_hold_it(encoder):
    again = build("encoder", storable({"encoder": encoder})["encoder"])
    assert type(again) is type(encoder)
    again.load_state_dict(encoder.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 30}, "image_size: 30 pixels .* a map of 5 to 9 .* sizes that do are 28 and 32"),
        ({"image_size": 150}, "image_size: 150 pixels .* sizes that do are 144 and 160"),
        ({"image_size": 0}, "image_size: 0 pixels .* are 7 and 8"),
        ({"features": 511}, r"features: expected at least the 512 channels .*\(width=128\), got 511"),
        ({"width": 0}, "width: expected a positive number, got 0"),
        ({"depth": 0}, "depth: expected a positive number, got 0"),
        ({"in_channels": 0}, "in_channels: expected a positive number, got 0"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AMDIMEncoder(**arguments)


@pytest.mark.parametrize("shape", [(2, 3, 28, 32), (2, 3, 64, 64), (2, 1, 32, 32)])
def test_images_of_another_shape_are_refused(shape):
    encoder = AMDIMEncoder(32, width=4, features=16)
    with pytest.raises(
        ValueError, match=r"images: expected \[B, 3, 32, 32\], .* got \[2, .* in_channels and image_size"
    ):
        encoder(torch.rand(shape))
