"""
The page that shows how to write a backend shows the folder that is there to be copied.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distrib import Backend

ROOT = Path(__file__).parent.parent.parent
TEMPLATE = ROOT / "examples" / "own_backend"
PAGE = (ROOT / "docs" / "how-to" / "own-backend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|toml)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATE.iterdir() if path.is_file()))
def test_every_file_of_the_template_is_on_the_page(name: str) -> None:
    """
    Word by word; and the page's examples are run with the documentation.
    """
    assert (TEMPLATE / name).read_text(encoding="utf-8") in BLOCKS


def test_the_page_names_what_there_is() -> None:
    """
    Everything that a backend can say is on the page, and nothing else is in its tables.
    """
    rows = re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)", row)} - {"Role"}
    public = {name for name in vars(Backend) | Backend.__annotations__ if not name.startswith("_")}
    assert named == public - {"role"}  # the look-up of a role is for those who call a backend


def test_a_whole_backend_is_short() -> None:
    """
    A complete backend, with options, a rule, an environment and documentation, takes at most 60 lines.
    """
    assert len((TEMPLATE / "distrib_gossip.py").read_text(encoding="utf-8").splitlines()) <= 60
