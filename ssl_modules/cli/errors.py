"""Errors of jsonargparse, which are nested and long, in a line."""

import difflib
import inspect
import re
from collections.abc import Sequence

from jsonargparse.typing import import_object

from ssl_modules import augmentations, datamodules, extractions, losses, methods, similarities
from ssl_modules.utils.plain_checkpoint import RENAMED

_FEW = 20
_PARTS = (datamodules, augmentations, extractions, similarities, losses)
_CLASSES = [name for part in _PARTS for name in dir(part) if name[0].isupper()]
_BOILERPLATE = re.compile(r"^[ -]*(Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>)")
_TYPE = re.compile(r"Expected a <class '([^']+)'>")
_PLACE = re.compile(r"Parser key \"(?P<key>[^\"]+)\"|class_path '(?P<cls>[^']+)'")


def short_error(message: str) -> str:
    """The innermost cause of a nested configuration error, with the way to it and the nearest right names.

    Example:
        >>> short_error('''Parser key "model":
        ...   Problem with given class_path 'ssl_modules.losses.InfoNCE':
        ...     Option 'temprature' is not accepted
        ...   Given value: {...}''')
        "model > InfoNCE: option 'temprature' is not accepted; did you mean 'temperature'?"
    """
    said = [line for line in message.splitlines() if line.strip() and not _BOILERPLATE.search(line)]
    lines = [line for line in said if not _TYPE.search(line)]
    if not lines:
        return message
    if _PLACE.search(max(lines, key=_indent)):  # nothing but a wrong type was said of it
        lines = said
    indents = [_indent(line) for line in lines]
    deepest = max(range(len(lines)), key=lambda i: indents[i])
    way: list[str] = []
    classes: list[str] = []
    indent = indents[deepest]
    for i in reversed(range(deepest)):  # up through the lines that enclose the deepest one
        if indents[i] < indent and (match := _PLACE.search(lines[i])):
            indent = indents[i]
            way.insert(0, match["key"] or match["cls"].rpartition(".")[2])
            if match["cls"]:
                classes.append(match["cls"])
    cause = re.sub(r"^[ -]*", "", lines[deepest])
    if within := re.search(r"\(class_path='([^']+)'", cause):  # of a callable, an optimiser
        way.append(within[1].rpartition(".")[2])
        classes.insert(0, within[1])
    if option := re.search(r"Option '([^']+)' is not accepted", cause):
        accepted = list(inspect.signature(import_object(classes[0])).parameters) if classes else []
        near = f"; it is now {RENAMED[option[1]]}" if option[1] in RENAMED and "loss" in accepted else None
        cause = f"option '{option[1]}' is not accepted{near or did_you_mean(option[1], accepted)}"
    elif name := re.match(r"Expected a dot import path string: (.*)", cause):
        known = methods.__all__ if way == ["model"] else _CLASSES
        cause = f"there is no class {name[1]!r}{did_you_mean(name[1], known)}"
    cause = _TYPE.sub(r"expected \1", cause)
    return f"{' > '.join(way)}: {cause}" if way else cause


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" -"))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """What follows an unknown name in an error: the known name that is nearest, or a few known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= _FEW else ""
