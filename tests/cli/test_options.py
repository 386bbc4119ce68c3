"""Options and YAML accept the same values. For other values, a one-line error says what is allowed."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from ssl_modules import losses, optim, similarities
from ssl_modules.cli import main
from ssl_modules.cli.names import refuse_wrong_value
from ssl_modules.losses import Loss
from ssl_modules.version import __version__

DATA = ("--data", "DigitsDataModule")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(path="config.yaml", **model):
    Path(path).write_text(yaml.safe_dump({"model": model}))
    return path


def printed(*options):
    """Return the model of a run, as ``--print_config`` writes it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main(["fit", *options, *DATA, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(out.getvalue())["model"]


def is_ours(name):
    """Return whether this package has a class of this name. Errors also list classes that other tests have defined."""
    return any(hasattr(part, name) for part in (losses, similarities, optim))


@pytest.fixture
def refused(capsys):
    """Return a function that runs the command and returns its error."""

    def run(*options):
        with pytest.raises(SystemExit) as stop:
            main(["fit", *options, *DATA])
        assert stop.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")
        return re.sub(r"(?<=there are )[\w, ]+", lambda names: ", ".join(filter(is_ours, names[0].split(", "))), line)

    return run


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("AMDIM", "loss.clip"),
        ("AMDIM", "extraction.out_dim"),
        ("RINCE", "extraction.ranks"),
        ("MoCo", "extraction.hidden_dim"),
        ("SCE", "extraction.predictor_dim"),
    ],
)
def test_null_is_a_value_on_the_command_line_too(method, option):
    aspect, name = option.split(".")
    assert printed("--model", method, f"--model.{option}=null")["init_args"][aspect]["init_args"][name] is None


def test_null_over_a_printed_config():
    path = config(**printed("--model", "AMDIM"))
    found = printed("--config", path, "--model.init_args.loss.init_args.clip", "null")
    assert found["init_args"]["loss"]["init_args"]["clip"] is None


def test_null_within_a_value():
    value = "{class_path: InfoNCE, init_args: {clip: null}}"
    assert printed("--model", "AMDIM", f"--model.loss={value}")["init_args"]["loss"]["init_args"]["clip"] is None


def aspect(**value):
    """Return the option for a config that sets one aspect."""
    return ("--config", config(class_path="SimCLR", init_args=value))


LOSSES = "there are Alignment, AssignmentLoss, AveragePrecisionLoss, GroCoLoss, InfoNCE, RINCELoss, SCELoss, SupConLoss"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"loss": {"class_path": "Queue"}}, f"loss: Queue is an extraction, not a loss; {LOSSES}"),
        (
            {"loss": {"class_path": "ssl_modules.extractions.Queue"}},
            f"loss: Queue is an extraction, not a loss; {LOSSES}",
        ),
        ({"optimizer": {"class_path": "Queue"}}, "optimizer: Queue is an extraction, not an optimiser"),
        (
            {
                "augmentation": {
                    "class_path": "Views",
                    "init_args": {"transforms": [{"class_path": "RandomResizedCro", "init_args": {"size": 8}}]},
                }
            },
            "augmentation > Views > transforms: there is no class 'RandomResizedCro'; "
            "did you mean 'RandomResizedCrop'?",
        ),
        (
            {"loss": {"class_path": "InfoNCE", "temperature": 0.2}},
            "loss: option 'temperature' stands beside class_path; put it under init_args",
        ),
        (
            {"augmentation": {"init_args": {"strength": 0.5}}},
            "augmentation: is the policy 'simclr' by name; to change an argument, give its class: "
            "--model.augmentation=SimCLRViews --model.augmentation.size=... --model.augmentation.strength=...",
        ),
    ],
)
def test_a_wrong_value_in_yaml(value, message, refused):
    assert refused(*aspect(**value)) == f"model > SimCLR > {message}"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("extraction=Queu", "extraction: there is no class 'Queu'; did you mean 'Queue'?"),
        ("loss=AllViews", f"loss: AllViews is an extraction, not a loss; {LOSSES}"),
        ("loss={class_path: AllViews}", f"loss: AllViews is an extraction, not a loss; {LOSSES}"),
        (
            "similarity=Xyzzy",
            "similarity: there is no class 'Xyzzy'; there are Cosine, Dot, InnerProduct, ScaledDot",
        ),
        ("optimizer=Adamm", "optimizer: there is no class 'Adamm'; did you mean 'Adam'?"),
        ("augmentation=Viewss", "augmentation: there is no class 'Viewss'; did you mean 'Views'?"),
        ("augmentation=SimCLRViews", "augmentation > SimCLRViews: size is missing"),
        (
            "augmentation.strength=0.5",
            "augmentation: is the policy 'simclr' by name; to change an argument, give its class: "
            "--model.augmentation=SimCLRViews --model.augmentation.size=... --model.augmentation.strength=0.5",
        ),
        ("encoder.width=3", "encoder: is 'resnet18' by name; give a class in its place to change its width"),
        (
            "optimizer={class_path: AdamW, init_args: {lr: fast}}",
            "optimizer > AdamW > lr: expected a number, got 'fast'",
        ),
        ("schedule.warmup=ten", "schedule > WarmupCosine > warmup: expected int or float"),
        ("los.temperature=2", "option 'los' is not accepted; did you mean 'loss'?"),
    ],
)
def test_a_wrong_option(option, message, refused):
    found = refused("--model", "SimCLR", f"--model.{option}")
    assert found == f"model > SimCLR{': ' if message.startswith('option') else ' > '}{message}"


def test_a_name_that_is_unknown_in_a_small_family_lists_it(refused):
    found = refused("--model", "SimCLR", "--model.schedule=CosineAnnealingLR")
    assert found.startswith("model > SimCLR > schedule: there is no class 'CosineAnnealingLR'; there are ")
    assert "WarmupCosine" in found


def test_the_class_of_a_policy_takes_its_arguments():
    given = ("augmentation=SimCLRViews", "augmentation.size=8", "augmentation.strength=0.5")
    found = printed("--model", "SimCLR", *(f"--model.{option}" for option in given))["init_args"]["augmentation"]
    assert found["class_path"] == "ssl_modules.augmentations.SimCLRViews"
    assert (found["init_args"]["size"], found["init_args"]["strength"]) == (8, 0.5)


@pytest.mark.parametrize("option", ["loss.temperature=0.5", "encoder=test_resnet"])
def test_options_come_after_their_class(option, refused):
    name = option.partition("=")[0]
    message = f"model: option '{name}' comes before the class; give --model first"
    assert refused(f"--model.{option}", "--model", "SimCLR") == message
    assert refused(f"--model.{option}") == message


def test_a_part_given_beside_the_class_of_the_model(refused):
    path = config(class_path="SimCLR", encoder="test_resnet")
    assert refused("--config", path) == "model: option 'encoder' stands beside class_path; put it under init_args"


def test_a_module_that_cannot_be_imported(refused):
    assert refused("--model", "not_there.Mine") == (
        "model: No module named 'not_there'; to import from this folder, run python -m ssl_modules in place of "
        "ssl-modules"
    )


def test_a_run_without_data(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model", "SimCLR"])
    assert capsys.readouterr().err.splitlines()[-1] == "error: --data is missing"


def test_only_names_of_classes_are_looked_up():
    with pytest.raises(TypeError, match='Parser key "loss":\n  there is no class'):
        refuse_wrong_value("loss", Loss, "Mime", None)
    refuse_wrong_value("loss", Loss, "InfoNCE", None)
    refuse_wrong_value("loss", Loss | str, "anything", None)
    refuse_wrong_value("temperature", float, "anything", None)


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"ssl-modules {__version__}\n"
