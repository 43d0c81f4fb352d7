"""
What ``import distrib`` costs, beside ``import attrs`` (and beside an interpreter that imports nothing).
"""

from __future__ import annotations

import sys

from _measure import beside, race, version

STATEMENTS = {
    "import distrib": "import distrib",
    "from distrib import distributed": "from distrib import distributed",
}


def main() -> None:
    attrs = f"import attrs ({version('attrs')})"
    for name, statement in STATEMENTS.items():
        commands = {name: statement, attrs: "import attrs", "nothing": "pass"}
        taken = race({name: [sys.executable, "-c", code] for name, code in commands.items()}, runs=15)
        beside(f"Whole process: {name}", taken, {attrs: "<= 1.35x" if statement == "import distrib" else ""})
