"""
Waiting for conditions, watching processes, and running programs that may be killed.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import distrib

T = TypeVar("T")

#: All processes that a test starts have this variable, at a value of its own.
MARK = "DISTRIB_TEST_MARK"
#: Nothing takes as long as this, however busy the machine: only a hang does.
PATIENCE = 120.0
#: Options of the local engine for tests that look at something else than the terminal.
QUIET = {"echo": False}


def task(function: Callable[..., T], **keywords: Any) -> distrib.DistributedTask[..., T]:
    """
    *function* on two workers, quietly, unless *keywords* say otherwise.
    """
    given: dict[str, Any] = {"local": QUIET, **keywords}
    if not given.keys() & {"worker", "chief"}:
        given["worker"] = 2
    return distrib.distributed("tensorflow", **given)(function)


def eventually(condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """
    Wait until *condition* is true, and return what it gave.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return found


def marked(mark: str) -> dict[int, str]:
    """
    The living processes that have the mark, and their command lines.
    """
    needle = f"{MARK}={mark}".encode()
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            with suppress(OSError):  # it has ended
                if needle in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


def is_alive(pid: int) -> bool:
    """
    Whether the process is there and no zombie.
    """
    try:
        return Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def descriptors() -> dict[str, str]:
    """
    The open files of this process.
    """
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one of the listing
            found[entry.name] = str(entry.readlink())
    return found


class Leftovers:
    """
    What there was before a test, to be held against what there is after it.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.threads = set(threading.enumerate())
        gc.collect()
        self.files = descriptors()

    def check(self) -> None:
        """
        Fail if there is more now.
        """
        try:
            eventually(lambda: not marked(self.mark), "all processes to be gone", 20)
        except AssertionError:
            left = marked(self.mark)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"left running: {left}") from None
        eventually(lambda: not self._new_threads(), f"threads to end: {self._new_threads()}", 20)
        gc.collect()
        eventually(lambda: not self._new_files(), f"files to be closed: {self._new_files()}", 5)

    def _new_threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in self.threads]

    def _new_files(self) -> dict[str, str]:
        now = descriptors()
        return {number: path for number, path in now.items() if number not in self.files}


class Launcher:
    """
    Runs programs that are given as text. Their first lines are :attr:`HEAD`.
    """

    HEAD = """
        import os, signal, subprocess, sys, threading, time
        from pathlib import Path
        import distrib
        from distrib import ReplicaGroup, RunPolicy, distributed, replica

        QUIET = {"echo": False}
        MEETING = Path(sys.argv[1])
        sys.path.append(sys.argv[2])

        def sign(name=None):
            (MEETING / f".{name or replica().name}").write_text(str(os.getpid()))
            (MEETING / f".{name or replica().name}").rename(MEETING / (name or replica().name))

        def await_sign(name):
            while not (MEETING / name).exists():
                time.sleep(0.01)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meeting = folder / "meeting"
        self.meeting.mkdir(exist_ok=True)
        self.started: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """
        End those that still run.
        """
        if any(process.poll() is None for process in self.started):
            for pid in marked(os.environ[MARK]):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.communicate()

    def write(self, text: str, name: str = "program.py") -> Path:
        """
        The program as a file.
        """
        path = self.folder / name
        path.write_text(textwrap.dedent(self.HEAD) + textwrap.dedent(text))
        return path

    def start(self, text: str, **options: Any) -> subprocess.Popen[str]:
        """
        Start a program and do not wait for it.
        """
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        process = subprocess.Popen([sys.executable, str(self.write(text)), str(self.meeting), str(Path(__file__).parent)], **given)
        self.started.append(process)
        return process

    def run(self, text: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """
        Run a program to its end.
        """
        process = self.start(text, **options)
        return self.finish(process)

    def finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """
        Wait for the end of a program that was started.
        """
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def await_sign(self, name: str) -> int:
        """
        Wait for a replica to call ``sign()``; the number of its process.
        """
        path = self.meeting / name

        def has_come() -> bool:
            over = self.started and all(process.poll() is not None for process in self.started)
            if over and not path.exists():
                raise AssertionError(f"no sign of {name}: {[process.communicate() for process in self.started]}")
            return path.exists()

        eventually(has_come, f"the sign of {name}")
        return int(path.read_text())

    def sign(self, name: str) -> None:
        """
        Let a replica that calls ``await_sign()`` go on.
        """
        (self.meeting / name).touch()
