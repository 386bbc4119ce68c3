"""Refuse values that an option can't accept, and name the valid ones.

jsonargparse only reports that such a value fits none of the types, or takes it for the path of a file.
"""

import difflib
import inspect
import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from jsonargparse import Namespace
from jsonargparse._typehints import get_all_subclass_paths, get_class_types
from jsonargparse._util import NestedArg
from jsonargparse.typing import import_object
from lightning.pytorch import LightningDataModule, LightningModule
from torch.optim import Optimizer

from ssl_modules import augmentations, datamodules, extractions, losses, methods, optim, similarities
from ssl_modules.augmentations import Augmentation, policy
from ssl_modules.augmentations.policies import POLICIES
from ssl_modules.cli.errors import did_you_mean
from ssl_modules.extractions import Extraction, Ranks
from ssl_modules.losses import Loss
from ssl_modules.optim import Schedule
from ssl_modules.similarities import Similarity

_KINDS: dict[type, str] = {
    LightningModule: "a method",
    LightningDataModule: "a data module",
    Augmentation: "an augmentation",
    Extraction: "an extraction",
    Ranks: "a source of ranks",
    Similarity: "a similarity",
    Loss: "a loss",
    Schedule: "a schedule",
    Optimizer: "an optimiser",
}
_PARTS = (methods, datamodules, augmentations, extractions, similarities, losses, optim)
_OURS = {name: getattr(part, name) for part in _PARTS for name in dir(part)}
_SIDE = 224  # pixels; any size will do, as a policy's class doesn't depend on it
_KEYS = {"class_path", "init_args", "dict_kwargs"}
_LIKE_CLASS_PATH = {"class", "cls", "class_name", "classpath", "_target_"}
_FILES = (".yaml", ".yml", ".json")


def with_class(kind: Any, value: Any) -> Any:
    """Turn a class name into ``{"class_path": name}`` if the option also accepts plain text, such as a policy's name.

    jsonargparse would keep it as text if the class needs arguments, but later options may give these.
    """
    if isinstance(value, str) and _takes_text(kind) and _is_class(kind, value):
        return {"class_path": value}
    return value


def refuse_wrong_value(name: str, kind: Any, value: Any, previous: Any) -> None:
    """Check the value of an option that accepts classes.

    Args:
        name: name of the option.
        kind: type of the option.
        value: the given value; a NestedArg if it sets an argument of the option's class.
        previous: the option's previous value.

    Raises:
        TypeError: if the value can't be valid; it has the form of jsonargparse's own errors.
    """
    bases = get_class_types(kind)
    for item in value if isinstance(value, list) and bases else [value] if bases else []:
        problem = _problem(name, kind, bases, item, previous)
        if problem is not None:
            raise TypeError(f'Parser key "{name}":\n  {problem}')


def _problem(name: str, kind: Any, bases: tuple[type, ...], value: Any, previous: Any) -> str | None:
    if isinstance(value, NestedArg):
        return _wrong_option(name, kind, bases, value, previous)
    if isinstance(value, str):
        return _wrong_text(kind, bases, value)
    given = vars(value) if isinstance(value, Namespace) else value
    if not isinstance(given, dict):
        return None
    if "class_path" not in given:
        return _without_class(name, kind, given, previous)
    beside = [key for key in given if key not in _KEYS and not key.startswith("__")]
    if beside:
        return f"option {beside[0]!r} stands beside class_path; put it under init_args"
    return _wrong_class(kind, bases, given["class_path"])


def _without_class(name: str, kind: Any, given: dict[str, Any], previous: Any) -> str | None:
    if misnamed := next((key for key in given if key in _LIKE_CLASS_PATH), None):
        return f"option {misnamed!r} is not accepted; give the class under class_path and its arguments under init_args"
    key = next(iter(given.get("init_args", given)), None)
    return key and _named(name, kind, key, "...", previous)


def _wrong_text(kind: Any, bases: tuple[type, ...], value: str) -> str | None:
    if _takes_text(kind):
        return _wrong_class(kind, bases, value) if _looks_like_class(kind, value) else None
    if any(k in (int, float) for k in get_args(kind)):
        return f"expected a number, got {value!r}"  # the type's only class is a tensor
    return _wrong_class(kind, bases, value)


def _wrong_option(name: str, kind: Any, bases: tuple[type, ...], option: Any, previous: Any) -> str | None:
    if option.key in _KEYS:
        return None
    if previous is None and all(inspect.isabstract(base) or _is_lightning(base) for base in bases):
        return f"option {option.key!r} comes before the class; give {'--' * any(map(_is_lightning, bases))}{name} first"
    return _named(name, kind, option.key, option.val, previous)


def _is_lightning(base: type) -> bool:
    return issubclass(base, LightningModule | LightningDataModule)


def _named(name: str, kind: Any, key: str, value: Any, previous: Any) -> str | None:
    """The problem with setting an argument of a value that is given by name only, such as a policy."""
    if not isinstance(previous, str) or not _takes_text(kind) or _is_class(kind, previous):
        return None
    if name != "augmentation" or previous not in POLICIES:
        return f"is {previous!r} by name; give a class in its place to change its {key}"
    cls = type(policy(previous, _SIDE))
    needed = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    options = [f"{name}={cls.__name__}", *(f"{name}.{n}=..." for n in needed if n != key), f"{name}.{key}={value}"]
    fix = " ".join(f"--model.{option}" for option in options)
    return f"is the policy {previous!r} by name; to change an argument, give its class: {fix}"


def _takes_text(kind: Any) -> bool:
    kinds = get_args(kind) or (kind,)
    return any(
        k is str or get_origin(k) is Literal or (isinstance(k, type) and issubclass(k, os.PathLike)) for k in kinds
    )


def _looks_like_class(kind: Any, name: str) -> bool:
    """Whether plain text is, or resembles, the name of one of our classes."""
    if not (name[:1].isupper() and name.isidentifier() and _kind_of(get_class_types(kind))):
        return False
    return name in _OURS or bool(difflib.get_close_matches(name, _names(kind)))


def _is_class(kind: Any, name: str) -> bool:
    if "." not in name:
        # jsonargparse's paths of all classes are slow to collect: torch has thousands of modules.
        return any(name == cls.__name__ for cls in _subclasses(get_class_types(kind))) and name in _names(kind)
    try:
        found = import_object(name)
    except (ImportError, ValueError, AttributeError):
        return False
    return isinstance(found, type) and issubclass(found, get_class_types(kind))


def _subclasses(bases: Iterable[type]) -> Iterator[type]:
    for base in bases:
        yield base
        yield from _subclasses(base.__subclasses__())


def _names(kind: Any) -> list[str]:
    return [path.rpartition(".")[2] for path in get_all_subclass_paths(kind, include_abstract=True)]


def _wrong_class(kind: Any, bases: tuple[type, ...], path: Any) -> str | None:
    package, _, name = str(path).rpartition(".")
    found = _OURS.get(name)
    if package and not (package.startswith("ssl_modules") and isinstance(found, type)):
        return _wrong_foreign_class(kind, bases, str(path))
    if name in _names(kind) or (os.path.exists(name) and found is None) or not (name.isidentifier() or "(" in name):
        return None
    known = sorted(name for name in _names(kind) if not name.startswith("_") and not _is_abstract(name))
    if isinstance(found, type) and (other := _kind_of([found])):
        wanted = _kind_of(bases)
        near = did_you_mean("", known)
        return f"{name} is {other}{f', not {wanted}' if wanted else ''}{near}"
    return f"there is no class {name!r}{did_you_mean(name, known)}"


def _wrong_foreign_class(kind: Any, bases: tuple[type, ...], path: str) -> str | None:
    """Return what is wrong with the dotted name of a class from outside this package; None if nothing is."""
    if path.endswith(_FILES) or not all(part.isidentifier() for part in path.split(".")):
        return None
    package, _, name = path.rpartition(".")
    try:
        found = import_object(path)
    except ModuleNotFoundError as error:
        return str(error) if error.name and path.startswith(error.name) else None
    except (ImportError, ValueError, AttributeError):
        return f"there is no {name!r} in {package}"
    wanted = _kind_of(bases)
    if wanted is None or not isinstance(found, type) or issubclass(found, bases):
        return None
    known = sorted(name for name in _names(kind) if hasattr(_OURS.get(name), "__module__") and not _is_abstract(name))
    return f"{path} is not {wanted}{did_you_mean('', known)}"


def _is_abstract(name: str) -> bool:
    return inspect.isabstract(_OURS.get(name))


def _kind_of(classes: Iterable[type]) -> str | None:
    return next((word for cls in classes for base, word in _KINDS.items() if issubclass(cls, base)), None)
