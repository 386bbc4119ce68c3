"""Checks of arguments, with one wording: what is called how, what is expected, what came.

Types are checked by the annotations of a constructor: :class:`~ssl_modules.utils.configurable.Configurable` and
:class:`Checked` do it for all their subclasses. A constructor itself checks ranges, and objects whose fix it knows.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_MANY = (Sequence, list, tuple)
_PER_CHANNEL = ("mean", "std")  # of pixels, wherever they are arguments
_TYPES: dict[Any, Any] = {
    bool: bool,
    int: Integral,
    float: Real,
    str: str,
    Path: Path,
    None: NoneType,
    NoneType: NoneType,
}


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise unless an argument is a finite number in a range.

    Args:
        name: of the argument.
        value: of the argument.
        least: lower bound, included.
        above: lower bound, excluded.
        most: upper bound, included.
        below: upper bound, excluded.

    Raises:
        ValueError: names the argument, the range and the value.

    Example:
        >>> check_number("momentum", 0.99, least=0, most=1)
        >>> check_number("k", 0, least=1)
        Traceback (most recent call last):
        ...
        ValueError: k: expected a number of at least 1, got 0
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if (
        math.isfinite(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    ):
        return
    bounds = {"of at least": least, "above": above, "of at most": most, "below": below}
    limits = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    raise ValueError(f"{name}: expected a number {limits}, got {value!r}")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise unless an argument is one of a few values.

    Example:
        >>> check_choice("mode", "both", ["in", "out"])
        Traceback (most recent call last):
        ...
        ValueError: mode: expected 'in' or 'out', got 'both'
    """
    choices = list(choices)
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        raise ValueError(f"{name}: expected {_either(map(repr, choices))}, got {value!r}")


def check_instance(name: str, value: Any, kind: type, fix: str = "") -> None:
    """Raise unless an argument is an object of a class.

    Args:
        name: of the argument.
        value: of the argument.
        kind: the class.
        fix: what to give instead.

    Raises:
        TypeError: names the argument, the class and the value.

    Example:
        >>> check_instance("loss", dict, Mapping)
        Traceback (most recent call last):
        ...
        TypeError: loss: expected an object of the class Mapping, got the class dict; give an instance, dict(...)
    """
    if isinstance(value, kind):
        return
    is_class = isinstance(value, type)
    got = f"the class {value.__name__}" if is_class else repr(value)
    if is_class and not fix and issubclass(value, kind):
        fix = f"give an instance, {value.__name__}(...)"
    raise TypeError(f"{name}: expected an object of the class {kind.__name__}, got {got}{fix and f'; {fix}'}")


def check_types(init: Callable[..., None], arguments: Mapping[str, Any]) -> None:
    """Raise for an argument that its annotation in a constructor doesn't allow.

    Numbers, strings, paths, literals, and sequences and unions of them are compared. A number must be finite, and True
    is none. An annotation that names another class or a function is not compared: the constructor knows the fix.

    Args:
        init: the constructor.
        arguments: by name; names that ``init`` doesn't annotate are left out.

    Raises:
        TypeError: names the argument, the types and the value.
        ValueError: likewise, for a value outside a ``Literal``, or a number that is not finite.

    Example:
        >>> def build(k: int, mode: Literal["in", "out"] = "in", scale: tuple[float, float] = (0.1, 1.0)) -> None: ...
        >>> check_types(build, {"k": 5, "mode": "out", "scale": [0.1, 1]})
        >>> check_types(build, {"k": "5"})
        Traceback (most recent call last):
        ...
        TypeError: k: expected int, got '5'
    """
    for name, annotation in inspect.get_annotations(init).items():
        if name in arguments and _is_plain(annotation) and not _allows(annotation, value := arguments[name]):
            fix = "; give one number per channel" if name in _PER_CHANNEL else ""
            message = f"{name}: expected {_words(annotation)}, got {value!r}{fix}"
            raise ValueError(message) if _is_wrong_value(annotation, value) else TypeError(message)


class Checked:
    """Mixin that compares the arguments of its subclasses' constructors with their annotations.

    Example:
        >>> class Probe(Checked):
        ...     def __init__(self, k: int = 20) -> None: ...
        >>> Probe(k=float("nan"))
        Traceback (most recent call last):
        ...
        TypeError: k: expected int, got nan
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _checked(cls.__init__)  # type: ignore[method-assign]


def _checked(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            return init(self, *args, **kwargs)  # whose own error names the class
        check_types(init, bound.arguments)
        return init(self, *args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def _is_plain(annotation: Any) -> bool:
    """Whether an annotation is of numbers, strings, paths and sequences of them alone."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin in (Union, UnionType, *_MANY):
        return all(_is_plain(part) for part in parts if part is not ...)
    return annotation in _TYPES


def _allows(annotation: Any, value: Any) -> bool:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(_allows(part, value) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in _MANY:
        return _allows_items(origin, parts, value)
    is_number_for_true = isinstance(value, bool) and annotation is not bool
    is_finite = annotation is not float or not isinstance(value, Real) or math.isfinite(value)
    return isinstance(value, _TYPES[annotation]) and not is_number_for_true and is_finite


def _allows_items(origin: Any, parts: tuple[Any, ...], value: Any) -> bool:
    if not isinstance(value, list | tuple):  # an array or a range has numbers, which the constructor reads
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | set | frozenset)
    if origin is tuple and parts[-1] is not ...:
        return len(value) == len(parts) and all(map(_allows, parts, value))
    return all(_allows(parts[0], item) for item in value)


def _is_wrong_value(annotation: Any, value: Any) -> bool:
    """Whether the type is right, and the value alone is not."""
    if isinstance(value, list | tuple):
        return any(_is_wrong_value(part, item) for part in get_args(annotation) for item in value)
    is_infinite = isinstance(value, float) and not math.isfinite(value) and _mentions(annotation, float)
    return is_infinite or (isinstance(value, str) and _mentions(annotation, Literal))


def _mentions(annotation: Any, kind: Any) -> bool:
    return annotation is kind or get_origin(annotation) is kind or any(_mentions(p, kind) for p in get_args(annotation))


def _words(annotation: Any) -> str:
    return _either(dict.fromkeys(_alternatives(annotation)))


def _alternatives(annotation: Any) -> list[str]:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return [words for part in parts for words in _alternatives(part)]
    if origin is Literal:
        return list(map(repr, parts))
    if origin is tuple and parts[-1] is not ...:
        return [f"({', '.join(map(_words, parts))})".replace("a finite number", "number")]
    if origin in _MANY:
        item = _words(parts[0]).replace("a finite number", "finite numbers").replace("a list", "lists")
        return [f"a list of {item}"]
    if annotation in (None, NoneType):
        return ["None"]
    return [{float: "a finite number", Path: "a path"}.get(annotation, annotation.__name__)]


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
