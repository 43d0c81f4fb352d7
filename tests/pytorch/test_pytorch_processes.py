"""
Nodes of several processes, and how they end. Most of it needs no torch, so that a run takes a moment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from signing import sign

import distrib
from distrib import Command, ReplicaFailedError, RetryableError, RunState, distributed, launch
from distrib._pickling import dumps
from distrib._processors import cpu_count
from distrib._registry import get_backend

ECHO = {"echo": False}


@distributed("pytorch", worker=2, nproc_per_node=2, local=ECHO)
def place() -> dict[str, Any]:
    """
    What this process finds, and a function that it makes.
    """
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "PET_NPROC_PER_NODE")
    return {**{name: os.environ[name] for name in names}, "coordinator": str(distrib.replica().is_coordinator), "made": lambda: None}


def test_a_process_for_each_processor() -> None:
    """
    "cpu" is as many as this process may use.
    """
    assert len(place.options(worker=1, nproc_per_node="cpu").submit().results(60)) == cpu_count()


def test_a_process_for_each_gpu() -> None:
    """
    Where there are GPUs, "auto" and "gpu" are as many as PyTorch sees; where there are none, "auto" is "cpu", and "gpu" says so.
    """
    torch = pytest.importorskip("torch")
    gpus = torch.cuda.device_count()
    assert len(place.options(worker=1, nproc_per_node="auto").submit().results(60)) == (gpus or cpu_count())
    error = place.options(worker=1, nproc_per_node="gpu").submit().exception(60)
    if gpus:
        assert error is None
    else:
        assert "nproc_per_node='gpu': this node has no GPU that PyTorch can use. Write 'auto', 'cpu' or a number." in str(error)


class OddError(Exception):
    """
    One whose arguments do not rebuild it.
    """

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@distributed("pytorch", nproc_per_node=2, local=ECHO)
def fate(how: str, folder: Path) -> str:
    """
    Rank 1 ends as *how* says; rank 0 waits.
    """
    sign(folder / os.environ["RANK"], os.getpid())
    if os.environ["RANK"] == "0":
        time.sleep(60)
    if how == "raise":
        raise KeyError("what")
    if how == "odd":
        raise OddError(1, 2)
    if how == "retry":
        raise RetryableError("again")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how.startswith("exit"):
        sys.exit(int(how[4:]))
    if how == "vanish":
        os._exit(0)
    if how == "close":
        os.closerange(3, 300)
    if how == "unpicklable":
        return (line for line in ())  # type: ignore[return-value]
    return how


def gone(folder: Path) -> bool:
    """
    Whether no process that wrote its number down is left.
    """
    return not any(psutil.pid_exists(int(path.read_text())) for path in folder.glob("[0-9]*"))


def test_each_process_has_its_place() -> None:
    """
    Ranks go node by node; only rank 0 is the coordinator; several processes share the processors; the caller's environment
    stays as it was.
    """
    before = dict(os.environ)
    results = place.submit().results(60)
    assert dict(os.environ) == before
    seen = results.by_rank()
    assert list(seen) == [0, 1, 2, 3]
    assert [each["RANK"] for each in results] == ["0", "1", "2", "3"]
    assert [(each["GROUP_RANK"], each["LOCAL_RANK"]) for each in seen.values()] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert {(each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"], each["PET_NPROC_PER_NODE"]) for each in results} == {("4", "2", "2")}
    assert {each["OMP_NUM_THREADS"] for each in results} == {"1"}
    assert [each["coordinator"] for each in results] == ["True", "False", "False", "False"]
    assert results.value["RANK"] == "0"
    assert results.value["made"].__code__.co_filename == __file__
    assert results["worker"][1]["RANK"] == "2"
    assert [name for name, _ in results.items()] == ["worker-0/0", "worker-0/1", "worker-1/0", "worker-1/1"]
    assert len(results) == 4


def test_the_users_threads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    OMP_NUM_THREADS is left alone where the job, the group or the caller's environment sets it.
    """
    for task in (place.options(env={"OMP_NUM_THREADS": "3"}), place.options(worker={"replicas": 1, "env": {"OMP_NUM_THREADS": "3"}})):
        assert {each["OMP_NUM_THREADS"] for each in task.submit().results(60)} == {"3"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert {each["OMP_NUM_THREADS"] for each in place.submit().results(60)} == {"5"}


#: What only torchrun gives a process, and why we do not.
TORCHRUNS_OWN = {
    "TORCHELASTIC_ERROR_FILE": "errors come home by our own means",
    "TORCHELASTIC_SIGNALS_TO_HANDLE": "it is for the agent, and there is none",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "PyTorch's own default is newer",
}
#: What cannot be the same: where they meet, the name of the run, and that it is not an agent who holds the store.
OF_THE_RUN = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"}


@pytest.mark.slow
def test_processes_find_what_torchrun_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every variable that torchrun sets for a process is there, with its value.
    """
    pytest.importorskip("torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    program = tmp_path / "program.py"
    program.write_text("import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1] + os.environ['RANK'], 'w'))")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(program), str(tmp_path / "theirs")]
    subprocess.run(torchrun, env=dict(os.environ), check=True, capture_output=True)
    launch([sys.executable, program, tmp_path / "ours"], framework="pytorch", nproc_per_node=2, local=ECHO)
    for rank in "01":
        theirs, ours = (json.loads((tmp_path / f"{whose}{rank}").read_text()) for whose in ("theirs", "ours"))
        theirs = {name: value for name, value in theirs.items() if os.environ.get(name) != value}
        assert theirs.keys() - ours.keys() <= TORCHRUNS_OWN.keys()
        wanted = {name: value for name, value in theirs.items() if name not in OF_THE_RUN | TORCHRUNS_OWN.keys()}
        assert {name: ours[name] for name in wanted} == wanted
        assert wanted.keys() >= {"RANK", "LOCAL_RANK", "ROLE_RANK", "ROLE_NAME", "GROUP_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"}


PACKED = "import pickle, sys; print(pickle.load(sys.stdin.buffer)().value(0)['OMP_NUM_THREADS'])"


@pytest.mark.parametrize(("there", "seen"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_what_is_packed_looks_at_the_threads_where_it_runs(monkeypatch: pytest.MonkeyPatch, there: dict[str, str], seen: str) -> None:
    """
    A pod does not inherit the variables of whoever has packed the call, and is given 1 unless it has its own.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    packed = dumps(get_backend("pytorch").wrap(place.function, place.options(env=there).job))
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}, "PYTHONPATH": path, **there}
    done = subprocess.run([sys.executable, "-c", PACKED], input=packed, env=environment, capture_output=True, check=False)
    assert done.stdout.decode().strip() == seen, done.stderr.decode()


@pytest.mark.parametrize(
    ("how", "said", "exit_code", "number", "cause"),
    [
        ("raise", "worker-0 (rank 1) failed with KeyError: 'what'", 1, None, KeyError),
        ("odd", "OddError: 1 and 2", 1, None, None),
        ("retry", "RetryableError: again", 138, None, RetryableError),
        ("kill", "signal 9 (SIGKILL)", None, 9, None),
        ("exit3", "SystemExit: 3", 3, None, SystemExit),
        ("vanish", "os._exit() was called", 0, None, None),
        ("close", "of the process of rank 1 could not be kept: [Errno 9]", 1, None, None),
        ("unpicklable", "cannot pickle", 1, None, TypeError),
    ],
)
def test_a_failing_process_fails_its_node(
    tmp_path: Path, how: str, said: str, exit_code: int | None, number: int | None, cause: type[BaseException] | None
) -> None:
    """
    The run fails at once, as the process did, and nothing is left of the others.
    """
    started = time.monotonic()
    error = fate.submit(how, tmp_path).exception(60)
    assert isinstance(error, ReplicaFailedError)
    assert time.monotonic() - started < 20
    assert said in str(error)
    assert (error.exit_code, error.signal) == (exit_code, number)
    assert isinstance(error.__cause__, cause) if cause else error.__cause__ is None
    if how == "raise":
        assert 'raise KeyError("what")' in error.traceback
        assert "in fate" in str(error)
        assert "distrib/_processes.py" not in error.traceback
    assert gone(tmp_path)


def test_a_retryable_process_restarts_its_node(tmp_path: Path) -> None:
    """
    RetryableError in a process is exit code 138 of its node, which ExitCode takes for retryable.
    """
    worker = {"replicas": 1, "restart_policy": "ExitCode"}
    run = fate.options(worker=worker, run_policy={"backoff_limit": 1}, local={**ECHO, "restart_delay": 0}).submit("retry", tmp_path)
    assert isinstance(run.exception(60), ReplicaFailedError)
    assert run.status().restarts == 1


@distributed("pytorch", nproc_per_node=2, local=ECHO)
def patient(folder: Path) -> None:
    """
    Wait; write down when told to stop.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((folder / f"told-{os.environ['RANK']}").touch()))
    sign(folder / os.environ["RANK"], os.getpid())
    time.sleep(60)


def await_files(folder: Path, *names: str) -> None:
    """
    Until all of them are there.
    """
    limit = time.monotonic() + 60
    while not all((folder / name).exists() and (folder / name).read_text() for name in names):
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_sigterm_is_handed_on(tmp_path: Path) -> None:
    """
    Cancelling tells every process, which may still write its checkpoint; then none is left.
    """
    run = patient.submit(tmp_path)
    await_files(tmp_path, "0", "1")
    run.cancel()
    assert run.status().state is RunState.CANCELLED
    assert (tmp_path / "told-0").exists()
    assert (tmp_path / "told-1").exists()
    assert not any(psutil.pid_exists(int((tmp_path / rank).read_text())) for rank in "01")


@distributed("pytorch", nproc_per_node=64, local={**ECHO, "grace_period": 1000})
def stopping_the_node(folder: Path) -> None:
    """
    Rank 0 has its node told to stop, which is still starting the others.
    """
    sign(folder / os.environ["RANK"], os.getpid())
    if os.environ["RANK"] == "0":
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(600)


def test_sigterm_reaches_processes_that_are_being_forked(tmp_path: Path) -> None:
    """
    None of them loses the signal, however young it is: the node ends by it, long before anybody would kill it.
    """
    error: Any = stopping_the_node.submit(tmp_path).exception(60)
    assert error.signal == signal.SIGTERM
    assert gone(tmp_path)


def test_a_killed_node_takes_its_processes_along(tmp_path: Path) -> None:
    """
    Whatever happens to the process that watches, nothing is left of those it watches.
    """
    run = patient.submit(tmp_path)
    await_files(tmp_path, "0", "1")
    node = psutil.Process(int((tmp_path / "0").read_text())).ppid()
    os.kill(node, signal.SIGKILL)
    error: Any = run.exception(60)
    assert error.signal == signal.SIGKILL
    assert not any(psutil.pid_exists(int((tmp_path / rank).read_text())) for rank in "01")


def test_programs_too(tmp_path: Path) -> None:
    """
    A command runs once in each process, as under torchrun.
    """
    text = "import os, sys; open(os.path.join(sys.argv[1], os.environ['RANK']), 'w').write(os.environ['LOCAL_RANK'])"
    launch([sys.executable, "-c", text, tmp_path], framework="pytorch", worker=2, nproc_per_node=2, local=ECHO)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "0", "1": "1", "2": "0", "3": "1"}
    failing = distributed("pytorch", nproc_per_node=2, local=ECHO)(Command([sys.executable, "-c", "raise SystemExit(7)"]))
    error: Any = failing.submit().exception(60)
    assert error.exit_code == 7
