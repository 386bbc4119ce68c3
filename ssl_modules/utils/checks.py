"""Checks of arguments, with error messages of one form: the argument's name, what is expected, and what was given.

:class:`~ssl_modules.utils.configurable.Configurable` and :class:`Checked` compare the arguments of their subclasses'
constructors with the annotations. A constructor itself checks ranges, and objects for which it can suggest a fix.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

_MANY = (Sequence, list, tuple)
_LONGEST = 200  # maximum number of characters of a value in a message
_PER_CHANNEL = ("mean", "std")  # arguments with one number per channel, in all classes
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
    fix: str = "",
) -> None:
    """Raise unless an argument is a finite number in a range.

    Args:
        name: name of the argument.
        value: value of the argument.
        least: lower bound, included.
        above: lower bound, excluded.
        most: upper bound, included.
        below: upper bound, excluded.
        fix: advice that ends the message.

    Raises:
        ValueError: if it is not; the message names the argument, the range and the value.

    Example:
        >>> check_number("momentum", 0.99, least=0, most=1)
        >>> check_number("k", 0, least=1)
        Traceback (most recent call last):
        ...
        ValueError: k: expected a number of at least 1, got 0
    """
    limits = _Limits(least, above, most, below)
    if not limits.hold(value):
        raise ValueError(f"{name}: expected {limits.words('a', 'number')}, got {value!r}{_then(fix)}")


def check_numbers(
    name: str,
    values: Iterable[Any],
    *,
    length: int | None = None,
    fix: str = "",
    **limits: float | None,
) -> None:
    """Raise unless an argument is a non-empty list of finite numbers in a range.

    Args:
        name: name of the argument.
        values: values of the argument.
        length: number of values; None = one or more.
        fix: advice that ends the message.
        limits: bounds of each value: ``least``, ``above``, ``most`` and ``below``, as in :func:`check_number`.

    Raises:
        ValueError: if it is not; the message names the argument, the range and the values.

    Example:
        >>> check_numbers("temperatures", [0.1, 0.0], above=0, fix="give one per rank")
        Traceback (most recent call last):
        ...
        ValueError: temperatures: expected positive numbers, got [0.1, 0.0]; give one per rank
    """
    allowed, numbers = _Limits(**limits), list(values)
    if not numbers or (length is not None and len(numbers) != length) or not all(map(allowed.hold, numbers)):
        words = allowed.words("" if length is None else str(length), "numbers")
        raise ValueError(f"{name}: expected {words}, got {values!r}{_then(fix)}")


def check_interval(name: str, bounds: tuple[Any, Any], *, above: float, most: float | None = None) -> None:
    """Raise unless an argument is a pair (low, high) of numbers in a range, with low <= high.

    Example:
        >>> check_interval("scale", (0.5, 0.1), above=0)
        Traceback (most recent call last):
        ...
        ValueError: scale: expected (low, high) with 0 < low <= high, got (0.5, 0.1)
    """
    low, high = bounds
    limits = _Limits(above=above, most=most)
    if not (limits.hold(low) and limits.hold(high) and low <= high):
        upper = "" if most is None else f" <= {most:g}"
        raise ValueError(f"{name}: expected (low, high) with {above:g} < low <= high{upper}, got {tuple(bounds)}")


class _Limits(NamedTuple):
    """A range of numbers."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def hold(self, value: Any) -> bool:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def words(self, article: str, noun: str) -> str:
        """Describe the range in words, such as "a number in [0, 1)"."""
        if self == _Limits(above=0):
            return f"{article} positive {noun}".lstrip()
        lower = [f"{x:g}" for x in (self.least, self.above) if x is not None]
        upper = [f"{x:g}" for x in (self.most, self.below) if x is not None]
        if lower and upper:
            ends = "(" if self.least is None else "[", ")" if self.most is None else "]"
            limits = f"in {ends[0]}{lower[0]}, {upper[0]}{ends[1]}"
        else:
            bounds = {"of at least": self.least, "above": self.above, "of at most": self.most, "below": self.below}
            limits = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
        return f"{article} {noun} {limits}".strip()


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise unless an argument is one of the allowed values.

    Example:
        >>> check_choice("mode", "both", ["in", "out"])
        Traceback (most recent call last):
        ...
        ValueError: mode: expected 'in' or 'out', got 'both'
    """
    choices = list(choices)
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        raise ValueError(f"{name}: expected {_either(map(repr, choices))}, got {value!r}")


def check_instance(name: str, value: Any, kind: type | UnionType, fix: str = "") -> None:
    """Raise unless an argument is an instance of a class.

    Args:
        name: name of the argument.
        value: value of the argument.
        kind: the class, or a union of classes.
        fix: advice that ends the message.

    Raises:
        TypeError: if it is not; the message names the argument, the class and the value.

    Example:
        >>> check_instance("loss", dict, Mapping)
        Traceback (most recent call last):
        ...
        TypeError: loss: expected an object of the class Mapping, got the class dict; give an instance, dict(...)
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        fix = f"give an instance, {value.__name__}(...)"
    kinds = _either(each.__name__ for each in get_args(kind) or (kind,))
    raise TypeError(f"{name}: expected an object of the class {kinds}, got {got(value)}{_then(fix)}")


def check_instances(name: str, values: Any, kind: type, fix: str = "") -> None:
    """Raise unless an argument is a list of instances of a class; the list may be empty.

    Args:
        name: name of the argument.
        values: values of the argument.
        kind: the class.
        fix: advice that ends the message if an item has another class.

    Raises:
        TypeError: if it is not; the message names the argument, the class and the value.

    Example:
        >>> check_instances("shared", 1.0, float)
        Traceback (most recent call last):
        ...
        TypeError: shared: expected a list of objects of the class float, got float(...); give [float(...)]
    """
    if isinstance(values, kind):
        given = f"{type(values).__name__}(...)"
        raise TypeError(f"{name}: expected a list of objects of the class {kind.__name__}, got {given}; give [{given}]")
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise TypeError(f"{name}: expected a list of objects of the class {kind.__name__}, got {got(values)}")
    for value in values:
        check_instance(name, value, kind, fix)


def check_types(init: Callable[..., None], arguments: Mapping[str, Any]) -> None:
    """Raise if the annotation of a constructor's argument doesn't allow its value.

    It checks annotations of numbers, strings, paths and literals, and of sequences and unions of them. A number must be
    finite, and bool values are not numbers. It does not check annotations of other classes or functions; the
    constructor checks those, because it can suggest a fix.

    Args:
        init: the constructor.
        arguments: the arguments by name; those without an annotation in ``init`` are not checked.

    Raises:
        TypeError: if a type is wrong; the message names the argument, the allowed types and the value.
        ValueError: if a value is not in a ``Literal``, or a number is not finite; the message names the same.

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
            message = f"{name}: expected {_words(annotation)}, got {got(value)}{fix}"
            raise ValueError(message) if _is_wrong_value(annotation, value) else TypeError(message)


class Checked:
    """Mixin that checks the arguments of its subclasses' constructors by their annotations; see :func:`check_types`.

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
            return init(self, *args, **kwargs)  # Python's own error names the class
        check_types(init, bound.arguments)
        return init(self, *args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def _is_plain(annotation: Any) -> bool:
    """Whether an annotation has only numbers, strings, paths, sequences of them, and functions in a union with them."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin in (Union, UnionType):
        return all(_is_plain(part) or get_origin(part) is Callable for part in parts)
    if origin in _MANY:
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
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    is_number_for_true = isinstance(value, bool) and annotation is not bool
    is_finite = annotation is not float or not isinstance(value, Real) or math.isfinite(value)
    return isinstance(value, _TYPES[annotation]) and not is_number_for_true and is_finite


def _allows_items(origin: Any, parts: tuple[Any, ...], value: Any) -> bool:
    if not isinstance(value, list | tuple):  # the constructor checks the items of an array or a range
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | set | frozenset)
    if origin is tuple and parts[-1] is not ...:
        return len(value) == len(parts) and all(map(_allows, parts, value))
    return all(_allows(parts[0], item) for item in value)


def _is_wrong_value(annotation: Any, value: Any) -> bool:
    """Whether the type is allowed and only the value is wrong."""
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
    names = {Callable: "a function", float: "a finite number", Path: "a path", None: "None", NoneType: "None"}
    return [names.get(origin or annotation) or annotation.__name__]


def got(value: Any) -> str:
    """Describe a value in a message: a class by its name, and an object with a long repr by its class."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shown = repr(value)
    return shown if len(shown) <= _LONGEST and "\n" not in shown else f"{type(value).__name__}(...)"


def _then(fix: str) -> str:
    return f"; {fix}" if fix else ""


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
