"""How the documents are built: Markdown by MyST, the theme furo, and nothing from the network."""

project = "Headgate"
copyright = "the authors of Headgate"  # noqa: A001 - Sphinx's own name
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
