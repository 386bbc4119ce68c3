import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ssl_modules.augmentations import PatchGrid
from ssl_modules.encoders import CPCEncoder, Encoder

LAYOUTS = json.loads((Path(__file__).parents[1] / "reference" / "encoders.json").read_text())["cpc"]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: f"{x['name']}-{x['patch']}")
def test_the_published_layouts(layout):
    layers = (3, 4, 46, 3) if "101" in layout["name"] else (3, 4, 6, 3)
    with torch.device("meta"):
        encoder = CPCEncoder(layout["patch"], layers=layers)
    assert sum(p.numel() for p in encoder.parameters()) == layout["params"]
    assert (
        sum(p.numel() for n, p in encoder.named_parameters() if ".ln" in f".{n}" or "downsample.1" in n)
        == (layout["layernorm_params"])
    )
    shapes = []
    encoder.maxpool.register_forward_hook(lambda _, __, out: shapes.append(out))
    shapes += encoder(torch.empty(2, 3, layout["patch"], layout["patch"], device="meta"))
    assert [list(m.shape[1:]) for m in shapes] == layout["stage_shapes"]
    assert encoder.out_channels == tuple(m.shape[1] for m in shapes[1:])


def slow(patch, weights, layers):
    """Compute the maps of one patch [ch, p, p], with layer norm over all channels and locations."""

    def norm(x, name):
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def conv(x, name, **options):
        return F.conv2d(x[None], weights[f"{name}.weight"], **options)[0]

    x = norm(conv(patch, "conv1", stride=2, padding=3), "ln1").clamp(min=0)
    x = F.max_pool2d(x[None], 3, 2, 1)[0]
    maps = []
    for stage, blocks in enumerate(layers, 1):
        for i in range(blocks):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = norm(conv(x, f"{name}.conv1"), f"{name}.ln1").clamp(min=0)
            y = norm(conv(y, f"{name}.conv2", stride=stride, padding=1), f"{name}.ln2").clamp(min=0)
            y = norm(conv(y, f"{name}.conv3"), f"{name}.ln3")
            if i == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = (x + y).clamp(min=0)
        maps.append(x)
    return maps


@pytest.mark.parametrize("image_size", [8, 11, 20])
def test_maps_are_those_of_each_patch_alone(image_size):
    torch.manual_seed(0)
    layers = (1, 2, 1, 2)
    encoder = CPCEncoder(image_size, layers=layers, width=2).double()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    patches = torch.rand(3, 3, image_size, image_size, dtype=torch.float64)
    maps = encoder(patches)  # in training mode
    for i, patch in enumerate(patches):
        for m, expected in zip(maps, slow(patch, encoder.state_dict(), layers), strict=True):
            torch.testing.assert_close(m[i], expected, rtol=1e-9, atol=1e-9)


def test_the_wrapper_makes_grids_of_patches():
    torch.manual_seed(0)
    plain = CPCEncoder(8, 1, layers=(1, 1, 1, 1), width=4)
    encoder = Encoder(plain, image_size=16, in_channels=1, mean=[0.4], std=[0.2], patches=(8, 4))
    images = torch.randint(256, (2, 1, 16, 20), dtype=torch.uint8)
    maps = encoder(images)
    assert [m.shape for m in maps] == [(2, c, 3, 4) for c in (16, 32, 256, 128)]
    for row in range(3):
        for column in range(4):
            patch = images[:, :, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
            for m, expected in zip(maps, plain((patch / 255 - 0.4) / 0.2), strict=True):
                torch.testing.assert_close(m[:, :, row, column], expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    for one in encoder(PatchGrid(8, 4)(images)[:, 1, 2]):  # a single patch
        assert one.shape[2:] == (1, 1)
    weights, metadata = encoder.export()
    assert metadata["patches"] == [8, 4]
    again = CPCEncoder(**metadata["arguments"])
    again.load_state_dict(weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": (3, 4, 6)}, r"layers: expected 4 positive numbers, got \(3, 4, 6\); give one per stage"),
        ({"layers": (3, 4, 0, 3)}, r"layers: .* got \(3, 4, 0, 3\)"),
        ({"width": 0}, "width: expected a positive number, got 0"),
        ({"image_size": 0}, "image_size: .* got 0"),
        ({"in_channels": -1}, "in_channels: .* got -1"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CPCEncoder(**arguments)


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 1, 8, 8)])
def test_patches_of_another_shape_are_refused(shape):
    encoder = CPCEncoder(8, layers=(1, 1, 1, 1), width=2)
    with pytest.raises(ValueError, match=r"images: expected \[B, 3, 8, 8\], which this network is built for, got"):
        encoder(torch.rand(shape))
