"""Copies the notebooks of ``examples/notebooks`` into the site's sources."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]


def copy(app: Sphinx, config: Config) -> None:
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        copied = Path(app.srcdir) / "notebooks" / path.name
        if not copied.exists() or copied.read_bytes() != path.read_bytes():
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copied)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", copy)  # before Sphinx looks for pages
    return {"parallel_read_safe": True, "parallel_write_safe": True}
