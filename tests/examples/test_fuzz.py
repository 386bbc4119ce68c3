"""The constructors refuse nonsense, and their errors name the argument."""

import importlib.util
import sys
from pathlib import Path

import pytest

from ssl_modules.losses import InfoNCE

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    """Load a script of examples/ by its path. If examples/ were on sys.path, losses.py would hide tests/losses."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load("nonsense")
fuzz = load("fuzz")
SCRIPT = EXAMPLES / "fuzz.py"


@pytest.mark.parametrize("cases", [200, pytest.param(2_000, marks=pytest.mark.slow)])
def test_nonsense_is_refused_by_name(cases, capsys):
    results = fuzz.run(cases, seed=0)
    assert len(results) == cases
    assert fuzz.report(results), capsys.readouterr().out


def test_every_class_has_cases():
    classes = [cls for _, cls in fuzz.public_classes()]
    assert len(classes) > 60
    assert not fuzz.LEFT_OUT & {cls.__name__ for cls in classes}


def test_accepted_nonsense_and_unnamed_errors_are_reported(capsys):
    def result(error):
        return fuzz.Result(fuzz.Case("ssl_modules.losses", InfoNCE, "clip", "a string", "x"), error)

    named, unnamed = ValueError("clip: expected a number"), KeyError("x")
    assert fuzz.report([result(named)] * 20)
    assert not fuzz.report([result(named), result(None)])
    assert not fuzz.report([result(named), result(unnamed)])
    assert "of another kind: InfoNCE(clip=a string): KeyError" in capsys.readouterr().out


def test_the_command_says_how_it_went_by_its_exit_code(monkeypatch):
    monkeypatch.setattr("sys.argv", ["fuzz.py", "--cases=5", "--only=InfoNCE"])
    assert fuzz.main() == 0
