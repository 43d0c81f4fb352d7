"""
Programs as the thing to run: one path with functions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import distrib
from distrib import Command, InvalidJobError, ReplicaFailedError, RunState, distributed, launch

ECHO = {"echo": False}


def script(text: str) -> list[str]:
    """
    The command that runs *text* in a fresh interpreter.
    """
    return [sys.executable, "-c", text]


def test_a_program_finds_its_place() -> None:
    """
    The program sees the framework's environment and its replica, as a function does.
    """
    text = """
import json, os, distrib
me = distrib.replica()
task = json.loads(os.environ["TF_CONFIG"])["task"]
assert task == {"type": me.role, "index": me.index}, task
print("I am", me.name, "of", me.world_size)
"""
    run = distributed("tensorflow", worker=2, local=ECHO)(Command(script(text))).submit()
    assert run.result(60) is None
    assert sorted(run.logs()) == ["[worker-0] I am worker-0 of 2", "[worker-1] I am worker-1 of 2"]
    assert list(run.results()["worker"]) == [None, None]


def test_arguments_are_not_read_by_a_shell(tmp_path: Path) -> None:
    """
    Every argument arrives as it was written.
    """
    arguments = ["$HOME", "a b", "`id`", "*", "", "line\nbreak", "ü"]
    text = "import sys, json; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"
    launch([*script(text), tmp_path / "seen", *arguments], framework="tensorflow", worker=1, local=ECHO)
    assert (tmp_path / "seen").read_text() == '["$HOME", "a b", "`id`", "*", "", "line\\nbreak", "\\u00fc"]'


@pytest.mark.parametrize(
    ("command", "exit_code", "signal", "said"),
    [
        (script("raise SystemExit(7)"), 7, None, "ended with exit code 7"),
        (script("import os; os.kill(os.getpid(), 9)"), None, 9, "signal 9 (SIGKILL)"),
        (["no-such-program-anywhere"], 1, None, "the program cannot be started: No such file or directory: 'no-such-program-anywhere'"),
    ],
)
def test_a_failing_program_fails_the_run(command: list[str], exit_code: int | None, signal: int | None, said: str) -> None:
    """
    Its exit code or signal is reported as a function's would be.
    """
    with pytest.raises(ReplicaFailedError, match="worker-0") as caught:
        launch(command, framework="tensorflow", worker=1, local=ECHO)
    assert (caught.value.exit_code, caught.value.signal) == (exit_code, signal)
    assert said in str(caught.value)


def test_a_program_is_heard_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What it prints is there while it runs, and when it is killed right after.
    """
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    text = """
import os, sys, time
print("early")
limit = time.monotonic() + 60
while not os.path.exists(sys.argv[1]) and time.monotonic() < limit:
    time.sleep(0.01)
print("last words")
os.kill(os.getpid(), 9)
"""
    run = distributed("tensorflow", worker=1, local=ECHO)(Command([*script(text), tmp_path / "seen"])).submit()
    lines = run.logs("worker-0", follow=True)
    assert next(lines) == "early"
    (tmp_path / "seen").touch()
    assert list(lines) == ["last words"]


def test_the_users_own_buffering_stays() -> None:
    """
    PYTHONUNBUFFERED is only set where nobody has set it.
    """
    show = Command(script("import os; print(repr(os.environ['PYTHONUNBUFFERED']))"))
    run = distributed("pytorch", worker=1, env={"PYTHONUNBUFFERED": ""}, local=ECHO)(show).submit()
    run.result(60)
    assert list(run.logs()) == ["[worker-0] ''"]


def test_a_program_is_restarted() -> None:
    """
    Restart policies look at the program's own exit code.
    """
    worker = {"replicas": 1, "restart_policy": "ExitCode"}
    policy = {"backoff_limit": 1}
    task = distributed("tensorflow", worker=worker, run_policy=policy, local={**ECHO, "restart_delay": 0})
    run = task(Command(script("raise SystemExit(130)"))).submit()
    assert isinstance(run.exception(60), ReplicaFailedError)
    assert run.status().restarts == 1


def test_a_program_is_cancelled() -> None:
    """
    Cancelling works as early as the moment after submission: the order may reach the supervisor with the first one.
    """
    run = distributed("tensorflow", worker=2, local=ECHO)(Command(["sleep", "600"])).submit()
    run.cancel()
    assert run.status().state is RunState.CANCELLED


@pytest.mark.parametrize(
    "argv", [[], "python train.py", [""], ["python", 3], ["python", "a\0b"], b"python", None, {"python": 1}, {"python"}, ["\ud800"]]
)
def test_what_is_no_command_is_refused(argv: object) -> None:
    """
    What is no list, has no order or is empty is refused, and so are arguments that are none, each by its place.
    """
    with pytest.raises(InvalidJobError, match="argv"):
        launch(argv, framework="tensorflow", worker=1)  # type: ignore[arg-type]


def test_the_plan_names_the_program() -> None:
    """
    A plan of a program prints like one of a function.
    """
    assert str(distributed("tensorflow", worker=2)(Command(["./train.sh", "--epochs", "3"])).plan()).startswith("train.sh: 2 replicas")


def test_public() -> None:
    """
    Both names are part of the package's surface.
    """
    assert {"Command", "launch"} <= set(distrib.__all__)
