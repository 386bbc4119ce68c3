"""Sphinx directives that generate parts of pages from the code and from other pages.

```{recipe} SimCLR``` the default arguments of a method
```{configs} simclr``` the configs of examples/configs that train the method
```{differences} SimCLR``` the method's section of differences.md
```{diagram} simclr``` a picture of docs/pictures, in its light and its dark form
"""

import functools
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from ssl_modules import methods
from ssl_modules.augmentations import policy
from ssl_modules.utils.configurable import Configurable, class_path, described

ROOT = Path(__file__).parents[2]
SIZE = 32  # pixels; the default image_size


class Written(Directive):
    """A directive that generates Markdown."""

    required_arguments = 1

    def markdown(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        container = nodes.container()
        lines = StringList(self.markdown().splitlines(), source=self.state_machine.document.current_source or "")
        self.state.nested_parse(lines, self.content_offset, container)
        return container.children


class Recipe(Written):
    """A table of a method's default arguments, and the operations of its augmentation."""

    def markdown(self) -> str:
        name = self.arguments[0]
        cls = getattr(methods, name)
        rows = ["| argument | default | |", "|---|---|---|"]
        for parameter in inspect.signature(cls.__init__).parameters.values():
            if parameter.default is not parameter.empty:
                rows.append(f"| `{parameter.name}` | `{written(parameter.default)}` | {link(parameter.default)} |")
        augmentation = policy(inspect.signature(cls).parameters["augmentation"].default, SIZE)
        return "\n".join(
            [
                *rows,
                "",
                f"`print({name}().augmentation)` shows the augmentation at the default {SIZE} pixels:",
                "",
                "```text",
                *repr(augmentation).splitlines(),
                "```",
            ]
        )


def written(value: Any) -> str:
    """Return a default as text, such as ``SGD(lr=0.03, momentum=0.9)``."""
    if isinstance(value, Configurable):
        return described(value)
    if isinstance(value, functools.partial):
        arguments = ", ".join(f"{name}={argument!r}" for name, argument in value.keywords.items())
        return f"{value.func.__name__}({arguments})"
    return repr(value)


def link(value: Any) -> str:
    """Return a link to the page of a default's class."""
    if isinstance(value, Configurable):
        return f"{{py:obj}}`~{class_path(type(value))}`"
    return "from timm" if isinstance(value, functools.partial) and value.func.__module__.startswith("timm") else ""


class Configs(Written):
    """A table of the configs for a method, with the first line of each."""

    def markdown(self) -> str:
        name = self.arguments[0]
        rows = ["| config | what it trains |", "|---|---|"]
        for path in sorted((ROOT / "examples" / "configs").glob(f"{name}_*.yaml")):
            first = re.match(r"# (.*)", path.read_text())
            rows.append(f"| `examples/configs/{path.name}` | {first[1] if first else ''} |")
        return "\n".join(rows)


class Differences(Written):
    """The section of a method in differences.md, whose heading names the method."""

    def markdown(self) -> str:
        name = self.arguments[0]
        for section in re.split(r"^## ", (ROOT / "docs" / "differences.md").read_text(), flags=re.MULTILINE):
            heading, _, text = section.partition("\n")
            if name in heading.split():
                return text
        raise self.error(f"differences.md has no section for {name}")


class Diagram(Written):
    """A picture of docs/pictures that fits the page's colours."""

    final_argument_whitespace = True
    option_spec = {"alt": directives.unchanged_required}

    def markdown(self) -> str:
        env = self.state.document.settings.env
        up = "../" * env.docname.count("/")
        lines = ["::::{div} wide-picture"]
        for theme in ("light", "dark"):
            lines += [f":::{{image}} {up}pictures/{self.arguments[0]}_{theme}.svg", f":class: only-{theme}"]
            lines += [f":alt: {self.options['alt']}", ":::"]
        return "\n".join([*lines, "::::"])


def setup(app: Sphinx) -> dict[str, bool]:
    for name, directive in (
        ("recipe", Recipe),
        ("configs", Configs),
        ("differences", Differences),
        ("diagram", Diagram),
    ):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
