"""Untrusted checkpoints: no way of loading them imports or calls what the file names."""

import sys
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import nn

from ssl_modules import FineTuning, SimCLR, load_module
from ssl_modules.augmentations import SimCLRViews
from ssl_modules.cli import main
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.encoders import Encoder
from ssl_modules.utils.plain_checkpoint import check_version

# Creates a file when it is imported, built or called.
PAYLOAD = """
from pathlib import Path
import torch
Path({marker!r}).touch()

def run(*args, **kwargs):
    Path({marker!r}).touch()

class Net(torch.nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        run()

class Optimizer(torch.optim.SGD):
    pass
"""
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
# timm is already imported, and calls its argument drop_block.
BLOCK = {
    "class_path": "timm.models.byobnet.BasicBlock",
    "init_args": {"in_chs": 8, "out_chs": 8, "drop_block": "payload.run"},
}
ATTACKS = {
    "Lightning's instantiator builds a network": {"_instantiator": INSTANTIATOR, "encoder": BLOCK},
    "Lightning's instantiator imports a network": {
        "_instantiator": INSTANTIATOR,
        "encoder": {"class_path": "payload.Net"},
    },
    "Lightning's instantiator imports a module": {"_instantiator": INSTANTIATOR, "_class_path": "payload.Net"},
    "an instantiator of the file": {"_instantiator": "payload.run"},
    "a network by its path": {"encoder": {"class_path": "payload.Net"}},
    "a network that is imported already": {"encoder": BLOCK},
    "a function by its path": {"loss": {"class_path": "payload.run"}},
    "a function of the standard library": {"loss": {"class_path": "os.abort"}},
    "an optimiser by its path": {"optimizer": {"class_path": "payload.Optimizer", "init_args": {"lr": 1.0}}},
    "a function as optimiser": {"optimizer": "payload.run"},
    "a network inside a list": {"mean": [{"class_path": "payload.Net"}]},
    "a loss inside an aspect": {
        "extraction": {
            "class_path": "ssl_modules.extractions.Queue",
            "init_args": {"ranks": {"class_path": "payload.Net"}},
        }
    },
}


def small(**given):
    return {
        "augmentation": SimCLRViews(8, strength=0.5, blur=False),
        "encoder": "test_resnet",
        "image_size": 8,
        "in_channels": 1,
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "base_batch_size": None,
        **given,
    }


def saved(module, path, data=None):
    trainer = pl.Trainer(barebones=True, accelerator="cpu")
    trainer.strategy.connect(module)
    if data is not None:
        trainer.datamodule = data
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """Return the path of the file that the payload creates when it runs."""
    path = tmp_path / "ran"
    (tmp_path / "payload.py").write_text(PAYLOAD.format(marker=str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield path
    sys.modules.pop("payload", None)


@pytest.fixture
def evil(marker):
    """Return a function that writes a SimCLR checkpoint with an attack in it."""

    def write(hyper_parameters=None, **entries):
        checkpoint = saved(SimCLR(**small()), "evil.ckpt")
        checkpoint["hyper_parameters"] |= hyper_parameters or {}
        torch.save(checkpoint | entries, "evil.ckpt")
        return "evil.ckpt"

    return write


def attempt(run):
    """Run a function that may refuse the checkpoint; return its error, if any."""
    try:
        run()
    except (ValueError, TypeError, RuntimeError, UnpicklingError, SystemExit) as error:
        return error
    return None


CONFIG = {
    "model": {
        "class_path": "SimCLR",
        "init_args": {
            "augmentation": {"class_path": "SimCLRViews", "init_args": {"size": 8, "strength": 0.5, "blur": False}},
            "encoder": "test_resnet",
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        },
    },
    "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 32}},
    "trainer": {
        "fast_dev_run": True,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}


def by_command(*args):
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    return lambda: main([args[0], "--config", "config.yaml", *args[1:]])


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("way", [load_module, SimCLR.load_from_checkpoint])
def test_no_attack_runs_where_a_module_is_loaded(way, attack, evil, marker):
    path = evil(attack)
    attempt(lambda: way(path))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["Lightning's instantiator builds a network", "an instantiator of the file"])
def test_what_names_an_instantiator_is_built_without_it(name, evil, marker):
    module = load_module(evil({"_instantiator": ATTACKS[name]["_instantiator"]}))
    assert type(module) is SimCLR
    assert not marker.exists()


@pytest.mark.parametrize(
    "attack",
    [ATTACKS[name] for name in ("Lightning's instantiator builds a network", "an instantiator of the file")],
    ids=["instantiator", "function"],
)
@pytest.mark.parametrize("command", ["fit", "test", "evaluate", "export"])
def test_no_attack_runs_from_the_command_line(command, attack, evil, marker):
    path = evil(attack)
    if command == "export":
        run = partial(main, ["export", "--ckpt", path, "--out", "encoder.safetensors"])
    elif command == "evaluate":
        run = partial(main, ["evaluate", "--ckpt", path, "--data", "DigitsDataModule", "--protocol", "knn"])
    else:
        run = by_command(command, "--ckpt_path", path)
    attempt(run)
    assert not marker.exists()


def test_no_attack_runs_where_a_trainer_resumes(evil, marker):
    module = SimCLR(**small())
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    path = evil(ATTACKS["Lightning's instantiator builds a network"])
    attempt(lambda: trainer.fit(module, DigitsDataModule(batch_size=64), ckpt_path=path))
    assert not marker.exists()


@pytest.mark.parametrize("key", ["hparams", "module_arguments"])
def test_older_names_of_the_arguments_are_no_way_in(key, evil, marker):
    path = evil(**{key: ATTACKS["Lightning's instantiator builds a network"]})
    attempt(lambda: SimCLR.load_from_checkpoint(path))
    attempt(lambda: load_module(path))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["payload.Net", "payload.run", "os.abort", "torch.nn.Linear", "builtins.print"])
def test_the_class_of_a_checkpoint_is_neither_imported_nor_called(name, evil, marker):
    path = evil(ssl_modules={"class": name, "version": "0.2.0"})
    with pytest.raises(ValueError, match=f"is of the class {name}, which does not exist here; import the module"):
        load_module(path)
    assert not marker.exists()


def test_a_file_that_is_a_program_is_not_run(marker):
    class Program:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save({"state_dict": {}, "hyper_parameters": Program()}, "program.ckpt")
    for way in (load_module, SimCLR.load_from_checkpoint, FineTuning.load_from_checkpoint):
        assert attempt(lambda way=way: way("program.ckpt")) is not None
    for command in ("fit", "test"):
        attempt(by_command(command, "--ckpt_path", "program.ckpt"))
    assert not marker.exists()


def test_fine_tuning_and_data_modules_are_built_without_an_instantiator(marker):
    attack = ATTACKS["Lightning's instantiator imports a network"]
    encoder = Encoder("test_resnet", image_size=8, in_channels=1)
    tuned = FineTuning(encoder, num_classes=10, optimizer=partial(torch.optim.SGD, lr=0.1))
    checkpoint = saved(tuned, "tuned.ckpt", DigitsDataModule(batch_size=7))
    checkpoint["hyper_parameters"] |= attack
    checkpoint["datamodule_hyper_parameters"] |= {"_instantiator": INSTANTIATOR}
    torch.save(checkpoint, "tuned.ckpt")
    attempt(lambda: FineTuning.load_from_checkpoint("tuned.ckpt"))
    assert DigitsDataModule.load_from_checkpoint("tuned.ckpt").batch_size == 7
    checkpoint["datamodule_hyper_parameters"] |= {"batch_size": {"class_path": "payload.Net"}}
    torch.save(checkpoint, "tuned.ckpt")
    attempt(lambda: DigitsDataModule.load_from_checkpoint("tuned.ckpt"))
    assert not marker.exists()


def test_the_command_stores_what_python_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], "fast_dev_run": False, "max_steps": 1}}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "config.yaml", "--last_checkpoint.dirpath", str(tmp_path)])
    by_main = torch.load("last.ckpt", weights_only=True)["hyper_parameters"]
    in_python = saved(SimCLR(**small()), "python.ckpt")["hyper_parameters"]
    assert by_main.keys() == in_python.keys()
    assert not [name for name in by_main if name.startswith("_")]
    assert (
        by_main["loss"]
        == in_python["loss"]
        == {
            "class_path": "ssl_modules.losses.InfoNCE",
            "init_args": {"temperature": 0.1, "clip": None, "l2": 0.0, "mode": "out"},
        }
    )
    assert by_main["optimizer"]["init_args"]["lr"] == 0.1
    assert type(load_module("last.ckpt")) is SimCLR


def old(checkpoint):
    """Change the checkpoint to the format of version 0.1."""
    checkpoint["ssl_modules"].pop("version")
    hyper_parameters = checkpoint["hyper_parameters"]
    hyper_parameters |= {"warmup": 0.1, "reference_batch_size": 256}
    del hyper_parameters["schedule"], hyper_parameters["base_batch_size"]
    return checkpoint


@pytest.mark.parametrize("way", [load_module, SimCLR.load_from_checkpoint])
def test_a_checkpoint_of_0_1_is_refused_with_the_new_spelling(way, tmp_path):
    path, module = tmp_path / "old.ckpt", SimCLR(**small())
    torch.save(old(saved(module, path)), path)
    with pytest.raises(ValueError, match=r"of ssl-modules 0\.1.*of the extraction.*WarmupCosine.*base_batch_size"):
        way(path)
    # The fix that the message suggests works.
    again = SimCLR(**small())
    again.load_state_dict(torch.load(path)["state_dict"])
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))


def test_a_run_of_0_1_is_not_resumed(tmp_path):
    path = tmp_path / "old.ckpt"
    torch.save(old(saved(SimCLR(**small()), path)), path)
    trainer = pl.Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"of ssl-modules 0\.1"):
        trainer.fit(SimCLR(**small()), DigitsDataModule(batch_size=64), ckpt_path=path)


def test_fine_tuning_of_0_1_is_refused():
    with pytest.raises(ValueError, match=r"of ssl-modules 0\.1"):
        check_version({"hyper_parameters": {"warmup": 0.0, "num_classes": 10}})


def test_an_argument_that_a_checkpoint_cannot_hold_is_given_again(tmp_path):
    path, net = tmp_path / "own.ckpt", nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    saved(SimCLR(**small(encoder=net)), path)
    with pytest.raises(ValueError, match="encoder: a checkpoint can't hold this"):
        load_module(path)
    again = load_module(path, encoder=nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()))
    assert torch.equal(again.encoder.network[0].weight, net[0].weight)
