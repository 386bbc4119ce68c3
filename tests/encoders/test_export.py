import pytest
import timm
import torch
import torchvision
from encoders.networks import Clips, TwoMaps, Vector, pixels, randomised
from safetensors.torch import save_file
from torch import nn

from ssl_modules import SimCLR
from ssl_modules.encoders import AMDIMEncoder, CPCEncoder, Encoder, Representation, load_encoder, load_weights
from ssl_modules.encoders.export import export_encoder, save_weights

KNOWN = {"image_size": 32, "in_channels": 3, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def plain_file(tmp_path, model):
    path = tmp_path / "plain.pth"
    torch.save(model.state_dict(), path)
    return path


# ---- the network's own names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [torchvision.models.resnet18, Vector, TwoMaps, Clips, lambda: timm.create_model("test_vit", img_size=32)]
)
def test_the_weights_have_the_names_that_the_network_gave_them(model):
    model = model()
    size = 8 if isinstance(model, Clips) else 32
    weights, metadata = Encoder(model, image_size=size, in_channels=3).export()
    assert weights.keys() == model.state_dict().keys()  # without the classifier, if it had one
    assert metadata["architecture"] == type(model).__name__


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext"])
def test_the_weights_of_a_timm_name_are_those_of_the_plain_model(name):
    plain = timm.create_model(name, num_classes=0)
    assert Encoder(name, image_size=32, in_channels=3).export()[0].keys() == plain.state_dict().keys()


def test_the_weights_are_copies_in_the_usual_layout():
    encoder = Encoder("test_resnet", image_size=32, in_channels=3)
    weights, _ = encoder.export()
    assert encoder.network.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(w.is_contiguous() for w in weights.values())
    own = encoder.network.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[k], own[k]) and weights[k].data_ptr() != own[k].data_ptr() for k in own)


# ---- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("test_resnet", {"in_channels": 1}),  # with the small stem
        ("test_resnet", {"small_stem": False, "patches": (16, 8)}),
        ("test_vit", {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}),
        ("test_convnext", {}),
        (AMDIMEncoder(32, width=4, features=16, depth=1), {}),
        (CPCEncoder(16, 1, layers=[1, 1, 1, 1], width=2), {"in_channels": 1, "patches": (16, 8)}),
    ],
)
def test_a_file_says_what_its_encoder_is(network, arguments, ending, tmp_path):
    before = randomised(Encoder(network, **{"image_size": 32, "in_channels": 3, **arguments}))
    path = tmp_path / f"encoder.{ending}"
    save_weights(path, *before.export())
    after = load_encoder(path)
    assert after.training
    assert after.export()[1] == before.export()[1] == load_weights(path)[1]
    images = pixels(channels=before.in_channels)
    for m, expected in zip(after.eval()(images), before(images), strict=True):
        assert torch.equal(m, expected)


def test_arguments_win_over_the_file(tmp_path):
    path = tmp_path / "encoder.pt"
    save_weights(path, *Encoder("test_resnet", image_size=32, in_channels=3).export())
    loaded = load_encoder(path, image_size=96, mean=(0.5, 0.5, 0.5))
    assert (loaded.image_size, loaded.small_stem) == (96, True)
    assert loaded.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert loaded.std.flatten().tolist() == [1.0, 1.0, 1.0]


def test_a_network_of_ones_own_is_given_and_takes_the_weights_over(tmp_path):
    model = randomised(torchvision.models.resnet18())
    path = tmp_path / "encoder.safetensors"
    save_weights(path, *Encoder(model, image_size=32, in_channels=3, small_stem=True).export())
    with pytest.raises(ValueError, match=r"^encoder: encoder.safetensors is of a ResNet, which doesn't tell how"):
        load_encoder(path)
    given = torchvision.models.resnet18()
    loaded = load_encoder(path, given)
    assert loaded.network is given
    assert torch.equal(given.conv1.weight, model.conv1.weight)


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_resnet", 32), ("test_vit", 32), ("test_convnext", 32), ("test_efficientnet", 32)],
)
def test_plain_weights_of_timm_lose_their_classifier(name, size, tmp_path):
    fixed = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    model = randomised(timm.create_model(name, num_classes=7, **fixed))
    path = plain_file(tmp_path, model)
    assert load_weights(path)[1] == {}
    loaded = load_encoder(path, name, **KNOWN).eval()
    assert not loaded.small_stem  # a small stem would drop weights
    model.reset_classifier(0)
    x = pixels(size=size)
    mean, std = (torch.tensor(KNOWN[k]).view(3, 1, 1) for k in ("mean", "std"))
    expected = model((x / 255 - mean) / std)
    actual = Representation(loaded)(x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_plain_weights_of_torchvision_lose_their_classifier(ending, tmp_path):
    model = randomised(torchvision.models.resnet18())
    path = tmp_path / f"plain.{ending}"
    (save_file if ending == "safetensors" else torch.save)(model.state_dict(), path)
    loaded = load_encoder(path, torchvision.models.resnet18(), **KNOWN)
    model.fc = nn.Identity()
    assert loaded.export()[0].keys() == model.state_dict().keys()
    for key, value in loaded.export()[0].items():
        assert torch.equal(value, model.state_dict()[key])


def test_what_a_plain_file_does_not_say_is_asked_for(tmp_path):
    path = plain_file(tmp_path, timm.create_model("test_resnet"))
    with pytest.raises(ValueError, match=r"^encoder, image_size, in_channels, mean, std: plain.pth says nothing of it"):
        load_encoder(path)
    with pytest.raises(ValueError, match=r"^mean, std: plain.pth says nothing of itself; give load_encoder these arg"):
        load_encoder(path, "test_resnet", image_size=32, in_channels=3)


# ---- weights that don't fit ----------------------------------------------------------------------------------------


def renamed(weights):
    return {f"encoder.{k}": w for k, w in weights.items()}


def without_one(weights):
    return {k: w for k, w in weights.items() if k != "bn1.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            renamed,
            r"weights: don't fit test_resnet of .*missing: bn1.bias, bn1.running_mean, .* and \d+ more; unknown: ",
        ),
        (without_one, "; missing: bn1.weight; give the network's own names"),
        (lambda w: w | {"layer9.weight": torch.zeros(1)}, "; unknown: layer9.weight; give"),
        (
            lambda w: w | {"bn1.weight": torch.zeros(3)},
            r"small_stem=True; of another shape: bn1.weight \[3\], not \[32\]; give",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(change, message):
    encoder = Encoder("test_resnet", image_size=32, in_channels=3)
    before = encoder.export()[0]
    other = Encoder("test_resnet", image_size=32, in_channels=3).export()[0]
    with pytest.raises(ValueError, match=message):
        encoder.load(change(other))
    assert all(torch.equal(w, before[k]) for k, w in encoder.export()[0].items())


def test_a_stem_or_a_size_that_the_weights_are_not_of_is_named(tmp_path):
    path = plain_file(tmp_path, timm.create_model("resnet18"))
    with pytest.raises(ValueError, match=r"small_stem=True; .*conv1.weight \[64, 3, 7, 7\], not \[64, 3, 3, 3\]"):
        load_encoder(path, "resnet18", small_stem=True, **KNOWN)
    path = tmp_path / "vit.pt"
    save_weights(path, *Encoder("test_vit", image_size=32, in_channels=3).export())
    with pytest.raises(ValueError, match=r"image_size=64, .*; of another shape: pos_embed"):
        load_encoder(path, image_size=64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"pytorch-lightning_version": "2.6.6", "state_dict": {}},
            "weights.pt is a checkpoint of a whole module; load",
        ),
        ([torch.zeros(1)], "weights.pt holds no names to tensors"),
        ({}, "weights.pt holds no names to tensors"),
        ({"state_dict": {"a": 1}}, "weights.pt holds no names to tensors"),
        (nn.Linear(1, 1), "weights.pt is not a file of tensors and plain data"),
    ],
)
def test_files_of_other_things_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=f"path: {message}"):
        load_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"hello, I am text"])
def test_files_that_are_broken_are_refused(content, ending, tmp_path):
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"path: weights.{ending} is not a file of tensors"):
        load_weights(path)
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / f"nothing.{ending}")


# ---- the representation --------------------------------------------------------------------------------------------


def test_the_representation_of_an_exported_encoder_is_the_modules_own(tmp_path):
    module = SimCLR(encoder="test_resnet", mean=(0.5,) * 3, std=(0.25,) * 3)
    randomised(module)
    module.export_encoder(tmp_path / "encoder.safetensors")
    representation = Representation(load_encoder(tmp_path / "encoder.safetensors")).eval()
    assert torch.equal(representation(pixels()), module(pixels()))
    assert representation.accepts_uint8


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_flipped_bit_of_the_weights_is_noticed(tmp_path, ending):
    path = tmp_path / f"encoder.{ending}"
    weights = export_encoder(Encoder("test_resnet", image_size=32, in_channels=1), path)
    content = path.read_bytes()
    place = content.index(max(weights.values(), key=torch.Tensor.numel).numpy().tobytes()) + 1000
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match=rf"path: encoder.{ending} is damaged: .* another checksum"):
        load_encoder(path)


def test_damaged_metadata_are_named(tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder = Encoder("test_resnet", image_size=32, in_channels=1)
    save_file(encoder.export()[0], path, {"ssl_modules": "{'image_size'"})
    with pytest.raises(ValueError, match=r"path: encoder.safetensors has damaged metadata"):
        load_encoder(path)


# ---- files for other programs --------------------------------------------------------------------------------------


def described(name, channels=3, size=32, **given):
    """Return an encoder with its own mean and std, images, and the mean and std as tensors."""
    mean, std = [0.1 * (i + 1) for i in range(channels)], [0.2 + 0.1 * i for i in range(channels)]
    network = randomised(Encoder(name, image_size=size, in_channels=channels, mean=mean, std=std, **given))
    return (
        network,
        torch.rand(3, channels, size, size),
        torch.tensor(mean).view(-1, 1, 1),
        torch.tensor(std).view(-1, 1, 1),
    )


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("test_resnet", 1, 80), ("test_resnet", 4, 96), ("test_vit", 3, 48), ("test_efficientnet", 3, 40)],
)
def test_timm_loads_the_folder(tmp_path, name, channels, size):
    encoder, images, mean, std = described(name, channels, size)
    export_encoder(encoder, tmp_path / "folder", card="# A card")
    model = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    torch.testing.assert_close(model((images - mean) / std), Representation(encoder).eval()(images))
    config = timm.data.resolve_model_data_config(model)
    torch.testing.assert_close(torch.tensor(config["mean"]).view(-1, 1, 1), mean)
    torch.testing.assert_close(torch.tensor(config["std"]).view(-1, 1, 1), std)
    assert config["input_size"] == (channels, size, size)
    assert (tmp_path / "folder/README.md").read_text() == "# A card"


@pytest.mark.parametrize(
    ("network", "given", "cause"),
    [
        ("test_resnet", {}, "lacks the stem for small images"),
        ("test_resnet", {"small_stem": False, "patches": (16, 8)}, "lacks encoders of patches"),
        (Vector(), {}, "has no Vector"),
        (torchvision.models.resnet18(), {}, "has no ResNet"),
    ],
)
def test_a_folder_that_timm_cannot_load_is_refused(tmp_path, network, given, cause):
    encoder = Encoder(network, image_size=32, in_channels=3, **given)
    with pytest.raises(ValueError, match=rf"path: a folder is for timm, which {cause}"):
        export_encoder(encoder, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    export_encoder(encoder, tmp_path / "encoder.safetensors")  # what the message advises


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_program_of_torch_export_computes_the_representation(tmp_path, name):
    encoder, images, _, _ = described(name)
    export_encoder(encoder.train(), tmp_path / "encoder.pt2")
    assert all(module.training for module in encoder.modules())
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    torch.testing.assert_close(program(images), Representation(encoder).eval()(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_onnx_computes_the_representation(tmp_path, name):
    runtime = pytest.importorskip("onnxruntime", reason="the dev group has it")
    encoder, images, _, _ = described(name)
    export_encoder(encoder, tmp_path / "encoder.onnx")
    [found] = runtime.InferenceSession(tmp_path / "encoder.onnx").run(["features"], {"images": images.numpy()})
    expected = Representation(encoder).eval()(images).detach()
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_a_program_of_clips_takes_clips_of_its_length(tmp_path):
    encoder = randomised(Encoder("r3d_small", image_size=16, in_channels=1, mean=[0.4], std=[0.3]))
    export_encoder(encoder, tmp_path / "encoder.pt2", frames=8)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 3):
        clips = torch.rand(count, 1, 8, 16, 16)
        torch.testing.assert_close(program(clips), Representation(encoder).eval()(clips))


def test_only_a_program_of_clips_takes_frames(tmp_path):
    clips, images = (Encoder(name, image_size=16, in_channels=1) for name in ("r3d_small", "test_resnet"))
    for ending in ("pt2", "onnx"):
        with pytest.raises(ValueError, match=r"frames: expected the number .* r3d_small .* got None; .* frames=8"):
            export_encoder(clips, tmp_path / f"encoder.{ending}")
    with pytest.raises(ValueError, match=r"frames: expected None, because test_resnet is not for clips, got 8"):
        export_encoder(images, tmp_path / "encoder.pt2", frames=8)
    with pytest.raises(ValueError, match=r"frames: expected a number of at least 1, got 0"):
        export_encoder(clips, tmp_path / "encoder.pt2", frames=0)
    for path in (None, tmp_path / "encoder.pt"):
        with pytest.raises(ValueError, match=r"frames: expected None unless path ends in \.pt2 or \.onnx, got 8"):
            export_encoder(clips, path, frames=8)
    assert not [*tmp_path.iterdir()]


def test_a_program_of_patches_is_refused(tmp_path):
    encoder = Encoder("test_resnet", image_size=32, in_channels=3, patches=(16, 8))
    with pytest.raises(ValueError, match=r"ending in \.safetensors or \.pt, because .* patches .* got 'encoder\.pt2'"):
        export_encoder(encoder, tmp_path / "encoder.pt2")


def test_without_its_packages_onnx_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_modules.encoders.sharing.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install onnx onnxscript, or give a file ending in \.pt2"):
        export_encoder(Encoder("test_resnet", image_size=32, in_channels=3), tmp_path / "encoder.onnx")
