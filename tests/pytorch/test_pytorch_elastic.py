"""
Elastic training for real: processes and nodes are killed, and PyTorch's own agents go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
from signing import sign

import distrib
from distrib import ReplicaFailedError, RetryableError, RunState, distributed
from distrib.pytorch import Elastic

#: PyTorch 2.5's agents were seen to wait for each other for ever after a process was lost; versions in between were not tried.
OLD = tuple(map(int, version("torch").split("+")[0].split(".")[:2])) < (2, 15)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(OLD, reason="elastic training is tested with PyTorch 2.15 and later")]

ECHO = {"echo": False, "preload": ("torch",)}
#: The shortest times at which nodes that are gone are noticed.
QUICK = {"last_call_timeout": 1, "keep_alive_interval": 1, "keep_alive_max_attempt": 2, "join_timeout": 60}
STEPS = 12


def reduce_ones(dist: Any) -> int:
    """
    How many processes take part.
    """
    import torch

    ones = torch.ones(1)
    dist.all_reduce(ones)
    return int(ones.item())


def write_pids(folder: Path) -> None:
    """
    Write down who this process is, and its node.
    """
    me = distrib.replica().name
    sign(folder / f"{me}.{os.environ['LOCAL_RANK']}", os.getpid())
    sign(folder / me, os.getppid())


def leftovers(folder: Path) -> list[str]:
    """
    Which of the processes that wrote themselves down are still there.
    """
    return [path.name for path in folder.iterdir() if path.name.startswith("worker") and psutil.pid_exists(int(path.read_text()))]


@distributed("pytorch", elastic=Elastic(min_nodes=2, nproc_per_node=2, max_restarts=2, rdzv_configs=QUICK), local=ECHO)
def resuming(folder: Path, how: str) -> tuple[int, int, int]:
    """
    Count to STEPS with all processes in step; one of them goes halfway, the first time. Where it began, the last number of
    processes, and its rank.
    """
    import torch.distributed as dist

    from distrib.pytorch import process_group

    write_pids(folder)
    saved = folder / "step"
    begun = int(saved.read_text()) if saved.exists() else 0
    with process_group("gloo"):
        for step in range(begun, STEPS):
            world = reduce_ones(dist)
            if dist.get_rank() == 0:
                saved.with_suffix(".part").write_text(str(step + 1))
                saved.with_suffix(".part").replace(saved)
            if dist.get_rank() == 1 and step == STEPS // 2 and begun == 0:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise KeyError(how)
    return begun, world, int(os.environ["RANK"])


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_lost_process_restarts_the_group(tmp_path: Path, how: str) -> None:
    """
    All processes start again, and resume from their checkpoint; rank 0's value is the result, and every rank's is kept.
    """
    run = resuming.submit(tmp_path, how)
    begun, world, rank = run.result(120)
    assert (begun >= STEPS // 2, world, rank) == (True, 4, 0)
    assert [each[2] for each in run.results()] == [0, 1, 2, 3]
    assert list(run.results().by_rank()) == [0, 1, 2, 3]
    assert not leftovers(tmp_path)


@distributed("pytorch", elastic=Elastic(nproc_per_node=2, max_restarts=1, rdzv_configs=QUICK), local=ECHO)
def failing(folder: Path, kind: type[Exception]) -> None:
    """
    Rank 1 always fails.
    """
    if os.environ["RANK"] == "1":
        with (folder / "attempts").open("a") as file:
            file.write(os.environ["TORCHELASTIC_RESTART_COUNT"])
        raise kind("always")
    time.sleep(60)


@pytest.mark.parametrize(("kind", "code"), [(ValueError, 1), (RetryableError, 138)])
def test_restarts_are_limited(tmp_path: Path, kind: type[Exception], code: int) -> None:
    """
    When they are used up the run fails, with the exception of the process that failed.
    """
    run = failing.submit(tmp_path, kind)
    error = run.exception(120)
    assert isinstance(error, ReplicaFailedError)
    assert (tmp_path / "attempts").read_text() == "01"
    assert error.exit_code == code
    assert isinstance(error.__cause__, kind)
    assert f"worker-0 (rank 1) failed with {'distrib.errors.' if code == 138 else ''}{kind.__name__}: always" in str(error)
    assert "in failing" in error.traceback


@distributed("pytorch", elastic=Elastic(nproc_per_node=2, max_restarts=1, rdzv_configs=QUICK), local=ECHO)
def silent(folder: Path, status: int) -> None:
    """
    Rank 1 always ends without a word, by an exit code or by a signal.
    """
    if os.environ["RANK"] == "1":
        with (folder / "attempts").open("a") as file:
            file.write(os.environ["TORCHELASTIC_RESTART_COUNT"])
        os.kill(os.getpid(), -status) if status < 0 else os._exit(status)
    time.sleep(60)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (0, 1, "ended with exit code 0: the process ended before the function returned: os._exit() was called"),
        (3, 3, "ended with exit code 3"),
        (-signal.SIGKILL, 137, "was ended by signal 9 (SIGKILL): killed from outside"),
    ],
)
def test_a_process_that_ends_without_a_word_has_failed(tmp_path: Path, status: int, code: int, said: str) -> None:
    """
    It is started again, also if its exit code is 0; in the end the run fails with how it ended.
    """
    error = silent.submit(tmp_path, status).exception(120)
    assert isinstance(error, ReplicaFailedError)
    assert (tmp_path / "attempts").read_text() == "01"
    assert (error.exit_code, error.signal) == (code, -status if status < 0 else None)
    assert f"worker-0 (rank 1) {said}" in str(error)
    assert error.__cause__ is None


@distributed("pytorch", elastic=Elastic(max_nodes=2, max_restarts=3, rdzv_configs=QUICK), local={**ECHO, "restart_delay": 0})
def nodes(folder: Path, until: int, saves: bool = False) -> list[int]:
    """
    Go on until that many steps were done with the group's final size; the sizes seen. It may save something when told to stop.
    """
    import torch.distributed as dist

    from distrib.pytorch import process_group

    if saves:
        signal.signal(signal.SIGTERM, lambda *_: os._exit((folder / f"saved-{distrib.replica().name}").write_text("all")))
    write_pids(folder)
    worlds = []
    with process_group("gloo"):
        for _ in range(until):
            worlds.append(reduce_ones(dist))
            with (folder / f"world-{worlds[-1]}").open("a") as file:
                file.write(".")
            if worlds[-1] == 1:
                return worlds
            time.sleep(0.05)
    return worlds


def kill_node(folder: Path, name: str) -> None:
    """
    Kill a node in the midst of its training with another one.
    """
    limit = time.monotonic() + 60
    while not (folder / "world-2").exists():
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.kill(int((folder / name).read_text()), signal.SIGKILL)


def agent(run: Any, name: str) -> int:
    """
    The process id of a node, once it has started.
    """
    limit = time.monotonic() + 60
    while True:
        for event in run.events():
            if (event.kind, event.replica) == ("started", name):
                return int(event.message.split()[0].removeprefix("pid="))
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("lost", ["worker-1", "worker-0"])
def test_training_goes_on_without_a_killed_node(tmp_path: Path, lost: str) -> None:
    """
    Of "1:2", the node that is left goes on alone, also if the nodes met at the other one; the run succeeds.
    """
    run = nodes.submit(tmp_path, 100_000)
    kill_node(tmp_path, lost)
    assert run.result(120) == [1]
    assert run.status().state is RunState.SUCCEEDED
    assert any("goes on without" in event.message for event in run.events())
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("lost", ["worker-1", "worker-0"])
@pytest.mark.parametrize("seconds", [0.3, 0.9])
def test_a_node_may_be_lost_while_nodes_meet(tmp_path: Path, lost: str, seconds: float) -> None:
    """
    One that had come, and is gone before all know of each other, is waited for no longer than its heart is expected to beat.
    """
    # Where it is lost before it was there to meet at, the time to connect is what counts.
    settings = {**QUICK, "read_timeout": 5}
    started = time.monotonic()
    run = nodes.options(elastic=Elastic(max_nodes=2, rdzv_configs=settings)).submit(tmp_path, 100_000)
    node = agent(run, lost)
    time.sleep(seconds)
    os.kill(node, signal.SIGKILL)
    assert run.result(120) == [1]
    assert time.monotonic() - started < 40


@distributed("pytorch", elastic=Elastic(max_nodes=2, max_restarts=0, rdzv_configs=QUICK), local=ECHO)
def held_up(folder: Path) -> int:
    """
    One of two never comes to the process group; the size of the group that is made without it.
    """
    import torch.distributed as dist

    from distrib.pytorch import process_group

    if os.environ["WORLD_SIZE"] == "2" and distrib.replica().name == "worker-1":
        write_pids(folder)
        time.sleep(600)
    with process_group("gloo"):
        return dist.get_world_size()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_may_be_lost_before_the_process_group(tmp_path: Path, number: int) -> None:
    """
    The processes that wait for its processes are started again, which uses up no restart.
    """
    run = held_up.submit(tmp_path)
    limit = time.monotonic() + 60
    while not (tmp_path / "worker-1").exists():
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.kill(agent(run, "worker-1"), number)
    assert run.result(60) == 1
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("lost", ["worker-1", "worker-0"])
def test_a_killed_node_that_restarts_joins_again(tmp_path: Path, lost: str) -> None:
    """
    With a restart policy the node comes back, and the training is that of two nodes again.
    """
    restarting = nodes.options(worker={"replicas": 2, "restart_policy": "OnFailure"}, elastic=Elastic(min_nodes=2, rdzv_configs=QUICK))
    run = restarting.submit(tmp_path, 40)
    kill_node(tmp_path, lost)
    assert run.result(120) == [2] * 40
    assert run.status().restarts == 1
    assert len(run.results()) == 2


@distributed("pytorch", elastic=Elastic(max_nodes=2, rdzv_configs=QUICK), local=ECHO)
def growing(folder: Path) -> int:
    """
    Go on until there are two; how many there were at first.
    """
    import torch.distributed as dist

    from distrib.pytorch import process_group

    with process_group("gloo"):
        while (world := reduce_ones(dist)) < 2:
            sign(folder / "alone", world)
            time.sleep(0.05)
    return 1 if (folder / "alone").exists() else world


def test_nodes_meet_where_they_are_told(tmp_path: Path) -> None:
    """
    A server that somebody else runs is where they find each other.
    """
    from torch.distributed import TCPStore

    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = Elastic(min_nodes=2, rdzv_endpoint=f"127.0.0.1:{server.port}", rdzv_configs=QUICK)
    before = server.num_keys()
    assert list(growing.options(elastic=told).submit(tmp_path).results(120)) == [2, 2]
    assert server.num_keys() > before


class Late:
    """
    A folder, which is read late on one node: when the other one trains already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.folder,)


def arrive(folder: Path) -> Path:
    """
    Wait on the second node until the first one has trained alone.
    """
    limit = time.monotonic() + 60
    while distrib.replica().name == "worker-1" and not (folder / "alone").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    return folder


def test_a_node_that_comes_late_joins(tmp_path: Path) -> None:
    """
    Of "1:2", one begins alone; when the other comes, the training goes on with both.
    """
    assert list(growing.submit(Late(tmp_path)).results(120)) == [1, 1]  # type: ignore[arg-type]


def test_too_few_nodes_fail_the_run(tmp_path: Path) -> None:
    """
    Where both nodes are needed, the loss of one is the run's.
    """
    run = nodes.options(elastic=Elastic(min_nodes=2, rdzv_configs=QUICK)).submit(tmp_path, 100_000)
    kill_node(tmp_path, "worker-1")
    error: Any = run.exception(120)
    assert (error.replica, error.signal) == ("worker-1", signal.SIGKILL)
    assert not leftovers(tmp_path)


def test_sigterm_is_no_success(tmp_path: Path) -> None:
    """
    An agent that is told to stop stops its processes, which may save what they have, and the run has no value.
    """
    run = nodes.options(elastic=Elastic(max_nodes=2, min_nodes=2, rdzv_configs=QUICK)).submit(tmp_path, 100_000, saves=True)
    limit = time.monotonic() + 60
    while not (tmp_path / "world-2").exists():
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.kill(int((tmp_path / "worker-1").read_text()), signal.SIGTERM)
    error: Any = run.exception(120)
    assert (run.status().state, error.signal) == (RunState.FAILED, signal.SIGTERM)
    assert (tmp_path / "saved-worker-1").exists()
    assert not leftovers(tmp_path)


@distributed("pytorch", elastic=Elastic(nproc_per_node=2, start_method="spawn", rdzv_configs=QUICK), local=ECHO)
def in_fresh_interpreters(fails: bool) -> tuple[str, int, bool, bool]:
    """
    Whether this interpreter is a fresh one, and what it knows of its place.
    """
    import torch.distributed as dist

    from distrib.pytorch import process_group

    if fails and os.environ["RANK"] == "1":
        raise RetryableError("not this time")
    with process_group():
        return os.environ["RANK"], reduce_ones(dist), distrib.replica().is_coordinator, "distrib.engines.local._replica" in sys.modules


def test_processes_may_be_fresh_interpreters() -> None:
    """
    Started by ``spawn`` they inherit nothing of the node's process, and meet, return and fail as forked ones do.
    """
    run = in_fresh_interpreters.submit(fails=False)
    assert run.result() == ("0", 2, True, False)
    assert list(run.results()) == [("0", 2, True, False), ("1", 2, False, False)]
    with pytest.raises(ReplicaFailedError, match=r"rank 1.*not this time") as caught:
        in_fresh_interpreters(fails=True)
    assert isinstance(caught.value.__cause__, RetryableError)
    assert caught.value.exit_code == 138


def test_programs_are_trained_elastically_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A command runs once in each process, with a place that the agents have dealt, and what it prints is seen at once.
    """
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    text = "import os, sys; open(os.path.join(sys.argv[1], os.environ['RANK']), 'w').write(os.environ['WORLD_SIZE'])"
    text += "; assert os.environ['PYTHONUNBUFFERED'] == '1'"
    distrib.launch([sys.executable, "-c", text, tmp_path], framework="pytorch", elastic={"nproc_per_node": 2}, local=ECHO)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2", "1": "2"}


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ([sys.executable, "-c", "raise SystemExit(7)"], 7, "ended with exit code 7"),
        (["no-such-program"], 1, "FileNotFoundError: [Errno 2] the program cannot be started"),
    ],
)
def test_a_failing_program_fails_elastic_training(program: list[str], code: int, said: str) -> None:
    """
    As it would without an agent between.
    """
    with pytest.raises(ReplicaFailedError) as caught:
        distrib.launch(program, framework="pytorch", elastic={"max_restarts": 0}, local=ECHO)
    assert caught.value.exit_code == code
    assert said in str(caught.value)
    assert "function" not in str(caught.value)
    assert "subprocess" not in caught.value.traceback


STOPPED_EARLY = """
import os, signal, sys, tempfile, time
from torch.distributed.elastic.multiprocessing import start_processes
from distrib.backends import _elastic

def train():
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    os.write(ready, b"x")
    while not told:
        time.sleep(0.01)

_elastic._mend_ends()
heard, ready = os.pipe()
files = tempfile.TemporaryFile()
nodes = {0: {"RANK": "0"}, 1: {"RANK": "1"}}
entry = lambda: _elastic._run(train, files)
context = start_processes("default", entry, dict.fromkeys(nodes, ()), nodes, _elastic._no_files(), start_method="fork")
for _ in nodes:
    os.read(heard, 1)
context.close(signal.SIGTERM, timeout=1000)
print([process.exitcode for process in context._pc.processes])
"""


def test_whoever_returns_when_told_to_stop_is_not_waited_for() -> None:
    """
    A process that ends its work on SIGTERM and returns has ended; PyTorch by itself would kill it half a minute later.
    """
    done = subprocess.run([sys.executable, "-c", STOPPED_EARLY], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == f"{[-signal.SIGTERM] * 2}\n"
