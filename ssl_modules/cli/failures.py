"""Recognise the errors of a run that a configured value causes, to report them in one line."""

import inspect
import re
import sys
import traceback
from functools import partial
from typing import Any

from ssl_modules.module import ContrastiveModule

_LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}
_TOOLS = {"ssl_modules", *_LIGHTNING, "torch", "timm", "jsonargparse", "fsspec"} | sys.stdlib_module_names
_NAMED = re.compile(r"[\w.]+( > [\w.]+)*: ")  # our errors start with the argument's name


class Conflict(ValueError):
    """Two configured values contradict each other."""


def cause_in_configuration(error: Exception, building: bool) -> str | None:
    """The one-line message of an error, if a configured value causes it.

    Args:
        error: a ValueError, TypeError or FileNotFoundError, or Lightning's MisconfigurationException.
        building: whether the error came while the configured objects were built; later errors have other causes too.

    Returns:
        The message, or None if the cause may be a fault in code, such as the user's own, which needs the traceback.
    """
    cause: BaseException = error
    while _packages(cause)[-1] == "jsonargparse" and cause.__cause__ is not None:
        cause = cause.__cause__  # jsonargparse has wrapped the error in a message of its own
    if isinstance(cause, Conflict):
        return str(cause)
    packages = _packages(cause)
    if packages[-1] == "ssl_modules" and not isinstance(cause, FileNotFoundError):
        is_meant = _NAMED.match(str(cause)) is not None
    elif packages[-1] in _LIGHTNING:
        is_meant = building or not isinstance(cause, TypeError)
    else:
        is_meant = building or isinstance(cause, FileNotFoundError)
    seen = packages[-1:] if building else packages
    return str(error) if is_meant and _TOOLS.issuperset(seen) else None


def _packages(error: BaseException) -> list[str]:
    """The packages of the functions in an error's traceback; the function that raised it is last."""
    return [f.f_globals.get("__name__", "").partition(".")[0] for f, _ in traceback.walk_tb(error.__traceback__)]


def cannot_hold(name: str, kind: str) -> str:
    """The message that a checkpoint can't hold an argument, for users of the command line."""
    return (
        f"{name}: a checkpoint can't hold this {kind}, which evaluate and export need; train a class of your own that "
        f"builds it, with super().__init__({name}=..., **settings), or read the checkpoint in Python with "
        f"load_module(path, {name}=...)"
    )


def check_optimizer(module: ContrastiveModule) -> None:
    """Build a module's optimiser to check its arguments, and discard it.

    Raises:
        Conflict: if the optimiser doesn't accept its arguments.
    """
    optimizer: Any = module.optimizer
    name = "model > optimizer"
    if isinstance(optimizer, partial):
        name += f" > {optimizer.func.__name__}"
        parameters = inspect.signature(optimizer.func).parameters
        for key, value in optimizer.keywords.items():
            if isinstance(value, str) and isinstance(getattr(parameters.get(key), "default", None), float):
                raise Conflict(f"{name} > {key}: expected a number, got {value!r}")
    try:
        optimizer(module.param_groups())
    except (ValueError, TypeError) as error:
        if (message := cause_in_configuration(error, building=True)) is None:
            raise
        raise Conflict(f"{name}: {message}") from error
