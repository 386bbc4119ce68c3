"""Common changes by options or YAML: one argument of a method's default aspect, or another class for an aspect."""

import contextlib
import inspect
import io
import pydoc
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import yaml
from torch import nn

import ssl_modules.methods
from ssl_modules import RINCE, MoCo, SimCLR
from ssl_modules.cli import main

NAMES = ssl_modules.methods.__all__
# For each method, a loss argument that isn't the default.
LOSSES = {
    "AMDIM": {"clip": 10.0},
    "BYOL": {},
    "CPC": {"temperature": 0.5},
    "GroCo": {"negatives": 5},
    "MoCo": {"temperature": 0.5},
    "RINCE": {"temperatures": [0.2, 0.3]},
    "S2R2": {"temperature": 0.05},
    "SCE": {"temperature": 0.2},
    "ReSSL": {"target_temperature": 0.05},
    "SimCLR": {"temperature": 0.5},
    "SimSiam": {"scale": 0.5},
    "SupCon": {"temperature": 0.2},
    "SwAV": {"temperature": 0.2},
    "YADIM": {"l2": 0.1},
}


class Small(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, x):
        return self.conv(x)


class Fixes(SimCLR):
    """Passes a fixed encoder to SimCLR.

    Args:
        settings: arguments of SimCLR.
    """

    def __init__(self, **settings) -> None:
        super().__init__(encoder="test_resnet", **settings)


class Computes(SimCLR):
    """Builds the encoder from its own argument.

    Args:
        width: channels of the encoder.
        settings: arguments of SimCLR.
    """

    def __init__(self, width: int = 4, **settings) -> None:
        super().__init__(encoder=Small(width), **settings)


class TakesNone(SimCLR):
    """Takes no arguments of SimCLR.

    Args:
        width: channels of the encoder.
    """

    def __init__(self, width: int = 4) -> None:
        super().__init__(encoder=Small(width))


class Passes(SimCLR):
    """Passes all arguments on to SimCLR.

    Args:
        margin: an argument of this class.
    """

    def __init__(self, *args, margin: float = 0.1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.margin = margin


def shown(*options):
    """Return what the command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main(["fit", *options])
    assert stop.value.code == 0
    return out.getvalue()


def model(*options):
    """Return the model of a run, as ``--print_config`` writes it."""
    return yaml.safe_load(shown(*options, "--data", "DigitsDataModule", "--print_config"))["model"]


@cache
def _default(name):
    return model("--model", name)


def default(name):
    return deepcopy(_default(name))


def optimizer_as_in(expected, found):
    """Keep only the arguments that the method gave: jsonargparse writes out all of a changed optimiser."""
    given = expected["init_args"]["optimizer"]["init_args"]
    written = found["init_args"]["optimizer"]["init_args"]
    found["init_args"]["optimizer"]["init_args"] = {name: written[name] for name in given}
    return found


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(path="config.yaml", **model):
    Path(path).write_text(yaml.safe_dump({"model": model}))
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["options", "short options", "yaml"])
def test_one_argument_of_each_aspect_changes_and_all_others_stay(name, way):
    changes = {
        "loss": LOSSES[name],
        "extraction": {"out_dim": 24},
        "optimizer": {"lr": 0.7},
        "schedule": {"warmup": 0.5},
    }
    if way == "yaml":
        aspects = {aspect: {"init_args": arguments} for aspect, arguments in changes.items() if arguments}
        found = model("--config", config(class_path=name, init_args=aspects))
    else:
        options = {
            "options": "--model.init_args.{}.init_args.{}={}",
            "short options": "--model.{}.{}={}",
        }[way]
        given = [options.format(a, n, v) for a, arguments in changes.items() for n, v in arguments.items()]
        found = model("--model", name, *given)
    expected = default(name)
    for aspect, arguments in changes.items():
        if arguments:
            expected["init_args"][aspect]["init_args"] |= arguments
    assert optimizer_as_in(expected, found) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_recipe_is_printed(name):
    arguments = default(name)["init_args"]
    signature = inspect.signature(getattr(ssl_modules, name))
    assert set(signature.parameters) - set(arguments) == {"image_size", "in_channels", "mean", "std"}  # from the data
    for aspect in ("extraction", "similarity", "loss", "optimizer", "schedule"):
        assert arguments[aspect]["class_path"]
    assert arguments["optimizer"]["init_args"]["lr"] == signature.parameters["optimizer"].default.keywords["lr"]


def printed(name):
    """Write a config file with the whole recipe of a method."""
    Path("printed.yaml").write_text(yaml.safe_dump({"model": default(name)}))
    return "printed.yaml"


def test_another_method_inherits_nothing():
    assert model("--config", printed("SimCLR"), "--model", "MoCo") == default("MoCo")
    assert model("--config", printed("SimCLR"), "--config", config(class_path="MoCo")) == default("MoCo")
    assert model("--model", "MoCo", "--model.loss.temperature=0.7", "--model", "SimCLR") == default("SimCLR")


def test_arguments_after_the_swap_count():
    found = model("--config", printed("SimCLR"), "--model", "MoCo", "--model.extraction.size=512")
    expected = default("MoCo")
    expected["init_args"]["extraction"]["init_args"]["size"] = 512
    assert found == expected


@pytest.mark.parametrize("over", ["the default", "a printed config"])
def test_another_optimiser_inherits_nothing(over):
    before = ["--model", "SimCLR"] if over == "the default" else ["--config", printed("SimCLR")]
    found = model(*before, "--model.optimizer", "AdamW", "--model.optimizer.lr", "0.01")["init_args"]["optimizer"]
    assert found["class_path"] == "torch.optim.AdamW"
    assert found["init_args"]["lr"] == 0.01
    assert found["init_args"]["weight_decay"] == 0.01  # AdamW's default
    assert "momentum" not in found["init_args"]


def test_another_loss_or_extraction_inherits_nothing():
    swapped = config("swapped.yaml", class_path="SimCLR", init_args={"loss": {"class_path": "SCELoss"}})
    loss = model("--config", printed("SimCLR"), "--config", swapped)["init_args"]["loss"]
    assert loss["class_path"] == "ssl_modules.losses.SCELoss"
    assert (
        loss["init_args"]["temperature"]
        == inspect.signature(ssl_modules.losses.SCELoss).parameters["temperature"].default
    )
    found = model("--model", "RINCE", "--model.extraction.ranks", "NeighbourRanks")["init_args"]["extraction"]
    assert found["init_args"]["size"] == 4096
    assert found["init_args"]["ranks"] == {
        "class_path": "ssl_modules.extractions.NeighbourRanks",
        "init_args": {"neighbours": [5], "warmup_steps": 1000},
    }


def test_a_second_file_changes_one_argument_of_the_first():
    change = config("change.yaml", init_args={"loss": {"init_args": {"temperature": 0.33}}})
    expected = default("SimCLR")
    expected["init_args"]["loss"]["init_args"]["temperature"] = 0.33
    assert optimizer_as_in(expected, model("--config", printed("SimCLR"), "--config", change)) == expected


def test_what_was_changed_is_what_is_trained():
    options = (
        "--model MoCo --model.encoder test_resnet --model.extraction.momentum=0.5 --model.extraction.size=64 "
        "--model.loss.temperature=0.9 --data DigitsDataModule --data.batch_size=32 --trainer.max_steps=1 "
        "--trainer.logger=false --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
        "--last_checkpoint.dirpath=."
    )
    main(["fit", *options.split()])
    module = ssl_modules.load_module("last.ckpt")
    assert module.teacher.momentum == 0.5
    assert module.loss.temperature == 0.9
    assert len(module.extraction.keys) == 64
    # The method's defaults are unchanged.
    assert MoCo(encoder="test_resnet").loss.temperature == 0.2


@pytest.mark.parametrize(
    ("option", "spelling"),
    [
        ("momentum", "extraction.init_args.momentum"),
        ("warmup", "schedule={class_path: WarmupCosine, init_args: {warmup: ...}}"),
        ("reference_batch_size", "base_batch_size"),
    ],
)
def test_a_config_of_0_1_gets_the_new_spelling(option, spelling, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", config(class_path="MoCo", init_args={option: 1}), "--data", "DigitsDataModule"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"error: model > MoCo: option '{option}' is not accepted; it is now {spelling}"


def test_help_shows_every_argument_with_its_default():
    text = shown("--model.help", "RINCE")
    for name in inspect.signature(RINCE).parameters:
        assert f"--model.{name}" in text, name
    assert "images per step for which the learning rate is given" in " ".join(text.split())
    assert "side of a view, pixels" in text  # help for an argument of the base class
    assert "Queue(out_dim=128, layers=2, size=4096" in text
    page = pydoc.render_doc(RINCE, renderer=pydoc.plaintext)
    assert "loss: ssl_modules.losses.base.Loss = RINCELoss(temperatures=(0.1, 0.225)" in page
    assert "image_size: int = 32" in page


@pytest.mark.parametrize(
    ("cls", "own", "missing"),
    [
        (Fixes, {"loss", "image_size"}, {"encoder"}),
        (Computes, {"width", "loss", "image_size"}, {"encoder"}),
        (TakesNone, {"width"}, {"encoder", "loss", "image_size", "optimizer"}),
        (Passes, {"margin", "encoder", "loss", "image_size"}, set()),
    ],
)
def test_a_subclass_shows_what_it_takes(cls, own, missing):
    names = set(inspect.signature(cls).parameters)
    assert own <= names
    assert not missing & names
    assert not names & {"args", "kwargs", "settings"}
    text = shown("--model.help", f"{cls.__module__}.{cls.__name__}")
    for name in own:
        assert f"--model.{name} " in text, name
    for name in missing:
        assert f"--model.{name} " not in text, name
    cls(**{name: p.default for name, p in inspect.signature(cls).parameters.items()})
