"""Shorten jsonargparse's long, nested errors to one line."""

import difflib
import inspect
import re
from collections.abc import Sequence

from jsonargparse.typing import import_object

from ssl_modules.utils.plain_checkpoint import RENAMED

_FEW = 20  # maximum number of names in an error
_PART = 4  # minimum length to match a part of a known name
_BOILERPLATE = re.compile(
    r"^[ -]*(Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Subclass types expect"
    r"|a class path \(str\)|a dict with)"
)
_TYPE = re.compile(r"Expected a (?:<class '([^']+)'>|typing\.Literal\[(.*?)\])")
_OPTION = re.compile(r"Option '([^']+)' is not accepted|unrecognized arguments: --([^= ]+)")
_YAML = re.compile(r'in "<(?:unicode|byte) string>", line (\d+), column (\d+)')
_TYPE_NAMES = {"collections.abc.Sequence": "a list", "collections.abc.Mapping": "a mapping", "NoneType": "null"}
_PLACE = re.compile(r"Parser key \"(?P<key>[^\"]+)\"|class_path '(?P<cls>[^']+)'")


def short_error(message: str) -> str:
    """The innermost cause of a nested configuration error, with the path to it and the closest valid names.

    Example:
        >>> short_error('''Parser key "model":
        ...   Problem with given class_path 'ssl_modules.losses.InfoNCE':
        ...     Option 'temprature' is not accepted
        ...   Given value: {...}''')
        "model > InfoNCE: option 'temprature' is not accepted; did you mean 'temperature'?"
    """
    if problem := _faulty_config(message):
        return problem
    said = [line for line in message.splitlines() if line.strip() and not _BOILERPLATE.search(line)]
    lines = [line for line in said if not _TYPE.search(line)]
    if not lines:
        return message
    if _PLACE.search(max(lines, key=_indent)):  # a wrong type is the only cause
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
    if kind := _TYPE.search(cause):  # the line names the first of a union's types
        others = [_TYPE.search(line) for line, i in zip(lines, indents, strict=True) if i == indents[deepest]]
        kinds = ", ".join(match[1] or match[2] for match in others if match).split(", ")
        *first, last = (_TYPE_NAMES.get(name, name) for name in dict.fromkeys(kinds))
        cause = f"expected {', '.join(first)}{' or ' if first else ''}{last}{cause[kind.end() :]}"
    if within := re.search(r"\(class_path='([^']+)'", cause):  # the class of a callable, such as an optimiser
        has_last = bool(way) and way[-1] in inspect.signature(import_object(within[1])).parameters
        way.insert(len(way) - has_last, within[1].rpartition(".")[2])
        classes.insert(0, within[1])
        cause = re.sub(r"\. Got value: Namespace\(.*", "", cause)
    if missing := re.match(r"the following arguments are required: (.*)", cause):
        names = re.sub(r"\w+\.(model|data)\b", r"--\1", missing[1])  # without the subcommand's name
        if not way:
            names = ", ".join(f"--{name.removeprefix('--')}" for name in names.split(", "))
        cause = f"{names} {'are' if ',' in names else 'is'} missing"
    elif cause.startswith("No module named"):
        cause += "; to import from this folder, run python -m ssl_modules in place of ssl-modules"
    elif option := _OPTION.search(cause):
        accepted = list(inspect.signature(import_object(classes[0])).parameters) if classes else []
        name = option[1] or (option[2].partition(".")[0] if classes else option[2])
        near = f"; it is now {RENAMED[name]}" if name in RENAMED and "loss" in accepted else None
        cause = f"option '{name}' is not accepted{near or did_you_mean(name, accepted)}"
    cause = re.sub(r'^Parser key "([^"]+)": ', r"\1: ", cause)
    return f"{' > '.join(way)}: {cause}" if way else cause


def _faulty_config(message: str) -> str | None:
    """Return the error for a config file without options or with invalid YAML, else None.

    For invalid YAML, the error names the line and the column.
    """
    if text := re.search(r"Unexpected config: (.*)", message):
        return f"config: expected options, such as model: SimCLR, got {text[1]!r}"
    place = _YAML.findall(message)
    if not place:
        return None
    line, column = place[-1]
    said = [text.rpartition("config: ")[2].strip() for text in message.splitlines()]
    problem = next((text for text in said if re.search("expected|found|not allowed", text)), "")
    option = re.search(r'Parser key "([^"]+)"', message)
    return (
        f"{option[1] if option else 'config'}: expected YAML, got an error in line {line}, column {column}"
        f"{f' ({problem})' if problem else ''}; correct it there: close brackets and quotes, and use spaces, not tabs"
    )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" -"))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown name: the closest known name, or all known names if they are few."""
    near = [k for k in known if name.lower() in k.lower()] if len(name) >= _PART else []
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= _FEW else ""
