"""Objects that remember their constructor arguments, so that a checkpoint can hold them as plain data.

Reading a live object from a checkpoint is not safe. The checkpoint stores what a YAML config would hold instead:
``{"class_path": ..., "init_args": {...}}``.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from ssl_modules.utils.checks import check_instance, check_types

Plain = bool | int | float | str | None
_Kind = TypeVar("_Kind")
_PACKAGE = __name__.partition(".")[0]


class _Signature:
    """The signature of a class, with ``**kwargs`` replaced by the parameters of the base classes.

    A descriptor computes it only when it is read, and for each subclass separately.
    """

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is not None:  # an instance may be callable, with a signature of its own
            raise AttributeError("__signature__")
        return full_signature(owner)


class FullSignature:
    """Mixin for classes whose signature shows the base-class parameters that ``**settings`` forwards.

    Example:
        >>> class Base(FullSignature):
        ...     def __init__(self, width: int = 4, depth: int = 2) -> None: ...
        >>> class Fixed(Base):
        ...     def __init__(self, name: str, **settings) -> None:
        ...         super().__init__(width=8, **settings)
        >>> inspect.signature(Fixed)
        <Signature (name: str, *, depth: int = 2)>
    """

    __signature__ = _Signature()


class Configurable(FullSignature):
    """Mixin whose instances store the arguments of their constructor, including defaults, in ``arguments``.

    Arguments that the constructor forwards through ``*args`` and ``**kwargs`` are stored under the base class's
    parameter names, and so are the base class's defaults. Arguments that a subclass sets itself when it calls its base
    class are not stored, because the subclass's constructor doesn't accept them.

    Arguments are checked against their annotations, see :func:`~ssl_modules.utils.checks.check_types`.

    Attributes:
        arguments: values by name; ``type(x)(**x.arguments)`` makes the same object again.

    Example:
        >>> class Scale(Configurable):
        ...     def __init__(self, factor: float = 2.0, offset: float = 0.0) -> None: ...
        >>> class Negative(Scale):
        ...     def __init__(self, **kwargs) -> None:
        ...         super().__init__(factor=-1.0, **kwargs)
        >>> Scale(3.0).arguments, Negative().arguments
        ({'factor': 3.0, 'offset': 0.0}, {'offset': 0.0})
    """

    arguments: Mapping[str, Any] = MappingProxyType({})  # for classes without a constructor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.__init__, "__recorded__"):  # the class's own constructor, or a mixin's
            cls.__init__ = _recorded(cls.__init__)  # type: ignore[method-assign]


@functools.cache
def full_signature(cls: type) -> inspect.Signature:
    """The constructor's signature, with ``**kwargs`` replaced by the base-class parameters that it forwards.

    Args:
        cls: a subclass of :class:`FullSignature`.
    """
    own = _parameters(cls)
    kinds = {p.kind for p in own}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return inspect.Signature(own)
    from jsonargparse import ArgumentParser  # noqa: PLC0415  # callbacks import this file, but rarely need a signature

    # jsonargparse finds the forwarded parameters in the source; the command line shows the same ones.
    accepted = ArgumentParser(exit_on_error=False).add_class_arguments(cls, fail_untyped=False)
    by_position = inspect.Parameter.VAR_POSITIONAL in kinds
    found = {p.name: p for p in own if p.kind not in _VARIABLE}
    for base in cls.__mro__[1:]:
        for p in _parameters(base) if "__init__" in vars(base) else ():
            if p.name in accepted and p.name not in found:
                found[p.name] = p if by_position else p.replace(kind=p.KEYWORD_ONLY)
    # With *args, the base's positional parameters come first, and the subclass's own are passed by name.
    return inspect.Signature(sorted(found.values(), key=lambda p: (p.kind, by_position and p in own)))


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(cls: type) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Configurable, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            return init(self, *args, **kwargs)  # the constructor's own error names the class
        record = self.__dict__.get("_record")
        if record is not None:  # called by a subclass's constructor
            record.enter_base(bound, args)
            check_types(init, bound.arguments)
            return init(self, *args, **kwargs)
        for name, value in bound.arguments.items():
            if value is not self:
                bound.arguments[name] = build(name, value)  # a checkpoint holds plain data
        check_types(init, bound.arguments)
        args, kwargs = bound.args[1:], bound.kwargs
        self.__dict__["_record"] = record = _Record(bound)
        self.__dict__["arguments"] = record.arguments
        try:
            init(self, *args, **kwargs)
        finally:
            del self.__dict__["_record"]
        if record.unnamed:
            raise TypeError(
                f"{type(self).__name__}: got {len(record.unnamed)} arguments by position, which a checkpoint can't "
                "store by name; give the constructor **kwargs that it passes on, and pass them by name"
            )
        return None

    recorded.__recorded__ = True  # type: ignore[attr-defined]
    recorded.__signature__ = signature  # type: ignore[attr-defined]  # Lightning reads it without unwrapping
    return recorded


class _Record:
    """The arguments of an object, collected while its constructors run, from the outermost inwards.

    Args:
        bound: arguments of the outermost constructor, as given.

    Attributes:
        arguments: arguments by name that the outermost constructor accepts.
        unnamed: positional arguments that no constructor in the MRO has bound to a name yet.
    """

    def __init__(self, bound: inspect.BoundArguments) -> None:
        self.arguments: dict[str, Any] = {}
        self.unnamed: tuple[Any, ...] = ()
        self._names = set(bound.signature.parameters)
        self._takes_more = _takes_more(bound)
        bound.apply_defaults()
        for name, value in list(bound.arguments.items())[1:]:  # without self
            kind = bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                self.unnamed = value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                self.arguments |= value
            else:
                self.arguments[name] = value

    def enter_base(self, bound: inspect.BoundArguments, args: tuple[Any, ...]) -> None:
        """Record the arguments of a base class's constructor when it starts.

        Args:
            bound: its arguments, as the subclass passes them.
            args: its positional arguments.
        """
        if not self._takes_more:
            return
        by_position = [
            name for name, p in bound.signature.parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ][1:]
        first = len(args) - len(self.unnamed)
        if first >= 0 and all(a is b for a, b in zip(args[first:], self.unnamed, strict=True)):
            named = dict(zip(by_position[first:], self.unnamed, strict=False))
            self.arguments |= named
            self.unnamed = self.unnamed[len(named) :]
        for name, parameter in bound.signature.parameters.items():
            left_out = name not in bound.arguments and parameter.kind not in _VARIABLE
            if left_out and name not in self._names:
                self.arguments[name] = parameter.default
        self._names |= set(bound.signature.parameters)
        self._takes_more = _takes_more(bound)


def _takes_more(bound: inspect.BoundArguments) -> bool:
    """Whether a constructor accepts keyword arguments that it doesn't name, through ``**kwargs``."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in bound.signature.parameters.values())


def described(x: Configurable) -> str:
    """The call that makes an object, as text, without options that are off by default.

    Example:
        >>> from ssl_modules.losses import InfoNCE
        >>> described(InfoNCE(0.2))
        "InfoNCE(temperature=0.2, l2=0.0, mode='out')"
    """
    parameters = inspect.signature(type(x)).parameters

    def is_off(name: str, value: Any) -> bool:
        return (value is None or value is False) and name in parameters and parameters[name].default is value

    shown = [f"{name}={value!r}" for name, value in x.arguments.items() if not is_off(name, value)]
    return f"{type(x).__name__}({', '.join(shown)})"


class NotStored(Exception):
    """An object that cannot be serialised as plain data."""


def class_path(cls: type) -> str:
    """The dotted import path of a class, from the outermost package whose ``__all__`` lists it.

    Example:
        >>> from ssl_modules.losses.info_nce import InfoNCE
        >>> class_path(InfoNCE)
        'ssl_modules.losses.InfoNCE'
    """
    parts = cls.__module__.split(".")
    for i in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:i]))
        if cls.__name__ in getattr(package, "__all__", ()) and getattr(package, cls.__name__) is cls:
            return f"{'.'.join(parts[:i])}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def to_config(value: Any) -> Any:
    """Return a value as plain data: unchanged, or as class path and arguments (configurables, optimisers, schedulers).

    Raises:
        NotStored: for anything else, such as a module built by hand or a lambda.
    """
    if isinstance(value, np.generic):  # NumPy's float64 is a float too, but not plain data
        value = value.item()
    if isinstance(value, Plain):
        return value
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_config(item) for key, item in value.items()}
    if isinstance(value, Configurable):
        return {"class_path": class_path(type(value)), "init_args": to_config(value.arguments)}
    if isinstance(value, functools.partial) and _is_torchs(value.func) and not value.args:
        return {"class_path": class_path(value.func), "init_args": to_config(value.keywords)}
    if _is_torchs(value):
        return {"class_path": class_path(value), "init_args": {}}
    raise NotStored(value)


def storable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments as plain data; those that cannot be serialised are marked, for :func:`build` to name."""
    config = {}
    for name, value in arguments.items():
        try:
            config[name] = to_config(value)
        except NotStored:
            config[name] = {"not_stored": class_path(type(value))}
    return config


def not_stored(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The names of the arguments that cannot be serialised, and their classes."""
    marked = {name: value for name, value in storable(arguments).items() if isinstance(value, dict)}
    return {name: value["not_stored"] for name, value in marked.items() if "not_stored" in value}


class NotInCheckpoint(ValueError):
    """The constructor needs an argument that the checkpoint could not hold.

    Args:
        name: name of the argument.
        kind: class of its value.
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(
            f"{name}: a checkpoint can't hold this {kind}; pass it again: load_from_checkpoint(path, {name}=...)"
        )
        self.name, self.kind = name, kind


def build(name: str, value: Any) -> Any:
    """Build an argument from the plain data that :func:`storable` made; live objects are returned as they are.

    Raises:
        NotInCheckpoint: if the checkpoint could not hold the argument.
        ValueError: if the data name a class that is not configurable.
    """
    if isinstance(value, list):
        return [build(name, item) for item in value]
    if isinstance(value, functools.partial):
        return _without_jsonargparse(value)
    if not isinstance(value, Mapping):
        return value
    if "not_stored" in value:
        raise NotInCheckpoint(name, value["not_stored"])
    if "class_path" not in value:
        return {key: build(name, item) for key, item in value.items()}
    cls = _load_class(name, value["class_path"])
    arguments = {key: build(name, item) for key, item in value.get("init_args", {}).items()}
    return functools.partial(cls, **arguments) if _is_torchs(cls) else cls(**arguments)


def copy_of(name: str, value: Any, kind: type[_Kind], fix: str = "") -> _Kind:
    """Return a copy of an argument, so that several modules don't share one default object.

    Args:
        name: name of the argument.
        value: value of the argument.
        kind: class of the argument.
        fix: advice at the end of the error message.

    Raises:
        TypeError: if the value is not an instance of ``kind``.
    """
    check_instance(name, value, kind, fix)
    return deepcopy(value)


def _without_jsonargparse(value: functools.partial) -> functools.partial:
    """Replace a partial that calls a class through jsonargparse, from the command line, by a partial of the class."""
    classes = [x for x in value.args if isinstance(x, type)]
    if value.func.__module__.startswith("jsonargparse.") and len(classes) == 1:
        return functools.partial(classes[0], **value.keywords)
    return value


def _is_torchs(value: Any) -> TypeGuard[type[torch.optim.Optimizer] | type[LRScheduler]]:
    """Return whether a value is a class of torch's optimisers or learning-rate schedulers."""
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer | LRScheduler)


def find_class(path: Any) -> type | None:
    """The class with a dotted name if it is already imported, else None.

    A checkpoint may come from an untrusted source, so nothing that it names is imported or called.

    Example:
        >>> find_class("ssl_modules.utils.configurable.Configurable") is Configurable, find_class("os.abort")
        (True, None)
    """
    module, _, name = str(path).rpartition(".")
    found = getattr(sys.modules.get(module), "__dict__", {}).get(name)
    if found is None and module == _PACKAGE:  # the package imports its classes on first access
        found = getattr(sys.modules[module], name, None)
    return found if isinstance(found, type) else None


def _load_class(name: str, path: str) -> type:
    cls = find_class(path)
    if cls is None:
        raise ValueError(f"{name}: there is no class {path!r}; define or import it first, or pass {name}=...")
    if not (_is_torchs(cls) or (isinstance(cls, type) and issubclass(cls, Configurable))):
        raise ValueError(
            f"{name}: {path!r} is neither a Configurable nor an optimiser or scheduler; pass {name}=... instead"
        )
    return cls
