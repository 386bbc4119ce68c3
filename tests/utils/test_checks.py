"""Argument checks: which values they refuse, and with which messages."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from torch import Tensor, nn

from ssl_modules.utils.checks import (
    Checked,
    check_choice,
    check_instance,
    check_instances,
    check_interval,
    check_number,
    check_numbers,
    check_types,
)


def takes(
    *,
    count: int = 1,
    rate: float = 0.1,
    flag: bool = False,
    name: str | None = None,
    mode: Literal["in", "out"] = "in",
    pair: tuple[int, int] | None = None,
    sizes: int | Sequence[int] = 1,
    table: Sequence[Sequence[float]] = (),
    path: str | Path = "x",
    mean: Sequence[float] | None = None,
    net: nn.Module | None = None,
    function: Callable[[int], int] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("count", np.int64(3)),
        ("rate", 1),
        ("rate", np.float32(0.5)),
        ("name", None),
        ("pair", [1, 2]),
        ("sizes", 3),
        ("sizes", range(3)),
        ("table", np.eye(2)),
        ("path", Path("x")),
        ("net", "left to the constructor"),
        ("function", abs),
    ],
)
def test_what_an_annotation_allows(argument, value):
    check_types(takes, {argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("count", 2.0, TypeError, "count: expected int, got 2.0"),
        ("count", True, TypeError, "count: expected int, got True"),
        ("count", float("nan"), TypeError, "count: expected int, got nan"),
        ("count", int, TypeError, "count: expected int, got the class int"),
        ("count", nn.Sequential(nn.Identity()), TypeError, "count: expected int, got Sequential(...)"),
        ("rate", float("nan"), ValueError, "rate: expected a finite number, got nan"),
        ("rate", "0.1", TypeError, "rate: expected a finite number, got '0.1'"),
        ("flag", "yes", TypeError, "flag: expected bool, got 'yes'"),
        ("flag", 1, TypeError, "flag: expected bool, got 1"),
        ("name", 3, TypeError, "name: expected str or None, got 3"),
        ("mode", "both", ValueError, "mode: expected 'in' or 'out', got 'both'"),
        ("pair", (1, 2, 3), TypeError, "pair: expected (int, int) or None, got (1, 2, 3)"),
        ("sizes", "16", TypeError, "sizes: expected int or a list of int, got '16'"),
        ("table", [1, 2], TypeError, "table: expected a list of lists of finite numbers, got [1, 2]"),
        ("path", 3, TypeError, "path: expected str or a path, got 3"),
        ("function", 3, TypeError, "function: expected a function or None, got 3"),
        (
            "mean",
            0.5,
            TypeError,
            "mean: expected a list of finite numbers or None, got 0.5; give one number per channel",
        ),
    ],
)
def test_what_an_annotation_does_not_allow_is_named(argument, value, error, message):
    with pytest.raises(error) as raised:
        check_types(takes, {argument: value})
    assert str(raised.value) == message


def test_a_constructor_is_checked_by_position_and_in_subclasses():
    class Base(Checked):
        def __init__(self, count: int, **settings) -> None: ...

    class Sub(Base):
        def __init__(self, name: str, *args) -> None:
            super().__init__(*args)

    Sub("a", 3)
    with pytest.raises(TypeError, match="name: expected str, got 3"):
        Sub(3, 3)
    with pytest.raises(TypeError, match="count: expected int, got 'x'"):
        Sub("a", "x")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Base()


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "words"),
    [
        ({"above": 0}, 1, 0, "a positive number"),
        ({"above": 2}, 3, 2, "a number above 2"),
        ({"least": 2}, 2, 1, "a number of at least 2"),
        ({"most": 2}, 2, 3, "a number of at most 2"),
        ({"least": 0, "most": 1}, 1, 1.5, "a number in [0, 1]"),
        ({"above": 0, "most": 1}, 1, 0, "a number in (0, 1]"),
        ({"least": 0, "below": 1}, 0, 1, "a number in [0, 1)"),
        ({"above": 0, "below": 1}, 0.5, 1, "a number in (0, 1)"),
        ({}, -3, "x", "a number"),
    ],
)
def test_ranges_in_words(limits, inside, outside, words):
    check_number("k", inside, **limits)
    for value in (outside, float("nan"), float("inf"), True, None):
        with pytest.raises(ValueError, match="k: expected") as raised:
            check_number("k", value, **limits, fix="take another")
        assert str(raised.value) == f"k: expected {words}, got {value!r}; take another"


@pytest.mark.parametrize("values", [[], [1], [1, 0], [1, float("nan")], [1, 2, 3]])
def test_lists_have_their_length_and_range(values):
    check_numbers("layers", (1, 2), length=2, above=0)
    with pytest.raises(ValueError, match="layers: expected 2 positive numbers, got"):
        check_numbers("layers", values, length=2, above=0)


@pytest.mark.parametrize("bounds", [(0, 1), (0.5, 0.1), (0.5, 1.5), (0.1, float("nan"))])
def test_intervals_rise_within_their_range(bounds):
    check_interval("scale", (0.5, 0.5), above=0, most=1)
    with pytest.raises(ValueError, match=r"scale: expected \(low, high\) with 0 < low <= high <= 1, got"):
        check_interval("scale", bounds, above=0, most=1)


def test_lists_of_objects():
    net = nn.Identity()
    check_instances("nets", (net,), nn.Module)
    check_instances("nets", [], nn.Module)
    for value, got in (
        (net, r"Identity\(\.\.\.\); give \[Identity"),
        (3, "3$"),
        ("net", "'net'$"),
        ({"a": net}, "{'a'"),
    ):
        with pytest.raises(TypeError, match=f"nets: expected a list of objects of the class Module, got {got}"):
            check_instances("nets", value, nn.Module)
    with pytest.raises(TypeError, match="nets: expected an object of the class Module, got 3; give others"):
        check_instances("nets", [net, 3], nn.Module, "give others")


def test_choices_and_classes():
    check_choice("k", 1, [1, "a"])
    for value in (True, 1.0, "b"):
        with pytest.raises(ValueError, match="k: expected 1 or 'a', got"):
            check_choice("k", value, [1, "a"])
    check_instance("net", nn.Identity(), nn.Module | Tensor)
    with pytest.raises(TypeError, match=r"net: expected an object of the class Module or Tensor, got 3; give one$"):
        check_instance("net", 3, nn.Module | Tensor, "give one")
    with pytest.raises(TypeError, match=r"net: .* got the class Identity; give an instance, Identity\(\.\.\.\)"):
        check_instance("net", nn.Identity, nn.Module, "give one")
