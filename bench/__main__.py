"""
``python bench`` runs all benches, ``python bench imports noop`` those two.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys

BENCHES = ("imports", "noop", "training", "ddp", "many", "planning", "failure", "logs", "following")


def main(names: list[str]) -> None:
    if unknown := set(names) - set(BENCHES):
        raise SystemExit(f"no bench {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    for name in names or BENCHES:
        importlib.import_module(name).main()


if __name__ == "__main__":
    main(sys.argv[1:])
