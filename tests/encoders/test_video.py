"""Encoders compute maps and representations of clips."""

import copy

import pytest
import torch
import torchvision
from encoders.networks import Clips, randomised
from torch import nn

from ssl_modules import SimCLR
from ssl_modules.augmentations import SimCLRViews
from ssl_modules.encoders import Encoder, Representation, SmallR3D, SplitBatchNorm3d, load_encoder
from ssl_modules.encoders.split_norm import split_batch_norms

NAMES = ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "r3d_small"]
CHANNELS = {"s3d": (64, 192, 480, 832, 1024), "r3d_small": (16, 32, 64, 128)}


def clips(count=2, channels=3, frames=8, size=32, seed=1):
    shape = (count, channels, frames, size, size)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_named_networks_give_the_maps_of_their_stages(name):
    encoder = Encoder(name, image_size=32, in_channels=3)
    maps = encoder(clips())
    assert encoder.spatial_dims == 3
    assert encoder.out_channels == CHANNELS.get(name, (64, 64, 128, 256, 512)) == tuple(m.shape[1] for m in maps)
    assert all(m.ndim == 5 for m in maps)
    assert Representation(encoder)(clips()).shape == (2, encoder.out_channels[-1])


@pytest.mark.parametrize("name", ["r3d_18", "s3d"])
def test_the_mean_of_the_last_map_is_what_torchvision_computes(name):
    model = randomised(torchvision.models.get_model(name, weights=None))
    plain = copy.deepcopy(model)
    if name == "s3d":  # it averages over windows first
        plain.avgpool = nn.AdaptiveAvgPool3d(1)
        plain.classifier = nn.Identity()
        expected = plain(clips() / 255)
    else:
        plain.fc = nn.Identity()
        expected = plain(clips() / 255)
    encoder = Encoder(model, image_size=32, in_channels=3).eval()
    torch.testing.assert_close(Representation(encoder)(clips()), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 5])
def test_the_first_convolution_takes_other_numbers_of_channels(name, channels):
    encoder = Encoder(name, image_size=32, in_channels=channels)
    assert encoder(clips(channels=channels))[-1].shape[:2] == (2, encoder.out_channels[-1])
    with pytest.raises(ValueError, match=rf"have 3 channels, .*in_channels={channels}"):
        encoder(clips())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [3, 1])
def test_an_exported_encoder_loads_back(name, channels, tmp_path):
    before = Encoder(name, image_size=32, in_channels=channels, mean=[0.45] * channels, std=[0.2] * channels)
    randomised(before.backbone)
    path = tmp_path / "encoder.safetensors"
    module = SimCLR(SimCLRViews(32, blur=False), before.network, image_size=32, in_channels=channels)
    module.encoder = before
    module.export_encoder(path)
    after = load_encoder(path).eval()
    assert after.name == name
    for own, again in zip(before.eval()(clips(channels=channels)), after(clips(channels=channels)), strict=True):
        assert torch.equal(own, again)


def test_weights_of_torchvision_load_under_their_own_names():
    model = randomised(torchvision.models.video.r3d_18(weights=None))
    encoder = Encoder("r3d_18", image_size=32, in_channels=3).eval()
    encoder.load(model.state_dict())  # without the classifier
    model.fc = nn.Identity()
    torch.testing.assert_close(Representation(encoder)(clips()), model(clips() / 255))


def test_pretrained_weights_are_for_three_channels():
    with pytest.raises(ValueError, match="pretrained: the weights of r3d_18 are for in_channels=3, got 1"):
        Encoder("r3d_18", image_size=32, in_channels=1, pretrained=True)


@pytest.mark.parametrize("make", [SmallR3D, Clips, lambda: "r3d_18"])
def test_channels_last_changes_only_the_layout(make):
    network = make()
    encoders = [
        Encoder(copy.deepcopy(network), image_size=32, in_channels=3, channels_last=last) for last in (False, True)
    ]
    encoders[1].load_state_dict(encoders[0].state_dict())
    weights = [m.weight for m in encoders[1].modules() if isinstance(m, nn.Conv3d) and m.weight.shape[1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)
    of_each = [encoder.eval()(clips())[-1] for encoder in encoders]
    torch.testing.assert_close(*of_each, rtol=1e-4, atol=1e-5)


def test_channels_last_needs_two_or_three_axes():
    series = nn.Sequential(nn.Conv1d(3, 4, 3))
    series.spatial_dims, series.out_channels = 1, (4,)
    with pytest.raises(ValueError, match=r"channels_last: is for two or three spatial axes, but Sequential has 1"):
        Encoder(series, image_size=8, in_channels=3, channels_last=True)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_split_norm_normalises_each_part_alone(interleaved):
    norm, x = nn.BatchNorm3d(3), torch.rand(6, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    split = SplitBatchNorm3d(norm, 2)
    split.interleaved = interleaved
    y = split(x)
    for part in (x[::2], x[1::2]) if interleaved else (x[:3], x[3:]):
        rows = [row for row in range(6) if any(torch.equal(x[row], other) for other in part)]
        torch.testing.assert_close(y[rows], nn.BatchNorm3d(3)(part))
    torch.testing.assert_close(
        split.eval()(x),
        (x - split.running_mean.view(3, 1, 1, 1)) / (split.running_var.view(3, 1, 1, 1) + norm.eps).sqrt(),
    )
    with pytest.raises(ValueError, match="expected 5D input"):
        split(x[:, :, 0])


def test_all_norms_of_a_video_network_are_split():
    encoder = Encoder("r3d_small", image_size=32, in_channels=3, batch_norm_splits=2)
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d | SplitBatchNorm3d)]
    assert len(norms) == 12
    assert all(isinstance(m, SplitBatchNorm3d) and m.splits == 2 for m in norms)
    plain = Encoder("r3d_small", image_size=32, in_channels=3)
    plain.load_state_dict(encoder.state_dict())
    of_parts = [plain.double()(clips(4)[rows])[-1] for rows in (slice(2), slice(2, 4))]
    torch.testing.assert_close(encoder.double()(clips(4))[-1], torch.cat(of_parts))
    split_batch_norms(encoder.backbone, 4)
    assert {m.splits for m in encoder.modules() if isinstance(m, SplitBatchNorm3d)} == {4}


# ---- several clips of a video


def test_the_representation_of_a_video_is_the_mean_over_its_clips():
    module = SimCLR(SimCLRViews(32, blur=False), "r3d_small", image_size=32).eval()
    videos = torch.stack([clips(seed=seed) for seed in range(3)], dim=1)  # [N, 3, ch, T, H, W]
    expected = torch.stack([module(clip) for clip in videos.unbind(1)]).mean(0)
    for network in (module, Representation(module.encoder)):
        torch.testing.assert_close(network(videos), expected)
        torch.testing.assert_close(network(videos[:, [2, 0, 1]]), expected)
        assert torch.equal(network(videos[:, :1]), module(videos[:, 0]))


@pytest.mark.parametrize("shape", [(2, 3, 8, 32, 32), (2, 3, 3, 8, 32, 32)])
def test_an_encoder_of_images_refuses_clips(shape):
    module = SimCLR(SimCLRViews(32, blur=False), "test_resnet", image_size=32)
    with pytest.raises(ValueError, match=r"images: expected the four axes .*clips .* need an encoder of clips"):
        module(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"need an encoder of clips|makes views of one clip"):
        module.training_step(torch.zeros(shape, dtype=torch.uint8), 0)


def test_an_encoder_of_clips_refuses_images():
    module = SimCLR(SimCLRViews(32, blur=False), "r3d_small", image_size=32)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"images: expected the axes \[N, channels\] and 3 spatial ones"):
        module(images)
    with pytest.raises(ValueError, match=r"views: expected view 0 to be \[N, ch\] with 3 spatial axes"):
        module.training_step(images, 0)
