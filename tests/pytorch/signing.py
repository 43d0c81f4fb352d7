"""
How processes of the tests say who they are.
"""

from pathlib import Path


def sign(path: Path, number: int) -> None:
    """
    Write a process's number down, whole or not at all: it may be stopped at any moment.
    """
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(str(number))
    hidden.rename(path)
