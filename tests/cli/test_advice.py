"""Each error of the command line is one line that names the option, and its advice works when pasted."""

import contextlib
import io
from pathlib import Path

import pytest

from ssl_modules.cli import main

RUN = ("fit", "--model", "SimCLR", "--data", "DigitsDataModule")


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(text):
    Path("config.yaml").write_text(text)
    return ("fit", "--config", "config.yaml")


def refused(*options):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2
    return said.getvalue().splitlines()[-1]  # Lightning prints a warning first, because the test passes the arguments


def accepted(*options):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as stop:
        main([*options, "--print_config"])
    return stop.value.code == 0


@pytest.mark.parametrize(
    ("given", "message", "advised"),
    [
        (("--batch_size", "8"), "option 'batch_size' is not accepted; did you mean --data.batch_size?", None),
        (("--lr", "0.1"), "option 'lr' is not accepted; did you mean --model.optimizer.lr?", None),
        (
            ("--trainer.max_epoch", "3"),
            "option 'trainer.max_epoch' is not accepted; did you mean --trainer.max_epochs?",
            None,
        ),
        (("--knn_probe.kk", "3"), "option 'knn_probe.kk' is not accepted; did you mean --knn_probe.k?", None),
        (
            ("--model.loss", "torch.nn.CrossEntropyLoss"),
            "model > SimCLR > loss: torch.nn.CrossEntropyLoss is not a loss; there are ",
            ("--model.loss", "InfoNCE"),
        ),
        (
            ("--model.optimizer", "torch.optim.Sdg"),
            "model > SimCLR > optimizer: there is no 'Sdg' in torch.optim",
            ("--model.optimizer", "torch.optim.SGD"),
        ),
        (
            ("--model.loss", "nowhere.Loss"),
            "model > SimCLR > loss: No module named 'nowhere'; to import from this folder, run python -m ssl_modules",
            None,
        ),
        (("--model.mean", "0.5"), "model > SimCLR > mean: expected a list", ("--model.mean", "[0.5]")),
        (("--config", "nowhere.yaml"), "config: File does not exist: ", None),
    ],
)
def test_an_error_about_an_option_names_it_and_its_advice_works(given, message, advised):
    line = refused(*RUN, *given)
    assert line.startswith(f"error: {message}")
    if advised is None and "did you mean" in message:
        advised = (line.rpartition("did you mean ")[2].rstrip("?"), given[1])
    if advised is not None:
        assert accepted(*RUN, *advised)


@pytest.mark.parametrize(
    ("text", "message", "advised"),
    [
        (
            "model: [\n",
            "config: expected YAML, got an error in line 2, column 1 (did not find expected node content); correct it",
            "model: SimCLR\n",
        ),
        ("just text", "config: expected options, such as model: SimCLR, got 'just text'", "model: SimCLR"),
        (
            "model: {class: SimCLR}\n",
            "model: option 'class' is not accepted; give the class under class_path and its arguments under init_args",
            "model: {class_path: SimCLR}\n",
        ),
    ],
)
def test_an_error_about_a_config_file_says_what_is_wrong_and_its_advice_works(text, message, advised):
    assert refused(*written(text), "--data", "DigitsDataModule").startswith(f"error: {message}")
    assert accepted(*written(advised), "--data", "DigitsDataModule")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "command: expected fit, validate, test, predict, evaluate, export, shard; got none"),
        (("exprot",), "command: expected fit, validate, .*; got 'exprot'; did you mean 'export'?"),
        (("fit",), "--data, --model are missing"),
        (
            ("evaluate",),
            "data is missing; give --data, such as --data DigitsDataModule, or --features.train and --features.test",
        ),
        (("export",), "--ckpt is missing"),
    ],
)
def test_an_error_about_a_command_says_what_is_wrong(given, message):
    start, _, end = message.partition(".*")
    line = refused(*given)
    assert line.startswith(f"error: {start}")
    assert line.endswith(end)
