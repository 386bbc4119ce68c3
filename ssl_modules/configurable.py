"""Objects that remember their constructor arguments, so that a checkpoint can hold them as plain data.

A live object in a checkpoint can't be read back safely. What is stored instead is what a YAML config would say of it:
``{"class_path": ..., "init_args": {...}}``.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
import torch

Plain = bool | int | float | str | None


class Configurable:
    """Mixin whose instances keep the arguments of their own constructor, defaults included, in ``arguments``.

    Example:
        >>> class Scale(Configurable):
        ...     def __init__(self, factor: float = 2.0) -> None: ...
        >>> Scale().arguments
        {'factor': 2.0}
    """

    arguments: Mapping[str, Any] = MappingProxyType({})  # of a class without a constructor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recorded(cls.__init__)  # type: ignore[method-assign]


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Configurable, *args: Any, **kwargs: Any) -> None:
        if "arguments" not in self.__dict__:  # the outermost constructor runs first, and is the class's own
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                return init(self, *args, **kwargs)  # whose own error names the class
            for name, value in bound.arguments.items():
                if value is not self:
                    bound.arguments[name] = build(name, value)  # a checkpoint gives plain data
            args, kwargs = bound.args[1:], dict(bound.kwargs)
            bound.apply_defaults()
            self.__dict__["arguments"] = _by_name(type(self), bound)
        return init(self, *args, **kwargs)

    recorded.__signature__ = signature  # type: ignore[attr-defined]  # Lightning reads it without unwrapping
    return recorded


def _by_name(cls: type, bound: inspect.BoundArguments) -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:  # without self
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            if value:
                raise TypeError(
                    f"{cls.__name__}: got {len(value)} arguments by position for *{name}, which a checkpoint can't "
                    "store by name; pass them by name"
                )
        else:
            by_name |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return by_name


class NotStored(Exception):
    """An object that has no form as plain data."""


def class_path(cls: type) -> str:
    """The dotted name that a class is imported by.

    Example:
        >>> class_path(Configurable)
        'ssl_modules.configurable.Configurable'
    """
    return f"{cls.__module__}.{cls.__qualname__}"


def to_config(value: Any) -> Any:
    """The plain form of a value: itself, or class path and arguments of a configurable object or optimiser.

    Raises:
        NotStored: for anything else, such as a module built by hand or a lambda.
    """
    if isinstance(value, np.generic):  # a float64 is a float as well, but no plain one
        value = value.item()
    if isinstance(value, Plain):
        return value
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_config(item) for key, item in value.items()}
    if isinstance(value, Configurable):
        return {"class_path": class_path(type(value)), "init_args": to_config(value.arguments)}
    if isinstance(value, functools.partial) and all(callable(x) for x in value.args):
        # The command line's partial has the optimiser's class among its positional arguments.
        classes = [x for x in (value.func, *value.args) if isinstance(x, type)]
        if len(classes) == 1 and _is_optimizer(classes[0]):
            return {"class_path": class_path(classes[0]), "init_args": to_config(value.keywords)}
    if _is_optimizer(value):
        return {"class_path": class_path(value), "init_args": {}}
    raise NotStored(value)


def storable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments as plain data; one that has no plain form is marked as such, for :func:`build` to name."""
    config = {}
    for name, value in arguments.items():
        try:
            config[name] = to_config(value)
        except NotStored:
            config[name] = {"not_stored": class_path(type(value))}
    return config


def build(name: str, value: Any) -> Any:
    """What :func:`storable` made of an argument, as a live object again; live objects pass through.

    Raises:
        ValueError: if the checkpoint could not hold the argument, or names a class that is not configurable.
    """
    if isinstance(value, list):
        return [build(name, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "not_stored" in value:
        raise ValueError(
            f"{name}: a checkpoint can't hold this {value['not_stored']}; "
            f"pass it again: load_from_checkpoint(path, {name}=...)"
        )
    if "class_path" not in value:
        return {key: build(name, item) for key, item in value.items()}
    cls = _load_class(name, value["class_path"])
    arguments = {key: build(name, item) for key, item in value.get("init_args", {}).items()}
    return functools.partial(cls, **arguments) if _is_optimizer(cls) else cls(**arguments)


def _is_optimizer(value: Any) -> TypeGuard[type[torch.optim.Optimizer]]:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def _load_class(name: str, path: str) -> type:
    module, _, qualname = path.rpartition(".")
    # A checkpoint is data from elsewhere: it may name classes of our kind, not have anything imported or called.
    cls = getattr(sys.modules.get(module), qualname, None)
    if cls is None:
        raise ValueError(f"{name}: class {path!r} is not there; define or import it first, or pass {name}=...")
    if not (_is_optimizer(cls) or (isinstance(cls, type) and issubclass(cls, Configurable))):
        raise ValueError(f"{name}: {path!r} is neither a Configurable nor an optimiser; pass {name}=... instead")
    return cls
