"""Yield invalid values of an argument, based only on its type and name. examples/fuzz.py tries these values."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

# Values that look invalid but are allowed: the argument, the value, and what the value means.
ALLOWED = (
    ("level", "-1", "counts from the end"),
    ("level", "0", "is the finest level"),
    ("seed", "0", "is a seed like any other"),
    ("seed", "-1", "is a seed like any other"),
    ("fold", "0", "is the first of the ten"),
    ("val_size", "0", "is no validation part"),
    ("num_workers", "0", "loads in the process itself"),
    ("rank", "0", "is the first process"),
    ("num_classes", "0", "is no targets"),
    ("cache_dir", "an unknown name", "is a folder, which is made when it is needed"),
    ("anchor_block", "0", "is never in blocks"),
    ("small_views", "0", "makes no small views"),
    ("small_sizes", "an empty list", "makes no small views"),
    ("small_scales", "an empty list", "makes no small views"),
    ("label_levels", "0", "reads no labels"),
    ("queue", "0", "is no queue"),
    *((name, "0", "is a number of steps") for name in ("queue_after", "frozen_steps")),
    *((name, "0.0", "is a share of the run") for name in ("queue_after", "frozen_steps")),
    ("overlap", "0", "is no overlap"),
    ("pixels", "0", "is no move"),
    ("shift", "0", "is no move"),
    ("warmup_steps", "0", "is no warm-up"),
    ("warmup", "0", "is no warm-up"),
    ("warmup", "0.0", "is no warm-up"),
    ("milestones", "a zero", "makes the rate drop at the start"),
    *((name, "0.0", "is a learning rate of zero") for name in ("start", "floor")),
    ("weight", "0.0", "leaves a contrast out"),
    ("weight", "-1.0", "pushes apart what a contrast pulls together"),
    ("l2", "0.0", "is no penalty"),
    ("low", "0.0", "is a score like any other"),
    ("low", "-1.0", "is a score like any other"),
    ("high", "0.0", "is a score like any other"),
    *((name, "0.0", "is no change") for name in ("brightness", "contrast", "saturation", "hue", "strength")),
    *((name, "0.0", "is the end of the range") for name in ("p", "threshold", "positive_weight", "momentum")),
    ("mean", "a zero", "is the default"),
    ("similarities", "a zero", "is a similarity like any other"),
    ("similarities", "a negative number", "is a similarity like any other"),
    ("thresholds", "a zero", "is a similarity like any other"),
    ("thresholds", "a negative number", "is a similarity like any other"),
    ("table", "a zero", "is a negative"),
    ("clips", "a zero", "is the first clip"),
    ("pairs", "a zero", "is the shallowest map"),
    ("pairs", "a negative number", "counts from the end"),
    ("classes", "an unknown name", "is a file, which is read when the data is set up"),
    ("features", "an unknown name", "is looked up in the module, which the constructor doesn't have"),
    ("name", "an unknown name", "is free to choose"),
    ("filename", "an unknown name", "is free to choose"),
    ("key", "an unknown name", "is looked up in the step's result, which the constructor doesn't have"),
    ("root", "an unknown name", "is a folder, which is read when the data is set up"),
    ("folder", "an unknown name", "is a folder, which is made when it is needed"),
    ("test", "an unknown name", "is a folder, which is read when the data is set up"),
    ("subset", "an unknown name", "is a file, which is read when the data is set up"),
)
PROBABILITIES = {"p", "threshold", "positive_weight", "momentum", "min_scale", "max_scale"}
SHARES = {"mean", "std", "scale"}  # in lists: of pixels in [0, 1], and of an image's area
OPTIONAL_EMPTY = {"shared", "transforms"}  # lists that may be empty


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(m for part in get_args(annotation) for m in members(part))
    return (annotation,)


def has_type(annotation: Any, value: Any) -> bool:
    """Return whether a value has one of an annotation's types. Types that can't be checked count as fitting."""
    return any(_has_type(member, value) for member in members(annotation))


def _has_type(member: Any, value: Any) -> bool:  # noqa: PLR0911
    origin, parts = get_origin(member), get_args(member)
    if member is Any:
        return True
    if member in (None, NoneType):
        return value is None
    if origin is Literal:
        return value in parts
    if member is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if member is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Callable or member is Callable:
        return callable(value)
    if origin in (Sequence, list, Iterable, tuple):
        if not isinstance(value, list | tuple):
            return origin is Iterable and isinstance(value, Iterable)
        if origin is tuple and ... not in parts:
            return len(value) == len(parts) and all(map(has_type, parts, value))
        return all(has_type(parts[0], item) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    return isinstance(value, member) if isinstance(member, type) else True


def nonsense(argument: str, annotation: Any, valid: Any) -> Iterator[tuple[str, Any]]:
    """Yield values that an argument's documentation excludes, each with a name. ``valid`` is a value that it allows."""
    wrong_types = {
        "a string": "x",
        "an object": object(),
        "None": None,
        "True": True,
        "a float": 2.5,
        "a number": 3,
        "a list of a number": [3],
        "a list of a string": ["nonsense"],
        "a list of None": [None],
        "a list of objects": [object(), object()],
        "a mapping": {"nonsense": 3},
        "a class": type(valid) if valid is not None else int,
    }
    for what, value in wrong_types.items():
        if not has_type(annotation, value):
            yield what, value
    for member in members(annotation):
        yield from _wrong_values(argument, member, valid)


def _wrong_values(argument: str, member: Any, valid: Any) -> Iterator[tuple[str, Any]]:
    origin = get_origin(member)
    if member is int:
        yield from (("0", 0), ("-1", -1))
    if member is float:
        yield from (("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf), ("0.0", 0.0), ("-1.0", -1.0))
        if argument in PROBABILITIES:
            yield "1.5", 1.5
    if member is str:
        yield "an unknown name", "nonsense"
    if origin in (Sequence, list, tuple):
        yield from _wrong_lists(argument, member, valid if isinstance(valid, list | tuple) else ())


def _wrong_lists(argument: str, member: Any, valid: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    is_tuple, parts = get_origin(member) is tuple, get_args(member)
    item = next(iter(valid), None)
    is_matrix = isinstance(item, list | tuple)
    items = members(parts[0])
    if is_matrix:
        items = members(get_args(items[0])[0])

    def of(x: Any) -> list[Any]:
        """Return the valid matrix with ``x`` as the first number of each row, or a list that holds only ``x``."""
        return [[x, *row[1:]] for row in valid] if is_matrix else [x] * (len(valid) or 2)

    if argument not in OPTIONAL_EMPTY:
        yield "an empty list", []
    if is_tuple and valid:
        yield "an overlong list", [*valid, *valid]
    if float in items:
        yield from (("a NaN", of(math.nan)), ("an infinity", of(math.inf)))
    if float in items or int in items:
        yield from (("a zero", of(0)), ("a negative number", of(-1)))
    if argument in SHARES and float in items:
        yield from (("a number above 1", of(1.5)), ("a number up to 255", of(123.0)))
    if is_tuple and items == (float,) and valid:
        yield "falling bounds", [*reversed(valid)]
    if item is not None and not isinstance(item, int | float | str | list | tuple):
        yield "a list of a class", [type(item)]
        yield "one item", item
