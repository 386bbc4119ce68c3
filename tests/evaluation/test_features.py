import random
import re
import types

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ssl_modules.evaluation.features import classes, features_and_targets, undisturbed


class Noisy(Dataset):
    """A data set that draws from every global random state, as augmentation does."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(1) + random.random() + float(np.random.rand())  # noqa: NPY002


def test_undisturbed_restores_modes_and_random_states():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout()))
    modes = [part.training for part in module.modules()]
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    expected = [torch.rand(1).item(), random.random(), np.random.rand()]  # noqa: NPY002
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    with undisturbed(module):
        seen = list(DataLoader(Noisy(), shuffle=True))
        assert len(seen) == 4
        assert not any(part.training for part in module.modules())
        assert not module(torch.ones(1, 2)).requires_grad
    assert [torch.rand(1).item(), random.random(), np.random.rand()] == expected  # noqa: NPY002
    assert [part.training for part in module.modules()] == modes


def test_undisturbed_restores_modes_after_an_error():
    module = nn.Dropout()
    with pytest.raises(RuntimeError), undisturbed(module):
        raise RuntimeError
    assert module.training


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        self.head = nn.Linear(3, 2)
        self.twice = nn.Identity()

    def forward(self, images):
        return self.head(self.twice(self.twice(self.encoder(images))))


IMAGES, TARGETS = torch.rand(5, 1, 2, 2), torch.arange(5)


def test_the_three_ways_to_features_agree():
    net = Net()
    expected = net.encoder(IMAGES)
    for features in ("encoder", "encoder.1", lambda module, images: module.encoder(images)):
        found, targets = features_and_targets(net, (IMAGES, TARGETS, "more"), features=features)
        assert torch.equal(found, expected)
        assert torch.equal(targets, TARGETS)
    assert torch.equal(features_and_targets(net, [IMAGES, TARGETS])[0], net(IMAGES))
    assert not net.encoder._forward_hooks


def test_prepare_and_level():
    batch = {"x": IMAGES * 2, "y": torch.stack([TARGETS, TARGETS // 2], dim=1)}
    net = Net()
    found, targets = features_and_targets(net, batch, prepare=lambda b: (b["x"] / 2, b["y"]))
    assert torch.equal(found, net(IMAGES))
    assert classes(targets, 1).tolist() == [0, 0, 1, 1, 2]
    assert torch.equal(classes(targets, -2), TARGETS)
    assert torch.equal(classes(TARGETS, None), TARGETS)


@pytest.mark.parametrize(
    ("targets", "level", "message"),
    [
        (TARGETS, 0, r"level: expected .* got 0 and targets \[5\]"),
        (TARGETS[:, None].repeat(1, 2), None, r"got None and targets \[5, 2\]"),
        (TARGETS[:, None].repeat(1, 2), 2, "level: expected .* got 2"),
    ],
)
def test_a_level_that_does_not_fit_is_refused(targets, level, message):
    with pytest.raises(ValueError, match=message):
        classes(targets, level)


def test_uint8_passes_where_it_is_expected():
    net, pixels = Net(), torch.ones(5, 1, 2, 2, dtype=torch.uint8)
    net.accepts_uint8 = True
    features = lambda module, images: module.encoder(images.float())  # noqa: E731
    found, _ = features_and_targets(net, (pixels, TARGETS), features=features)
    assert torch.equal(found, net.encoder(pixels.float()))
    del net.accepts_uint8
    assert torch.equal(features_and_targets(net, (pixels, TARGETS), features=features)[0], found)
    assert features_and_targets(nn.Flatten(), (pixels, TARGETS))[0].dtype == torch.float32


class WithoutForward(nn.Module):
    """A module without a forward, like a LightningModule whose training step calls its submodules."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"one": nn.Linear(3, 2)})
        self.norm = nn.Flatten()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
        self.encoders = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(4, 2))])


class LightningWithoutForward(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = WithoutForward().backbone


@pytest.mark.parametrize("make", [WithoutForward, LightningWithoutForward])
def test_without_a_forward_the_named_submodule_gets_the_images(make):
    net = make()
    expected = net.backbone[:2](IMAGES)
    assert torch.equal(features_and_targets(net, (IMAGES, TARGETS), features="backbone.1")[0], expected)
    assert torch.equal(features_and_targets(net, (IMAGES, TARGETS), features="backbone")[0], expected.relu())


def test_without_a_forward_the_outermost_submodule_with_one_gets_the_images():
    net = WithoutForward()
    found, _ = features_and_targets(net, (IMAGES, TARGETS), features="encoders.0")
    assert torch.equal(found, net.encoders[0](IMAGES))


def followed(net, error, batch=(IMAGES, TARGETS)):
    """Return the features that the first function in an error message computes."""
    text = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    code = re.search(r"features=(lambda module, images: .+?)(, or |, got|$)", text)[1]
    return features_and_targets(net, batch, features=eval(code))[0]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "expected a module with a forward, got WithoutForward, .*features='backbone', or give a function"),
        ("norm", "got 'norm', a Flatten without parameters; give a function"),
        ("heads", "got 'heads', a ModuleDict without forward; give a function"),
    ],
)
def test_an_error_for_a_part_that_takes_no_images_shows_a_function_that_works(features, message):
    net = WithoutForward()
    with pytest.raises(ValueError, match=message) as error:
        features_and_targets(net, (IMAGES, TARGETS), features=features)
    assert torch.equal(followed(net, error), net.backbone(IMAGES))


class OfDicts(Net):
    def forward(self, batch):
        return self.head(self.encoder(batch["image"]))


class OfSteps(Net):
    def forward(self, images, stage):
        return self.head(self.encoder(images))


@pytest.mark.parametrize(("make", "kind"), [(OfDicts, IndexError), (OfSteps, TypeError)])
@pytest.mark.parametrize("features", [None, "encoder"])
def test_the_error_of_a_forward_with_other_arguments_gets_a_note_with_a_function(make, kind, features):
    net = make()
    with pytest.raises(kind) as error:
        features_and_targets(net, (IMAGES, TARGETS), features=features)
    assert any("module(images) failed for images [5, 1, 2, 2]" in note for note in error.value.__notes__)
    assert torch.equal(followed(net, error), net.encoder(IMAGES))


class Output(dict):
    """A mapping whose entries are also attributes, like the outputs of transformers models."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (lambda x: Output(last_hidden_state=x[:, None].expand(-1, 3, -1)), "module(images).last_hidden_state[:, 0]"),
        (lambda x: {"features": x}, "module(images)['features']"),
        (lambda x: (x, x.mean()), "module(images)[0]"),
        (lambda x: types.SimpleNamespace(name="any", pooled=x), "module(images).pooled"),
        (lambda x: x[:, None].expand(-1, 3, -1), "module(images)[:, 0], or module(images).mean(1)"),
        (lambda x: x[:, :, None, None].expand(-1, -1, 2, 2), "module(images).mean((2, 3))"),
        (lambda x: x[:, :, None, None, None].expand(-1, -1, 2, 2, 2), "module(images).mean((2, 3, 4))"),
    ],
    ids=["object", "dict", "tuple", "namespace", "tokens", "maps", "clips"],
)
def test_the_error_shows_how_to_get_vectors_from_other_outputs(output, shown):
    class Other(Net):
        def forward(self, images):
            return output(self.encoder(images))

    net = Other()
    with pytest.raises(ValueError, match=re.escape(f"features=lambda module, images: {shown}")) as error:
        features_and_targets(net, (IMAGES, TARGETS))
    assert torch.equal(followed(net, error), net.encoder(IMAGES))


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ((IMAGES, TARGETS), {"features": "encodr"}, "expected a submodule of Net, got 'encodr'; near matches: encoder"),
        ((IMAGES, TARGETS), {"features": "twice"}, r"one call of 'twice' in module\(images\), got 2"),
        (
            (IMAGES, TARGETS),
            {"features": lambda module, images: images},
            r"expected \[5, D\] from .*, got \[5, 1, 2, 2\].*; pool the output",
        ),
        ((IMAGES, TARGETS), {"features": lambda module, images: [images]}, "expected one tensor .*, got a list"),
        ((IMAGES, TARGETS[:4]), {}, "expected \\[4, D\\] from module"),
        ((IMAGES, TARGETS.float()), {}, "class indices, got torch.float32; give prepare="),
        (
            ((IMAGES * 255).byte(), TARGETS),
            {},
            "images: expected floating-point numbers, as .* of Net are, got uint8; give prepare=",
        ),
        (IMAGES, {}, "without labels; .* train= and test="),
        ((IMAGES,), {}, "without labels"),
        (
            {"image": IMAGES, "size": 2},
            {},
            r"without labels under the keys image, size; select .* prepare=lambda batch.* train= and test=",
        ),
        (((IMAGES, IMAGES), TARGETS), {}, r"tuple\(tuple, Tensor\).*prepare="),
        ({"x": IMAGES}, {}, "the loader: expected .images, targets., got dict"),
        ((IMAGES, TARGETS), {"prepare": lambda batch: batch[0]}, "prepare: expected .images, targets.* got Tensor"),
    ],
)
def test_errors_name_the_argument(batch, options, message):
    with pytest.raises(ValueError, match=message):
        features_and_targets(Net(), batch, **options)
