"""Writes the reference: a page for each public name, and a page for each other module.

A package's ``__all__`` lists its public names. All other modules are internals: their pages leave public names out.
The build fails if a public name has no page.
"""

import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

# Packages in the order of the reference, each with its heading.
PACKAGES = {
    "ssl_modules": "Methods, the module and what surrounds them",
    "ssl_modules.augmentations": "Augmentations",
    "ssl_modules.encoders": "Encoders",
    "ssl_modules.extractions": "Extractions",
    "ssl_modules.similarities": "Similarities",
    "ssl_modules.losses": "Losses",
    "ssl_modules.optim": "Optimisation",
    "ssl_modules.callbacks": "Callbacks",
    "ssl_modules.evaluation": "Evaluation",
    "ssl_modules.datamodules": "Data modules",
    "ssl_modules.interop.bolts": "Weights of lightning-bolts",
    "ssl_modules.cli": "Command line",
}
NO_PAGE = {"__version__"}
ROOT = Path(__file__).parents[2]
SOURCE = re.compile(r"\[\d+\] ")  # in a list of papers
BAR = re.compile(r"(?<!`)\|(?!`)")
STAR = re.compile(r"([\w`])\*(?=[\s,.;:)]|$)")
FOLDERS = {"ssl_modules": "ssl_modules", "callbacks": "ssl_modules.callbacks", "datamodules": "ssl_modules.datamodules"}


def modules() -> list[str]:
    """The names of all modules of the package."""
    return sorted(
        ".".join((name, *file.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__")
        for folder, name in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
        if file.name != "__main__.py"  # importing it runs the command
    )


def own_names(module: Any) -> list[str]:
    """The public functions and classes that a module defines."""
    defined = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
    return sorted(name for name in defined if not name.startswith("_"))


def public() -> dict[str, list[str]]:
    """The public names of each package."""
    names = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        names[package] = [name for name in getattr(module, "__all__", own_names(module)) if name not in NO_PAGE]
    return names


class Paths:
    """Public dotted path of each object, by identity."""

    def __init__(self) -> None:
        self.names = public()
        self._paths: dict[int, str] = {}
        for package, names in self.names.items():
            for name in names:
                value = getattr(importlib.import_module(package), name)
                if getattr(value, "__module__", None) is not None:
                    self._paths.setdefault(id(value), f"{package}.{name}")

    def of(self, value: Any) -> str | None:
        return self._paths.get(id(value))


def write_pages(app: Sphinx, config: Config) -> None:
    """Write a page for each package, which lists its names, and one that lists the internal modules."""
    paths = app.reference_paths = Paths()  # type: ignore[attr-defined]
    app.reference_properties = {}  # type: ignore[attr-defined]
    folder = Path(app.srcdir) / "reference"
    for package, heading in PACKAGES.items():
        names = [f"{package}.{name}" for name in paths.names[package]]
        documented = [name for name in names if paths.of(find(name)) in (name, None)]
        elsewhere = [name for name in names if name not in documented]
        text = [heading, "=" * len(heading), "", inspect.getdoc(importlib.import_module(package)) or "", ""]
        text += [
            f"Import from ``{package}``.",
            "",
            ".. autosummary::",
            "   :toctree: generated",
            "   :nosignatures:",
            "",
        ]
        text += [f"   ~{name}" for name in documented]
        text += ["", *(f"* :obj:`{paths.of(find(name))}`" for name in elsewhere), ""]
        put(folder / f"{package}.rst", "\n".join(text))
    internal = [name for name in modules() if name not in PACKAGES and shown(importlib.import_module(name), paths)]
    heading = "Internal modules"
    text = [heading, "=" * len(heading), "", "Names that other names' pages refer to. They may change at any release."]
    text += ["", ".. autosummary::", "   :toctree: generated", "", *(f"   {name}" for name in internal), ""]
    put(folder / "internal.rst", "\n".join(text))


def put(path: Path, text: str) -> None:
    """Write a file unless it has this text already, so that Sphinx doesn't read it again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def shown(module: Any, paths: Paths) -> bool:
    return any(paths.of(getattr(module, name)) is None for name in own_names(module))


@functools.cache
def find(path: str) -> Any:
    """The object with a dotted path, or None."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    owner = find(module) if "." in module else None
    return None if owner is None else getattr(owner, name, None)


def as_markup(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Turn plain text into markup.

    An indented block after a line that ends with a colon is a formula, and literal, unless it is a list. Outside of
    formulas, ``|`` and ``*`` are plain characters.
    """
    if what == "data":
        lines[:] = [f"A dict with the keys {', '.join(map(repr, value))}."] if isinstance(value, dict) else []
    colon = None  # index of the line that a formula belongs to
    source = False
    for i, line in enumerate(lines):
        if colon is None and i > 1 and not lines[i - 1] and lines[i - 2].endswith(":"):
            if depth(line) > depth(lines[i - 2]) and not line.lstrip().startswith((">>>", "- ")):
                colon = i - 2
                lines[colon] += ":"
        elif colon is not None and line and depth(line) <= depth(lines[colon]):
            colon = None
        if SOURCE.match(line):
            lines[i], source = f"* {line}", True
        elif source:
            lines[i] = f"  {line.strip()}".rstrip()
        if colon is None and not line.lstrip().startswith((">>>", "...")):
            lines[i] = STAR.sub(r"\1\\ \*", BAR.sub(r"\|", lines[i]))
    if what == "property":
        app.reference_properties[name] = list(lines)  # type: ignore[attr-defined]


def restore(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Undo two changes by napoleon.

    It takes the first words of a property for a type if a colon follows. It joins the lines of an error's description,
    although docutils ends a paragraph only at an empty line.
    """
    if what == "property":
        lines[:] = app.reference_properties.pop(name)  # type: ignore[attr-defined]
    lines[:] = [part.rstrip() for line in lines for part in line.split("\n")]


def depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def skip(app: Sphinx, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave public names out of the pages of internal modules."""
    if what == "module" and app.reference_paths.of(value) is not None:  # type: ignore[attr-defined]
        return True
    return None


def resolve(app: Sphinx, env: BuildEnvironment, node: Any, child: nodes.Node) -> nodes.Node | None:
    """Link a name of the module that defines it to the page of the public name."""
    if node.get("refdomain") != "py":
        return None
    target, module, cls = (node.get(key) or "" for key in ("reftarget", "py:module", "py:class"))
    owner = find(f"{module}.{cls}")
    home = getattr(owner, "__module__", module)
    for prefix in (f"{module}.{cls}.", f"{home}.", f"{module}.", ""):
        value = find(prefix + target)
        path = app.reference_paths.of(value) or qualified(value, app.reference_paths)  # type: ignore[attr-defined]
        if path is not None and path != target:
            domain = env.get_domain("py")
            found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, child)
            if found is not None:
                return found
    # A package's page shows the first sentences of docstrings, out of reach of their own names.
    return child if Path(node["refdoc"]).name in {*PACKAGES, "internal"} else None


def qualified(value: Any, paths: Paths) -> str | None:
    """The dotted path of a class, function or method where it is defined, or under its class's public path."""
    if not hasattr(value, "__qualname__"):
        return None
    owner, _, rest = value.__qualname__.partition(".")
    public_owner = paths.of(find(f"{value.__module__}.{owner}")) if rest else None
    return f"{public_owner}.{rest}" if public_owner else f"{value.__module__}.{value.__qualname__}"


def check(app: Sphinx, exception: Exception | None) -> None:
    """Raise an error if a public name has no page."""
    if exception is not None:
        return
    objects = app.env.get_domain("py").objects  # type: ignore[attr-defined]
    paths = app.reference_paths  # type: ignore[attr-defined]
    names = [f"{package}.{name}" for package, names in paths.names.items() for name in names]
    missing = [name for name in names if name not in objects and paths.of(find(name)) not in objects]
    if missing:
        raise ExtensionError(f"public names without a page: {', '.join(missing)}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", write_pages)  # before Sphinx looks for pages
    app.connect("autodoc-process-docstring", as_markup, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", restore, priority=900)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
