"""
A million lines of log from four replicas, kept per replica and passed on with prefixes, beside writing them straight to files.
"""

from __future__ import annotations

from _measure import beside, program, race


def main() -> None:
    line, block = "straight to files, line by line", "straight to files, by blocks of 8 KiB"
    commands = {
        "distrib, worker=4": program("log_distrib"),
        line: program("log_files", "line"),
        block: program("log_files", "block"),
    }
    beside("A million lines from four replicas", race(commands, runs=3), {line: "<= 2x"})
