"""
A million lines from four processes, each straight into a file of its own: ``log_files.py line`` flushes each line, as a terminal
or a log that is followed needs it; ``log_files.py block`` flushes every 8 KiB.
"""

import multiprocessing
import sys
import tempfile
from pathlib import Path


def talk(path: str, buffering: str, lines: int) -> None:
    """
    Print *lines* lines into a file.
    """
    with Path(path).open("w", buffering=1 if buffering == "line" else -1) as file:
        for number in range(lines):
            print("step", number, "loss 0.1234 accuracy 0.9876", file=file)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        talkers = [context.Process(target=talk, args=(f"{folder}/{index}.log", sys.argv[1], 250_000)) for index in range(4)]
        for talker in talkers:
            talker.start()
        for talker in talkers:
            talker.join()
