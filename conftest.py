"""
Runs the examples of the documentation: ``pytest README.md docs src``, as ``nox -s docs`` does.
"""

from __future__ import annotations

from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from importlib.util import find_spec

# Only that session installs Sybil; the tests do without.
if find_spec("sybil") is not None:
    from hypothesis import HealthCheck, settings
    from sybil import Sybil
    from sybil.parsers.myst import DocTestDirectiveParser, PythonCodeBlockParser, SkipParser
    from sybil.parsers.rest import DocTestParser

    # Drawing a first job takes as long as it takes on a busy machine; what is printed is the same in CI.
    settings.register_profile("docs", deadline=None, print_blob=False, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("docs")

    FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE
    pages = Sybil(
        parsers=[DocTestDirectiveParser(optionflags=FLAGS), PythonCodeBlockParser(doctest_optionflags=FLAGS), SkipParser()],
        patterns=["*.md"],
    )
    docstrings = Sybil(parsers=[DocTestParser(optionflags=FLAGS)], patterns=["src/distrib/*.py", "src/distrib/**/*.py"])
    pytest_collect_file = (pages + docstrings).pytest()

#: What Sphinx has made of the pages.
collect_ignore = ["docs/_build"]
