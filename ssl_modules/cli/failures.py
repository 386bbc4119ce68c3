"""Errors of a run: which of them a configured value causes, so that one line says it."""

import inspect
import re
import sys
import traceback
from functools import partial
from typing import Any

from ssl_modules.module import ContrastiveModule

_LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}
_TOOLS = {"ssl_modules", *_LIGHTNING, "torch", "timm", "jsonargparse", "fsspec"} | sys.stdlib_module_names
_NAMED = re.compile(r"[\w.]+( > [\w.]+)*: ")  # an error of ours names the argument first


class Conflict(ValueError):
    """Two configured values that can't both be."""


def cause_in_configuration(error: Exception, building: bool) -> str | None:
    """The line that tells an error which a configured value causes.

    Args:
        error: a ValueError, TypeError or FileNotFoundError, or Lightning's MisconfigurationException.
        building: whether it came while objects were built of what is configured, which a run has more causes beside.

    Returns:
        None if the cause may be a fault in the code, such as one's own: then the traceback is wanted.
    """
    cause: BaseException = error
    while _packages(cause)[-1] == "jsonargparse" and cause.__cause__ is not None:
        cause = cause.__cause__  # jsonargparse has added words of its own
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
    """Of the functions that an error came through, the one that raised it last."""
    return [f.f_globals.get("__name__", "").partition(".")[0] for f, _ in traceback.walk_tb(error.__traceback__)]


def cannot_hold(name: str, kind: str) -> str:
    """The line about an argument that no checkpoint holds, for those who have the command line alone."""
    return (
        f"{name}: a checkpoint can't hold this {kind}, which evaluate and export need; train a class of your own that "
        f"builds it, with super().__init__({name}=..., **settings), or read the checkpoint in Python with "
        f"load_module(path, {name}=...)"
    )


def check_optimizer(module: ContrastiveModule) -> None:
    """Build a module's optimiser, and drop it.

    Raises:
        Conflict: if the optimiser doesn't take its arguments.
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
