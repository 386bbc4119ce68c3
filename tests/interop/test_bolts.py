"""Read files in lightning-bolts' format without lightning-bolts. tests/bolts reads files that it wrote."""

import builtins
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from ssl_modules import SimCLR
from ssl_modules.encoders import AMDIMEncoder, CPCEncoder
from ssl_modules.interop.bolts import load_encoder, read_checkpoint

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture
def stranger(monkeypatch):
    """Give an object whose class can't be imported when it is loaded."""
    module = ModuleType("pl_bolts_of_old")
    exec("class Task:\n    def __init__(self): self.clip, self.masks = 10.0, {1: {2}}", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module.Task()
    assert module.__name__ not in sys.modules


def checkpoint(encoder, **hyper_parameters):
    state = {f"encoder.{name}": value for name, value in encoder.items()}
    return {"state_dict": {**state, "projection.weight": torch.zeros(1)}, "hyper_parameters": hyper_parameters}


def amdim_weights():
    values = np.load(REFERENCE / "amdim_6_encoder32_tiny.npz")
    weights = {name[2:]: torch.from_numpy(values[name]) for name in values if name.startswith("w.")}
    weights["layer_list.8.bn.num_batches_tracked"] = torch.tensor(3)
    for layer in (0, 1, 4):  # bolts builds these norms, but doesn't use them
        weights[f"layer_list.{layer}.bn.bn.weight"] = torch.full((2,), 7.0)
    return weights, values


def test_amdim(tmp_path, stranger, monkeypatch):
    weights, values = amdim_weights()
    torch.save(checkpoint(weights, use_bn=False, contrastive_task=stranger), tmp_path / "a.ckpt")
    monkeypatch.delitem(sys.modules, "pl_bolts_of_old")
    encoder = load_encoder(tmp_path / "a.ckpt")
    assert isinstance(encoder, AMDIMEncoder)
    assert dict(encoder.arguments) == {
        "image_size": 32,
        "in_channels": 3,
        "width": 2,
        "features": 10,
        "depth": 2,
        "batch_norm": False,
    }
    deepest = encoder.double()(torch.from_numpy(values["x"]).double())[-1]
    torch.testing.assert_close(deepest, torch.from_numpy(values["r1"]), rtol=0, atol=1e-10)


def test_cpc(tmp_path):
    torch.manual_seed(0)
    ours = CPCEncoder(8, layers=(1, 2, 1, 1), width=4)  # parameters have the same names as in bolts
    torch.save(checkpoint(ours.state_dict(), patch_size=8), tmp_path / "c.ckpt")
    encoder = load_encoder(tmp_path / "c.ckpt")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(encoder(x)[-1], ours(x)[-1])


@pytest.mark.parametrize("stem", [3, 7])
@pytest.mark.parametrize("maxpool", [True, False])
def test_simclr(tmp_path, stem, maxpool):
    torch.manual_seed(0)
    plain = torchvision.models.resnet18()
    plain.fc = nn.Identity()
    if stem == 3:
        plain.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    torch.save(checkpoint({**plain.state_dict(), "fc.weight": torch.zeros(2)}, maxpool1=maxpool), tmp_path / "s.ckpt")
    if not maxpool:
        plain.maxpool = nn.MaxPool2d(1, 1)
    module = SimCLR(encoder=load_encoder(tmp_path / "s.ckpt"), mean=(0.5,) * 3, std=(0.2,) * 3).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(module(x), plain.eval()((x - 0.5) / 0.2), rtol=1e-4, atol=1e-5)


def test_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "from_bolts.md").read_text()
    plain = torchvision.models.resnet18()
    torch.save(checkpoint(plain.state_dict(), maxpool1=True), tmp_path / "simclr.ckpt")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\S* ?\w*\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if "load_encoder" in block]
    names = {}
    exec(block, names)
    assert torch.equal(names["module"].encoder.backbone.model.conv1.weight, plain.conv1.weight)


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [(builtins.exec, "open({!r}, 'w')"), (builtins.open, "{}", "w")], ids=["exec", "open"])
def test_no_code_of_the_file_runs(tmp_path, call):
    function, *arguments = call
    trace = str(tmp_path / "trace")
    evil = Runs(function, *(argument.format(trace) for argument in arguments))
    torch.save(checkpoint(amdim_weights()[0], use_bn=False, datamodule=evil), tmp_path / "evil.ckpt")
    load_encoder(tmp_path / "evil.ckpt")
    assert not Path(trace).exists()


@pytest.mark.parametrize("function", [os.system, subprocess.Popen])
def test_commands_of_the_file_do_not_run(tmp_path, function):
    trace = tmp_path / "trace"
    evil = Runs(function, f"touch {trace}" if function is os.system else ["touch", str(trace)])
    torch.save(checkpoint({}, datamodule=evil), tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"path: evil\.ckpt (is not a file of tensors and plain data|has no encoder)"):
        load_encoder(tmp_path / "evil.ckpt")
    assert not trace.exists()


def test_objects_of_unknown_classes_are_left_empty(tmp_path, stranger, monkeypatch):
    torch.save(checkpoint({}, task=stranger, plain=[1, "a", {"b": 2.0}]), tmp_path / "o.ckpt")
    monkeypatch.delitem(sys.modules, "pl_bolts_of_old")
    before = torch.serialization.get_safe_globals()
    arguments = read_checkpoint(tmp_path / "o.ckpt")["hyper_parameters"]
    assert arguments["plain"] == [1, "a", {"b": 2.0}]
    assert vars(arguments["task"]) == {}
    assert {*torch.serialization.get_safe_globals()} == {*before}


def test_other_files_are_named(tmp_path):
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"path: text\.ckpt is not a file of tensors and plain data"):
        load_encoder(tmp_path / "text.ckpt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "w.ckpt")
    with pytest.raises(ValueError, match=r"path: w\.ckpt has no state_dict and hyper_parameters, as Lightning's"):
        load_encoder(tmp_path / "w.ckpt")
    torch.save(checkpoint({"blocks.0.weight": torch.zeros(1)}), tmp_path / "vit.ckpt")
    with pytest.raises(ValueError, match=r"path: vit\.ckpt has no encoder that bolts' .* build, but blocks\.0\.weight"):
        load_encoder(tmp_path / "vit.ckpt")
    with pytest.raises(FileNotFoundError):
        load_encoder(tmp_path / "none.ckpt")
