"""What a run takes from options, data and classes, and how it fails if they don't fit."""

import contextlib
import io
import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from torch import nn

from ssl_modules import SimCLR, load_module
from ssl_modules.cli import ContrastiveCLI, main
from ssl_modules.datamodules import DigitsDataModule

FAST = (
    *("--data", "DigitsDataModule", "--data.batch_size=32", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
)
SMALL = ("--model", "SimCLR", "--model.encoder=test_resnet")
HERE = __name__


class Other(SimCLR):
    """Has a default that differs from SimCLR's."""

    def __init__(self, *args, margin: float = 0.1, **kw) -> None:
        kw.setdefault("encoder", "test_resnet")
        super().__init__(*args, **kw)


class Builds(SimCLR):
    """Builds its encoder."""

    def __init__(self, width: int = 8, **settings) -> None:
        super().__init__(encoder=nn.Conv2d(1, width, 3), **settings)


class Faulty(SimCLR):
    """Raises an error in the constructor or in the step."""

    def __init__(self, place: str = "step", **settings) -> None:
        super().__init__(encoder="test_resnet", **settings)
        self.place = place
        if place == "constructor":
            raise ValueError("fault: in the constructor")

    def training_step(self, *args):
        raise ValueError("fault: in the step")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command and returns its error."""

    def run(*options, command="fit"):
        with pytest.raises(SystemExit) as stop:
            main([command, *options])
        assert stop.value.code == 2
        return capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")

    return run


def module(*options, classes=()):
    """Return the module that the command builds."""
    return ContrastiveCLI(*classes, run=False, args=[*options]).model


DATA = ("--data", "DigitsDataModule")


# ---- arguments that come from the data ----


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_size", 16, "got 16, but the data have 8; give data.init_args.image_size, or leave it out"),
        ("image_size", 32, "got 32, but the data have 8; give data.init_args.image_size, or leave it out"),  # default
        ("in_channels", 3, "got 3, but the data have 1; leave it out"),
        ("mean", [0.9], "got [0.9], but the data have [0.28741966515207334]; leave it out"),
    ],
)
@pytest.mark.parametrize("way", ["option", "yaml"])
def test_what_the_data_decide_is_not_overridden_silently(name, value, message, way, refused):
    if way == "option":
        given = (*SMALL, f"--model.{name}={value}")
    else:
        Path("config.yaml").write_text(yaml.safe_dump({"model": {"class_path": "SimCLR", "init_args": {name: value}}}))
        given = ("--config", "config.yaml")
    assert refused(*given, *FAST) == f"model > {name}: {message}"


def test_the_same_value_as_the_data_have_is_fine():
    built = module(*SMALL, "--model.image_size=8", "--model.mean=[0.28741966515207334]", *DATA)
    assert built.encoder.image_size == 8
    with_more = module(*SMALL, "--model.image_size=16", *DATA, "--data.image_size=16")
    assert with_more.encoder.image_size == 16


def test_a_printed_config_and_a_saved_one_build_the_same():
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main(["fit", *SMALL, *FAST, "--print_config"])
    Path("printed.yaml").write_text(out.getvalue())
    main(["fit", "--config", "printed.yaml"])
    main(["fit", *SMALL, *FAST[:3], "--trainer.max_steps=1", "--trainer.accelerator=cpu"])
    main(["fit", "--config", "lightning_logs/version_0/config.yaml", "--trainer.fast_dev_run=true"])


# ---- defaults of classes ----


@pytest.mark.parametrize("fixed", [False, True])
def test_a_class_has_its_own_defaults(fixed):
    classes = (Other, DigitsDataModule) if fixed else ()
    given = () if fixed else ("--model", f"{HERE}.Other", *DATA)
    encoder = "--model.encoder={}" if fixed else "--model.init_args.encoder={}"
    assert module(*given, classes=classes).encoder.name == "test_resnet"
    assert module(*given, encoder.format("resnet18"), classes=classes).encoder.name == "resnet18"
    assert module(*given, classes=classes).encoder.in_channels == 1


def test_the_config_of_a_run_builds_what_was_trained():
    main(["fit", "--model", f"{HERE}.Other", *FAST[:3], "--trainer.max_steps=1", "--trainer.accelerator=cpu"])
    config = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
    assert "encoder" not in config["model"]["init_args"]
    assert config["model"]["init_args"]["margin"] == 0.1
    assert config["model"]["init_args"]["loss"]["init_args"]["temperature"] == 0.1


# ---- optimisers ----


@pytest.mark.parametrize(
    "options", [(), ("--model.init_args.optimizer.init_args.lr=0.2",), ("--model.init_args.optimizer=AdamW",)]
)
def test_the_optimiser_is_a_partial_of_its_class(options):
    built = module("--model", "SimCLR", "--model.init_args.encoder=test_resnet", *options, *DATA)
    assert type(built.optimizer) is partial
    assert isinstance(built.optimizer.func, type)
    assert not built.optimizer.args
    assert "jsonargparse" not in repr(built)
    assert re.search(r"optimizer: (Lars|AdamW)\(", repr(built))
    path = built.hparams["optimizer"]["class_path"]
    assert path.endswith(built.optimizer.func.__name__)
    assert built.optimizer(built.param_groups()).param_groups


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.optimizer.lr=fast",), "model > optimizer > Lars > lr: expected a number, got 'fast'"),
        (("--model.optimizer.lr=-1",), "model > optimizer > Lars: Invalid learning rate: -1.0"),
        (("--data.val_size=5000",), "val_size: expected fewer than the 1437 training images"),
        (("--model.schedule=null",), "schedule: expected an object of the class Schedule, got None"),
        (("--ckpt_path=none.ckpt", "--trainer.fast_dev_run=false"), "there is no checkpoint none.ckpt"),
        (
            ("--model", "MoCo", "--model.encoder=test_resnet", "--model.extraction.size=8"),
            "size: a queue of 8 can't take the 32 keys of a batch",
        ),
        (("--model", "RINCE", "--model.encoder=test_resnet"), "targets: expected 2 level(s) of labels"),
        (
            ("--trainer.fast_dev_run=false", "--trainer.val_check_interval=70", "--trainer.logger=false"),
            "`val_check_interval` (70) must be less than or equal to the number of the training batches",
        ),
    ],
)
def test_a_run_that_a_value_makes_impossible_ends_in_a_line(options, message, refused):
    assert refused(*SMALL, *FAST, *options).startswith(message)


def test_the_fix_for_labels_of_one_level_works(refused):
    assert "Queue(ranks=LabelRanks(1)) for one level" in refused(
        "--model", "RINCE", "--model.encoder=test_resnet", *FAST
    )
    ranks = ("--model.extraction.ranks=LabelRanks", "--model.extraction.ranks.label_levels=1")
    main(["fit", "--model", "RINCE", "--model.encoder=test_resnet", *ranks, *FAST])


@pytest.mark.parametrize("place", ["constructor", "step"])
def test_a_fault_of_ones_own_keeps_its_traceback(place):
    with pytest.raises(ValueError, match=f"fault: in the {place}"):
        main(["fit", "--model", f"{HERE}.Faulty", f"--model.place={place}", *FAST])


# ---- what a checkpoint can't hold ----


def test_an_encoder_that_no_checkpoint_holds_is_told_at_the_start(refused):
    encoder = "{class_path: torch.nn.Conv2d, init_args: {in_channels: 1, out_channels: 8, kernel_size: 3}}"
    run = (
        "--trainer.max_steps=1",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--last_checkpoint.dirpath=.",
    )
    message = (
        "encoder: a checkpoint can't hold this torch.nn.modules.Conv2d, which evaluate and export need; train a class "
        "of your own that builds it, with super().__init__(encoder=..., **settings), or read the checkpoint in Python "
        "with load_module(path, encoder=...)"
    )
    with pytest.warns(UserWarning, match=re.escape(message)):
        main(["fit", "--model", "SimCLR", f"--model.encoder={encoder}", *FAST[:3], *run])
    assert refused("--ckpt=last.ckpt", command="export") == message
    assert refused("--ckpt=last.ckpt", *DATA, command="evaluate") == message
    load_module("last.ckpt", encoder=nn.Conv2d(1, 8, 3))


def test_evaluate_and_export_import_a_class_of_ones_own(refused, monkeypatch):
    run = (
        "--trainer.max_steps=1",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--last_checkpoint.dirpath=.",
    )
    main(["fit", "--model", f"{HERE}.Builds", "--model.width=4", *FAST[:3], *run])
    checkpoint = torch.load("last.ckpt", weights_only=True)
    checkpoint["ssl_modules"]["class"] = "not_there.Builds"
    torch.save(checkpoint, "elsewhere.ckpt")
    assert refused("--ckpt=elsewhere.ckpt", command="export").endswith(
        "on the command line with --model not_there.Builds"
    )
    main(["export", "--ckpt=last.ckpt", f"--model={HERE}.Builds", "--out=encoder.pt"])
    main(["evaluate", "--ckpt=last.ckpt", f"--model={HERE}.Builds", *DATA, "--protocol", "knn"])


@pytest.fixture
def stopped():
    """Return the options that continue a run of one step, trained with temperature 0.5."""
    given = ["fit", *SMALL, *FAST, "--trainer.fast_dev_run=false", "--trainer.max_steps=1", "--knn_probe=null"]
    given += ["--linear_probe=null", "--trainer.limit_val_batches=0", "--last_checkpoint.every_n_train_steps=1"]
    main([*given, "--model.loss.temperature=0.5", "--model.optimizer.lr=0.25"])
    [path] = Path().glob("lightning_logs/*/checkpoints/last.ckpt")
    return [*(option for option in given if option != "fit"), f"--ckpt_path={path}", "--trainer.max_steps=2"]


def continued(*options):
    """Run the command; return the module that it trained."""
    return ContrastiveCLI(args=["fit", *options]).model


def test_a_continued_run_takes_what_is_not_given_from_the_checkpoint(stopped):
    model = continued(*stopped)
    assert model.loss.temperature == 0.5
    assert model.optimizer.keywords["lr"] == 0.25
    assert model.trainer.global_step == 2
    [_, path] = sorted(Path().glob("lightning_logs/*/config.yaml"))
    config = yaml.safe_load(path.read_text())["model"]["init_args"]
    assert config["loss"]["init_args"]["temperature"] == 0.5
    assert config["optimizer"]["init_args"]["lr"] == 0.25


def test_what_is_given_wins_over_the_checkpoint_and_both_are_said(stopped):
    with pytest.warns(UserWarning, match=r"loss: continues with .*0\.9.*; the checkpoint was trained with .*0\.5"):
        model = continued(*stopped, "--model.loss.temperature=0.9")
    assert model.loss.temperature == 0.9
    with pytest.warns(UserWarning, match=r"optimizer: continues with lr=.*, as configured; the checkpoint has lr="):
        continued(*stopped, "--model.optimizer.lr=0.125")


def test_a_checkpoint_of_another_method_is_refused_in_a_line(stopped, refused):
    stopped[stopped.index("SimCLR")] = "MoCo"
    assert refused(*stopped) == (
        "ckpt_path: the checkpoint is of SimCLR, but the module is a MoCo; give both the same class"
    )


class Terminated(Callback):
    """Sends SIGTERM to its process in the second step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_and_exits_with_its_own_code():
    with pytest.raises(SystemExit) as stop:
        main(["fit", *SMALL, *FAST, "--trainer.fast_dev_run=false", f"--trainer.callbacks={HERE}.Terminated"])
    assert stop.value.code == 128 + signal.SIGTERM
    [path] = Path().glob("lightning_logs/*/checkpoints/last.ckpt")
    assert torch.load(path, weights_only=True)["global_step"] == 2


def test_a_loss_that_is_not_finite_ends_a_run_in_a_line(refused):
    options = (*SMALL, *FAST, "--trainer.fast_dev_run=false", "--trainer.max_steps=50", "--model.base_batch_size=null")
    error = refused(*options, "--model.optimizer=SGD", "--model.optimizer.lr=1e38")
    assert re.match(r"loss: (nan|inf) at step \d+, epoch 0; .*learning rate", error)


def test_a_checkpoint_that_cannot_be_written_ends_a_run_in_a_line(refused):
    Path("taken").write_text("a file, where the folder should be")
    options = (
        *SMALL,
        *FAST,
        "--trainer.fast_dev_run=false",
        "--trainer.max_steps=1",
        "--last_checkpoint.dirpath=taken",
    )
    assert re.match(r"checkpoint: .*last.ckpt can't be written", refused(*options))
