"""The examples in docstrings and the code blocks of the README and of the site's pages run."""

import ast
import doctest
import importlib
import inspect
import re
import runpy
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
DOCS = REPOSITORY / "docs"
GENERATED = {"_build", "notebooks", "generated", "jupyter_execute"}
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(page for page in DOCS.rglob("*.md") if not GENERATED & {*page.relative_to(DOCS).parts}),
]
NAMES = {page: str(page.relative_to(REPOSITORY)) for page in PAGES}
# If the code of a page downloads a data set, it gets random images instead.
NOISE = """
import torch
from ssl_modules.datamodules import CIFAR10DataModule, TensorImages
CIFAR10DataModule.prepare_data = lambda self: None
images = TensorImages(torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8), torch.arange(64) % 10)
CIFAR10DataModule.load = lambda self: (images, images)
"""


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's code blocks of a language, in order."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def commands() -> list[str]:
    """Return the lines of the shell blocks of all pages, with continued lines joined, each line once."""
    text = "".join(block for page in PAGES for block in blocks(page, "bash|console")).replace("\\\n", " ")
    starts = ("make ", "ssl-modules ", "python ")
    return list(dict.fromkeys(line for line in text.splitlines() if line.startswith(starts)))


def parses(command: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--print_config", *arguments])
    assert exit_.value.code == 0


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("python"), ids=NAMES.get)
def test_python_blocks_of_a_page_run_in_order(page, tmp_path):
    source = "\n".join(blocks(page, "python"))
    short = {"PL_TRAINER_LIMIT_TRAIN_BATCHES": "3"}  # Lightning's Trainer reads it
    if "CIFAR10DataModule(" in source:
        source = NOISE + source.replace("batch_size=256", "batch_size=32").replace("val_size=10000", "val_size=16")
        short = {"PL_TRAINER_FAST_DEV_RUN": "1"}
    script = tmp_path / "page.py"
    script.write_text(source)
    run_script(script, folder=tmp_path, **short)


@pytest.mark.parametrize("page", pages_with("{code-block} python"), ids=NAMES.get)
def test_python_blocks_that_do_not_run_are_python(page):
    """The test doesn't run these blocks, because they need another library or a file that we don't have."""
    for block in blocks(page, "{code-block} python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ssl_modules"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_files_that_a_page_names_exist(page):
    text = page.read_text()
    for name in re.findall(r"`((?:ssl_modules|callbacks|datamodules|tests|examples|docs)/[\w/.]*)`", text):
        assert (REPOSITORY / name).exists(), name
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        path = page.parent / target
        copied = "notebooks/" in target  # the build copies it from examples/notebooks
        assert copied or path.exists() or path.with_suffix(".md").exists(), target


@pytest.mark.parametrize("config", [block for page in pages_with("yaml") for block in blocks(page, "yaml")])
def test_yaml_blocks_parse(config, tmp_path):
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


def test_each_method_has_a_page_and_its_pictures():
    for name in methods.__all__:
        assert (DOCS / "methods" / f"{name.lower()}.md").exists()


@pytest.mark.slow
def test_pictures_are_those_that_the_script_draws(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "pictures")
    drawn = runpy.run_path(str(DOCS / "pictures" / "draw.py"))["pictures"]()
    assert drawn == {name: (DOCS / "pictures" / name).read_text() for name in drawn}
    assert len(drawn) == 2 * (2 + len(methods.__all__))


def rows(path: Path) -> set[str]:
    """Return the table rows of a page that have a number after the first cell, except those that a script writes."""
    text = re.sub("<!-- begin: .*?<!-- end -->", "", path.read_text(), flags=re.DOTALL)
    return set(re.findall(r"^\|[^|]+\|.*\d.*$", text, flags=re.MULTILINE))


def test_numbers_of_the_readme_are_those_of_the_site():
    shown = rows(REPOSITORY / "README.md")
    assert shown
    assert shown <= rows(DOCS / "speed.md")


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
        teacher = given["extraction"]["init_args"]
        assert "momentum" in teacher
        assert "momentum_schedule" in teacher or teacher["momentum"] is None
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
def test_commands_of_the_pages_exist(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    name, *arguments = shlex.split(command, comments=True)
    if name == "make":
        rules = (REPOSITORY / "Makefile").read_text()
        targets = [argument for argument in arguments if "=" not in argument]
        assert all(re.search(rf"^(.* )?{target}( .*)?:", rules, flags=re.MULTILINE) for target in targets)
    elif name == "python" and arguments[0] != "-m":
        assert (REPOSITORY / arguments[0]).exists()
    elif arguments[0] in ("export", "shard"):  # they have no config to print
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
    elif arguments[0].startswith("-"):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
    else:
        parses(*arguments[2 if name == "python" else 0 :])
