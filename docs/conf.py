"""The documentation site: ``sphinx-build -W --keep-going -b html docs OUT``. Nothing is downloaded."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import jaxvars

project = "jaxvars"
author = copyright = "The jaxvars authors"
version = release = jaxvars.__version__
html_title = f"jaxvars {version}"

#: Where the repository can be looked at, such as "https://host/name/blob/main". While it is empty, the site names a
#: file that is no page of its own instead of linking to it.
repository_url = ""

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "diagrams",
    "public_names",
    "repository",
]
exclude_patterns = ["_build"]
suppress_warnings = ["misc.highlighting_failure"]  # IPython's magics in notebooks

# Pages are written for GitHub too: its anchors, and its mermaid fences.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
myst_fence_as_directive = ["mermaid"]
nb_execution_mode = "off"  # notebooks/ keeps its outputs; tools/notebooks.py checks them
nb_merge_streams = True

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_logo = "_static/logo.svg"
html_favicon = "_static/mark.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": True,
    "light_css_variables": {"color-brand-primary": "#0b63c5", "color-brand-content": "#0b63c5"},
    "dark_css_variables": {"color-brand-primary": "#6cb0ff", "color-brand-content": "#6cb0ff"},
}
