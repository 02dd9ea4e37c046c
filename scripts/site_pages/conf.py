"""Sphinx's settings; `python scripts/build_site.py` is the command. Why Sphinx: CONTRIBUTING.md."""

import sys
from pathlib import Path

import attnlab
from site_pages.docstrings import restructured

project, author, copyright = "attnlab", "The attnlab developers", "The attnlab developers"
release = version = attnlab.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
myst_enable_extensions = ["html_admonition"]
suppress_warnings: list[str] = []
root_doc = "index"
exclude_patterns: list[str] = []
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
viewcode_line_numbers = False
highlight_language = "text"
html_theme = "pydata_sphinx_theme"
html_title = "attnlab"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_last_updated_fmt = None
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "attnlab"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navigation_depth": 2,
    "show_nav_level": 1,
    "show_toc_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "pygments_light_style": "default",
    "pygments_dark_style": "monokai",
    "icon_links": [],
}


def setup(app):
    app.connect("autodoc-process-docstring", _plain_text)


def _plain_text(app, what, name, thing, options, lines):
    lines[:] = restructured("\n".join(lines))


assert sys.flags.optimize == 0  # docstrings are there
