"""
Sphinx' settings.
"""

project = "distrib"
author = "The distrib authors"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "distrib"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The standard library's and other packages' names, and type variables, are not links: looking them up would need a network while building.
nitpick_ignore_regex = [(r"py:.*", r"(?!distrib(\.|$)).*"), (r"py:.*", r"distrib\..*\.(P|P_rest|R|R_co|S|T|V_co)")]
