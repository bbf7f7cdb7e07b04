"""Sphinx configuration. Build: sphinx-build -W -b html docs docs/_build (or -b man)."""

import kshell

project = "kshell"
author = "the kshell developers"
copyright = "2026, the kshell developers"
version = release = kshell.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build"]
man_pages = [("man", "kshell", "mdb for Linux", author, 1)]
