"""
What the tests of the local engine share: a history of their own, and the proof that nothing is left of any run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from watching import MARK, Launcher, Leftovers


@pytest.fixture(name="state", autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    The folder of the history, new for each test.
    """
    folder = tmp_path / "state"
    monkeypatch.setenv("DISTRIB_STATE_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _nothing_left(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    After each test no process that it started is left, in this process no thread and no open file.
    """
    mark = f"{os.getpid()}-{os.urandom(6).hex()}"
    monkeypatch.setenv(MARK, mark)
    leftovers = Leftovers(mark)
    yield
    leftovers.check()


@pytest.fixture(name="launcher")
def _launcher(tmp_path: Path) -> Iterator[Launcher]:
    """
    Programs that submit runs, each in a process of its own.
    """
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.close()


@pytest.fixture(name="meeting")
def _meeting(tmp_path: Path) -> Path:
    """
    A folder in which replicas leave signs for the test, and the test for them.
    """
    folder = tmp_path / "meeting"
    folder.mkdir(exist_ok=True)
    return folder
