"""Sphinx's configuration of the site: ``make docs`` builds it."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

from ssl_modules.version import __version__

project = "ssl-modules"
author = "the authors of ssl-modules"
copyright = "the authors of ssl-modules, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
    "reference",
    "recipes",
    "notebooks",
]
exclude_patterns = ["_build", "extensions"]
templates_path = ["_templates"]
nitpicky = True
# Other projects' inventories would have to be downloaded, and without them their names have no page to link to.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|torchvision|torchmetrics|lightning|lightning_utilities|pytorch_lightning|timm|numpy|np)(\..*)?",
    ),
    (
        r"py:.*",
        r"(PIL|matplotlib|sklearn|jsonargparse|argparse|pathlib|collections|functools|typing|abc|types|inspect)(\..*)?",
    ),
    (r"py:class", r"ssl_modules\.(.*\.)?(_Kind|Read)"),  # type variables
]

# Pages
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "force" if os.environ.get("NOTEBOOKS") == "run" else "off"
nb_execution_timeout = 600
nb_output_stderr = "remove"
nb_render_markdown_format = "myst"  # tables
nb_execution_raise_on_error = True
html_theme = "furo"
html_title = f"ssl-modules {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"

# Reference
autosummary_generate = True
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
