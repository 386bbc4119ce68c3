"""The documentation is right: examples in docstrings and the code blocks of the README run."""

import doctest
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import run_script
from trajectories import replay

from ssl_modules import methods
from ssl_modules.cli import main

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"ssl_modules": "ssl_modules", "callbacks": "ssl_modules.callbacks", "datamodules": "ssl_modules.datamodules"}
MODULES = [
    ".".join((name, *file.relative_to(REPOSITORY / folder).with_suffix("").parts)).removesuffix(".__init__")
    for folder, name in FOLDERS.items()
    for file in sorted((REPOSITORY / folder).rglob("*.py"))
    if file.name != "__main__.py"  # importing it runs the command
]
README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language, in order."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the lines of the README's shell blocks, with continued lines joined."""
    lines = "".join(blocks("bash|console")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(("make ", "ssl-modules ", "python -m ssl_modules "))]


def parses(command: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--print_config", *arguments])
    assert exit_.value.code == 0


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_each_way_to_add_a_part_runs(tmp_path):
    page = (REPOSITORY / "docs" / "adding.md").read_text()
    script = tmp_path / "adding.py"
    script.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)))
    run_script(script, folder=tmp_path)
    for name in re.findall(r"`((?:ssl_modules|callbacks|datamodules|tests)/[\w/.]*)`", page):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.slow
def test_python_blocks_of_the_readme_run(tmp_path):
    source = "\n".join(blocks("python"))
    assert source
    script = tmp_path / "readme.py"
    script.write_text(source)
    run_script(script, folder=tmp_path, PL_TRAINER_LIMIT_TRAIN_BATCHES="3")  # Lightning's Trainer reads it


@pytest.mark.parametrize("config", blocks("yaml"))
def test_yaml_blocks_of_the_readme_parse(config, tmp_path):
    """Read each block after the digits' config, as it may be a part of a config."""
    (tmp_path / "config.yaml").write_text(config)
    digits = REPOSITORY / "examples" / "configs" / "simclr_digits.yaml"
    parses("fit", "--config", str(digits), "--config", str(tmp_path / "config.yaml"))


DIFFERENCES = (REPOSITORY / "docs" / "differences.md").read_text()
TABLES = [  # section, and the config whose options are in its table
    (section, config)
    for section in DIFFERENCES.split("\n## ")[1:]
    if (config := re.search(r"`examples/configs/(\w+).yaml`", section))
]


def pairs(config: Any) -> Iterator[tuple[str, Any]]:
    """Return all options in a config with their values, at any depth."""
    if isinstance(config, dict):
        yield from config.items()
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from pairs(value)


@pytest.mark.parametrize(("section", "config"), TABLES, ids=[config[1] for _, config in TABLES])
def test_options_in_the_page_on_official_programs_are_those_of_the_configs(section, config):
    given = [*pairs(yaml.safe_load((REPOSITORY / "examples" / "configs" / f"{config[1]}.yaml").read_text()))]
    header, _, *rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in header].index("ours")
    options = [yaml.safe_load(o) for row in rows for o in re.findall(r"`([\w.]+: [^`]+)`", row[column])]
    assert len(options) >= 9
    for option in options:
        assert next(iter(option.items())) in given


def test_the_page_on_official_programs_lists_what_the_replay_sets_by_hand():
    page = " ".join(DIFFERENCES.split())
    runs = [replay.Run(path) for path in replay.FILES]
    for by_hand in {text for run in runs for text in replay.PROGRAMS[run.method](run).by_hand}:
        assert f'"{by_hand}"' in page


ASPECTS = ("augmentation", "encoder", "extraction", "similarity", "loss")
CONFIGS = sorted((REPOSITORY / "examples" / "configs").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_example_configs_are_complete_and_run(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parses("fit", "--config", str(config))
    assert "augmentation:\n      class_path" in capsys.readouterr().out  # aspects are written out
    given = yaml.safe_load(config.read_text())["model"]["init_args"]
    assert {*ASPECTS, "optimizer", "schedule", "base_batch_size"} <= given.keys()
    if given["extraction"]["class_path"] in ("Queue", "Predictor"):
        assert {"momentum", "momentum_schedule"} <= given["extraction"]["init_args"].keys()
    if config.stem.endswith("_digits"):  # the digits need no download
        main(["fit", "--config", str(config), "--trainer.fast_dev_run=1"])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_example_configs_take_nothing_over_from_the_method(config):
    """If a config names the method's own class, the method's other arguments would stay, so it must give them all."""
    model = yaml.safe_load(config.read_text())["model"]
    defaults = inspect.signature(getattr(methods, model["class_path"])).parameters
    for name in ("extraction", "similarity", "loss", "schedule"):
        default, given = defaults[name].default, model["init_args"][name]
        if given["class_path"] == type(default).__name__:
            own = inspect.signature(type(default)).parameters
            changed = {key for key, value in default.arguments.items() if value != own[key].default}
            assert changed <= given.get("init_args", {}).keys()


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_readme_exist(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    name, *arguments = shlex.split(command, comments=True)
    if name == "make":
        rules = (REPOSITORY / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", rules, flags=re.MULTILINE) for target in arguments)
    elif arguments[0] == "export":  # export has no config to print
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
    else:
        parses(*arguments[2 if name == "python" else 0 :])
