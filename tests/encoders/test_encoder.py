import pytest
import timm
import torch
import torchvision
from encoders.networks import Clips, TwoMaps, Vector, pixels, randomised
from needs import needs_vectors
from torch import nn

from ssl_modules.encoders import AMDIMEncoder, CPCEncoder, Encoder, shrink_stem


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


@pytest.mark.parametrize(("name", "size"), BACKBONES.items())
def test_the_mean_of_the_last_map_is_timms_own_representation(name, size):
    encoder = randomised(Encoder(name, image_size=size, in_channels=3, small_stem=False))
    weights, _ = encoder.export()
    fixed = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    plain = timm.create_model(name, num_classes=0, **fixed).eval()
    plain.load_state_dict(weights)
    x = pixels(size=size)
    expected = plain(x / 255)
    torch.testing.assert_close(pooled(encoder, x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert [m.shape[1] for m in encoder(x)] == list(encoder.out_channels)


@pytest.mark.parametrize(("name", "size"), BACKBONES.items())
def test_every_parameter_has_a_gradient(name, size):
    encoder = randomised(Encoder(name, image_size=size, in_channels=3)).train()
    pooled(encoder, pixels(4, size=size)).sin().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


class LateNorm(nn.Module):
    """A network in timm's form. Its last norm changes nothing before training, so only its parameters reveal it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def reset_classifier(self, num_classes):
        self.head = nn.Identity()

    def forward_intermediates(self, x):
        x = self.conv(x)
        return self.norm(x), [x]

    def forward_head(self, x, pre_logits):
        return x.mean((2, 3))


def test_a_norm_that_does_nothing_yet_is_not_lost():
    encoder = Encoder(LateNorm(), image_size=8, in_channels=3)
    randomised(encoder)
    model = encoder.backbone.model
    x = pixels(size=8)
    torch.testing.assert_close(pooled(encoder, x), model.norm(model.conv(x / 255)).mean((2, 3)))
    pooled(encoder, x).sin().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_the_class_token_follows_the_maps_where_timm_takes_it():
    encoder = randomised(Encoder("test_vit", image_size=32, in_channels=3))
    model = encoder.backbone.model
    assert model.global_pool == "token"
    *maps, last = encoder(pixels())
    assert {tuple(m.shape[2:]) for m in maps} == {(2, 2)}
    torch.testing.assert_close(last, model.forward_features(pixels() / 255)[:, 0, :, None, None])


def test_maps_of_a_torchvision_resnet():
    model = randomised(torchvision.models.resnet18())
    reference = torchvision.models.resnet18()
    reference.load_state_dict(model.state_dict())
    nodes = torchvision.models.feature_extraction.create_feature_extractor(
        reference.eval(), [f"layer{i}" for i in (1, 2, 3, 4)]
    )
    encoder = Encoder(model, image_size=64, in_channels=3, channels_last=False).eval()
    assert encoder.out_channels == (64, 128, 256, 512)
    for m, expected in zip(encoder(pixels(size=64)), nodes(pixels(size=64) / 255).values(), strict=True):
        torch.testing.assert_close(m, expected)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (Vector, [(2, 5, 1, 1)]),
        (lambda: nn.Conv2d(3, 7, 5), [(2, 7, 28, 28)]),
        (TwoMaps, [(2, 4, 30, 30), (2, 6, 14, 14)]),
    ],
)
def test_any_module_that_returns_a_vector_a_map_or_several(model, shapes):
    model = model()
    encoder = Encoder(model, image_size=32, in_channels=3)
    assert [tuple(m.shape) for m in encoder(pixels())] == shapes
    assert encoder.out_channels == tuple(shape[1] for shape in shapes)
    out = model(pixels() / 255)
    expected = out[-1] if isinstance(out, tuple) else out
    torch.testing.assert_close(encoder(pixels())[-1].flatten(1), expected.flatten(1))


def test_a_module_of_the_contract_is_taken_as_it_is():
    model = Clips()
    encoder = Encoder(model, image_size=8, in_channels=3, mean=(0.1, 0.2, 0.3), std=(1, 0.5, 0.2))
    assert encoder.backbone is model
    assert encoder.spatial_dims == 3
    x = torch.rand(2, 3, 6, 8, 8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1, 1), torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1, 1)
    torch.testing.assert_close(encoder(x)[1], model((x - mean) / std)[1])


@pytest.mark.parametrize(
    ("arguments", "small"),
    [
        ({"image_size": 32}, True),
        ({"image_size": 64}, True),
        ({"image_size": 96}, False),
        ({"image_size": 96, "small_stem": True}, True),
        ({"image_size": 32, "small_stem": False}, False),
    ],
)
def test_the_small_stem_is_for_64_pixels_and_below(arguments, small):
    encoder = Encoder("resnet18", in_channels=1, **arguments)
    conv = encoder.backbone.model.conv1
    assert conv.in_channels == 1
    assert conv.kernel_size == ((3, 3) if small else (7, 7))
    size = arguments["image_size"]
    stem, first, *_, last = encoder.eval()(torch.rand(1, 1, size, size))
    assert stem.shape[-1] == (size if small else size // 2)
    assert first.shape[-1] == (size if small else size // 4)
    assert last.shape[-1] == (size // 8 if small else size // 32)
    assert encoder.small_stem == small


def test_a_stem_of_several_convolutions_keeps_them():
    encoder = Encoder("resnet10t", image_size=32, in_channels=3)
    assert len([m for m in encoder.backbone.model.conv1 if isinstance(m, nn.Conv2d)]) == 3
    assert encoder(torch.rand(1, 3, 32, 32))[0].shape[-1] == 32


def test_a_model_given_as_an_instance_keeps_its_stem_unless_told():
    assert Encoder(torchvision.models.resnet18(), image_size=32, in_channels=3).out_channels == (64, 128, 256, 512)
    model = torchvision.models.resnet18()
    Encoder(model, image_size=32, in_channels=3)
    assert model.conv1.kernel_size == (7, 7)
    Encoder(model, image_size=32, in_channels=3, small_stem=True)
    assert model.conv1.kernel_size == (3, 3)


def test_a_stem_whose_norm_is_not_a_resnets_is_left_alone():
    class Sized(nn.Module):
        """A network whose norm is built for the size of the stem's map."""

        def __init__(self):
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(3, 4, 7, 2, 3), nn.LayerNorm([4, 16, 16])
            self.maxpool = nn.MaxPool2d(2)

        def forward(self, x):
            return self.maxpool(self.norm1(self.conv1(x)))

    model = Sized()
    assert not shrink_stem(model)
    assert (model.conv1.kernel_size, type(model.maxpool)) == ((7, 7), nn.MaxPool2d)
    assert Encoder(model, image_size=32, in_channels=3).map_shapes == ((8, 8),)


def test_where_there_is_no_such_stem_an_explicit_one_is_refused_and_the_default_does_nothing():
    with pytest.raises(ValueError, match="small_stem: test_vit has no ResNet stem to replace; pass small_stem=None"):
        Encoder("test_vit", image_size=32, in_channels=3, small_stem=True)
    Encoder("test_vit", image_size=32, in_channels=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_that_of_pixels_from_0_to_1(channels):
    mean, std = [0.1, 0.5, 0.9][:channels], [0.2, 0.25, 0.5][:channels]
    encoder = Encoder(nn.Identity(), image_size=4, in_channels=channels, mean=mean, std=std)
    x = pixels(2, channels, 4)
    [out] = encoder(x)
    for c in range(channels):
        torch.testing.assert_close(out[:, c], (x[:, c].double() / 255 - mean[c]).div(std[c]).float())
    assert torch.equal(encoder(x.float() / 255)[0], out)
    [same] = Encoder(nn.Identity(), image_size=4, in_channels=channels)(x)
    torch.testing.assert_close(same, x / 255)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_runs_in_the_precision_of_its_parameters(dtype):
    encoder = Encoder("test_resnet", image_size=32, in_channels=3).to(dtype)
    for images in (pixels(), pixels().float() / 255):
        assert encoder(images)[-1].dtype == dtype


def test_building_leaves_modes_and_statistics_alone():
    model = timm.create_model("resnet18", num_classes=0).train()
    model.layer1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    Encoder(model, image_size=32, in_channels=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.layer1[0].training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_pretrained_goes_to_timm_with_its_mean_and_std(monkeypatch):
    create, asked = timm.create_model, []

    def without_download(name, pretrained, **kwargs):
        asked.append((name, pretrained))
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    config = timm.get_pretrained_cfg("test_resnet")
    encoder = Encoder("test_resnet", image_size=32, in_channels=3, pretrained=True)
    assert asked == [("test_resnet", True)]
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor(config.mean))
    torch.testing.assert_close(encoder.std.flatten(), torch.tensor(config.std))
    assert not encoder.small_stem  # the stem keeps its pretrained weights
    own = Encoder("test_resnet", image_size=32, in_channels=3, pretrained=True, mean=(0.5,) * 3)
    torch.testing.assert_close(own.mean.flatten(), torch.full((3,), 0.5))


def test_channels_last_changes_nothing_but_the_layout():
    torch.manual_seed(0)
    last = Encoder("test_resnet", image_size=32, in_channels=3)
    plain = Encoder("test_resnet", image_size=32, in_channels=3, channels_last=False)
    plain.load_state_dict(last.state_dict())
    x = pixels()
    for m, expected in zip(last(x), plain(x), strict=True):
        assert m.is_contiguous(memory_format=torch.channels_last)
        assert expected.is_contiguous()
        torch.testing.assert_close(m, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "given", "chosen"),
    [
        ("test_resnet", None, True),
        ("test_resnet", False, False),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), None, False),  # its code may rely on the usual memory layout
        (nn.Sequential(nn.Conv2d(3, 4, 3)), True, True),
        (AMDIMEncoder(32, width=4, features=16), None, True),
        (CPCEncoder(32, layers=(1, 1, 1, 1), width=2), None, False),  # its norms assume the usual memory layout
        (Clips(), None, False),
    ],
)
def test_channels_last_is_for_convolutional_networks_that_are_known(model, given, chosen):
    encoder = Encoder(model, image_size=32, in_channels=3, channels_last=given)
    convs = [m for m in encoder.backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert encoder.channels_last == chosen
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) == chosen for m in convs)


@needs_vectors
@pytest.mark.slow
def test_a_compiled_encoder_gives_the_same_maps_and_names():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3))
    plain = Encoder(net, image_size=8, in_channels=3, mean=(0.5, 0.5, 0.5))
    compiled = Encoder(net, image_size=8, in_channels=3, mean=(0.5, 0.5, 0.5), compile=True)
    assert plain.backbone._compiled_call_impl is None
    assert compiled.backbone._compiled_call_impl is not None
    torch.testing.assert_close(compiled(pixels(size=8)), plain(pixels(size=8)), rtol=1e-5, atol=1e-6)
    assert set(compiled.export()[0]) == set(plain.export()[0])


@pytest.mark.parametrize(
    ("name", "network", "normalised"),
    [("amdim", AMDIMEncoder, True), ("cpc", CPCEncoder, False), ("test_resnet", None, False)],
)
def test_the_networks_of_this_package_have_names(name, network, normalised):
    encoder = Encoder(name, image_size=32, in_channels=1)
    assert encoder.name == encoder.export()[1]["architecture"] == name
    assert encoder.normalised == normalised
    if network is not None:
        assert type(encoder.backbone) is network
        given = Encoder(network(32, 1), image_size=32, in_channels=1)
        assert given.name == given.export()[1]["architecture"] == name
        with pytest.raises(ValueError, match=f"pretrained: expected False for '{name}'"):
            Encoder(name, image_size=32, in_channels=1, pretrained=True)


@pytest.mark.parametrize(
    ("name", "patches"), [*((name, None) for name in (*BACKBONES, "amdim")), ("test_resnet", (16, 8))]
)
def test_the_shapes_of_the_maps_are_known(name, patches):
    size = BACKBONES.get(name, 32)
    encoder = Encoder(name, image_size=size, in_channels=3, patches=patches).eval()
    maps = encoder(pixels(size=size))
    assert encoder.map_shapes == tuple(m.shape[2:] for m in maps)
    assert encoder.out_channels == tuple(m.shape[1] for m in maps)


def test_the_shapes_of_the_maps_of_clips_are_not():
    assert Encoder(Clips(), image_size=8, in_channels=3).map_shapes is None
