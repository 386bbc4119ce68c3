"""The command line's parser: objects as defaults, short help, and errors of one line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from inspect import signature
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace, _typehints
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse._loaders_dumpers import get_loader_exceptions, load_value
from jsonargparse._typehints import ActionTypeHint
from jsonargparse._util import NestedArg
from jsonargparse.typing import import_object
from lightning.pytorch.cli import LightningArgumentParser

from ssl_modules.cli.errors import did_you_mean, short_error
from ssl_modules.cli.names import refuse_wrong_value, with_class
from ssl_modules.datamodules import BaseDataModule
from ssl_modules.module import ContrastiveModule
from ssl_modules.utils.configurable import Configurable, build, class_path, to_config

_FEW = 20  # maximum number of subclasses in help


class Help(DefaultHelpFormatter):
    """Help that lists the subclasses of our own base classes, but not all modules and optimisers of torch."""

    def _expand_help(self, action: Any) -> str:
        def if_few(match: re.Match) -> str:
            return match[0] if match[0].count(",") <= _FEW else ""

        return plain(re.sub(r", known subclasses: [^)]*", if_few, super()._expand_help(action)))

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and plain(heading))

    def add_text(self, text: str | None) -> None:
        super().add_text(text and plain(text))


def plain(text: str) -> str:
    """Remove the markup from a docstring.

    Example:
        >>> plain("see :class:`~ssl_modules.losses.InfoNCE`, with ``k=5``")
        'see InfoNCE, with k=5'
    """
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``", "")


class Parser(LightningArgumentParser):
    """A parser whose errors name the place, the problem and valid values in one line.

    A default that is an object, such as a method's default loss, stays an object until it is written out. Options
    without a class change arguments of that object; a class given in its place starts from its own defaults.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Abbreviations would hide misspelt options: argparse would read --lr as an abbreviation of --lr_monitor.
        super().__init__(*args, formatter_class=Help, allow_abbrev=False, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Build a default object again that jsonargparse has read from the source as class path and arguments."""
        default = kwargs.get("default")
        if isinstance(default, dict) and "class_path" in default:
            with suppress(ValueError):  # the class is neither ours nor an optimiser
                kwargs["default"] = build("default", {**default, "class_path": _imported(default["class_path"])})
        action = super().add_argument(*args, **kwargs)
        if isinstance(action, ActionTypeHint):
            action.__class__ = _Option
        return action

    def let_be_null(self, key: str) -> None:
        """Accept ``null`` for a class under ``key``, as an option and in a config file; its object is then None."""
        next(action for action in self._actions if action.dest == key).__class__ = _OptionalClass
        group: Any = next(group for group in self._action_groups if getattr(group, "dest", None) == key)
        build_class = group.instantiate_class

        def unless_null(group: Any, config: Namespace) -> None:
            if config.get(key, group) is not None:
                build_class(group, config)

        group.instantiate_class = unless_null

    def dump(self, cfg: Any, *args: Any, **kwargs: Any) -> str:
        """The configuration as text, with objects written as class path and arguments."""
        return super().dump(_written_out(cfg), *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a nested parser: the outermost parser reports its error
            super().error(message, ex)
        self.exit(2, f"error: {short_error(message)}{self._nearest_option(message)}\n")

    def _nearest_option(self, message: str) -> str:
        """The closest option, if the unknown one is outside of model and data; jsonargparse refuses these first."""
        if unknown := re.match(r"unrecognized arguments: --(?P<option>[^= ]+)", message):
            return _did_you_mean_option(unknown["option"], [action.dest for action in self._all_actions()])
        unknown = re.match(r"Subcommand '(?P<command>[^']+)' does not accept option '(?P<option>[^']+)'", message)
        if unknown is None:
            return ""
        parsers = next(action.choices for action in self._actions if isinstance(action.choices, Mapping))
        return did_you_mean(unknown["option"], [action.dest for action in parsers[unknown["command"]]._actions])

    def _all_actions(self) -> Iterator[Any]:
        """Yield the actions of the parser and of its subcommands."""
        for action in self._actions:
            yield action
            if isinstance(action.choices, Mapping):
                for parser in action.choices.values():
                    yield from parser._actions


def _did_you_mean_option(option: str, known: list[str]) -> str:
    """Suggest the options that end with the name of an unknown option, or else the option closest to it."""
    data, model = signature(BaseDataModule).parameters, signature(ContrastiveModule).parameters
    inner = [*(f"data.{name}" for name in data), *(f"model.{name}" for name in model), "model.optimizer.lr"]
    same = dict.fromkeys(name for name in [*known, *inner] if name.endswith(f".{option}"))
    if same:
        return f"; did you mean {' or '.join(f'--{name}' for name in same)}?"
    near = difflib.get_close_matches(option, known, n=1)
    return f"; did you mean --{near[0]}?" if near else ""


class _Option(ActionTypeHint):
    """An option whose default may be an object, and whose value may be any YAML value."""

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
        previous = self.default if cfg is None else cfg.get(self.dest, self.default)
        refuse_wrong_value(self.dest, self._typehint, _read(value), previous)
        value = with_class(self._typehint, value)
        if _is_object(previous):  # as a configuration, so that options can change some of its arguments
            cfg = Namespace({self.dest: as_namespace(to_config(previous))})
        if isinstance(value, NestedArg) and "." in value.key and _takes_classes(self):
            value = NestedArg(value.key, _Unread(value.val))
        return super()._check_type(value, append, cfg, mode)


class _OptionalClass(_ActionConfigLoad):
    """An option that takes the arguments of a class, or ``null``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _, namespace, value, *_ = args
        if _read(value) is None:
            namespace[self.dest] = None
            return None
        return super().__call__(*args, **kwargs)


class _Unread(str):
    """Option text that only the innermost parser converts; jsonargparse would pass ``null`` on to it as ``None``."""


def _read(value: Any) -> Any:
    """An option's text, parsed as YAML."""
    if isinstance(value, str):
        with suppress(*get_loader_exceptions()):
            return load_value(value, simple_types=True)
    return value


def _takes_classes(option: ActionTypeHint) -> bool:
    kind = option._typehint
    return option.is_subclass_typehint(kind, all_subtypes=False) or option.is_return_subclass_typehint(kind)


def _is_object(value: Any) -> bool:
    return isinstance(value, Configurable | partial)


def as_namespace(value: Any) -> Any:
    """Plain data with dictionaries as jsonargparse's Namespace."""
    if isinstance(value, dict):
        return Namespace({key: as_namespace(item) for key, item in value.items()})
    return [as_namespace(item) for item in value] if isinstance(value, list) else value


def _imported(path: str) -> str:
    return class_path(import_object(path))


def _written_out(value: Any) -> Any:
    if _is_object(value):
        return as_namespace(to_config(value))
    if isinstance(value, Namespace):
        return Namespace({key: _written_out(item) for key, item in vars(value).items()})
    return value


@contextmanager
def swapped_classes_inherit_nothing() -> Iterator[None]:
    """Context in which a class that replaces another one takes over none of its arguments.

    jsonargparse keeps the arguments whose names the new class accepts: AdamW would get the weight decay of LARS.
    """

    def discard(parser: Any, previous: Any, value: Any) -> None:
        if previous and "init_args" in previous and _imported(previous["class_path"]) != _imported(value["class_path"]):
            previous["init_args"] = Namespace()
            previous.pop("dict_kwargs", None)

    original = _typehints.discard_init_args_on_class_path_change
    _typehints.discard_init_args_on_class_path_change = discard
    try:
        yield
    finally:
        _typehints.discard_init_args_on_class_path_change = original
