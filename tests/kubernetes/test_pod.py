"""
Pods as real processes: what they check, what they tell, how they end, and what they tell each other.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import acts
import psutil
import pytest
from processes import Pods
from standin import eventually

from distrib import Command, Job

pytest.importorskip("kubernetes")

Start = Callable[..., Pods]


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Start]:
    """Start the pods of a job, and end what is left of them."""
    with ExitStack() as stack:

        def start(job: Job, function: Callable[..., Any], *args: Any, environment: dict[str, str] | None = None, **orders: Any) -> Pods:
            return stack.enter_context(Pods(tmp_path, job, function, *args, **orders)).start(environment=environment)

        yield start


def workers(count: int, **fields: Any) -> Job:
    """A job of that many."""
    return Job("tensorflow", worker=count, **fields)


def value(pods: Pods, name: str) -> Any:
    """What a replica has returned."""
    told = pods.report(name).value
    assert told is not None, pods.log(name)
    return pickle.loads(told)


def is_connected(pods: Pods, name: str) -> bool:
    """Whether a pod has its line to the coordinator's."""
    lines = psutil.Process(pods.processes[name].pid).net_connections()
    return any(line.raddr and line.raddr.port == pods.orders.control_port and line.status == psutil.CONN_ESTABLISHED for line in lines)


def test_the_function_finds_who_it_is_and_its_framework_s_variables(start: Start) -> None:
    """Identity, TF_CONFIG of ours whatever the container had, a session of its own, and the program's arguments."""
    pods = start(workers(2), acts.where, environment={"TF_CONFIG": "an operator's", "MINE": "kept"})
    seen = value(pods, "worker-1")
    assert (seen["name"], seen["rank"], seen["world"], seen["coordinator"]) == ("worker-1", 1, 2, False)
    lead = value(pods, "worker-0")
    assert (lead["coordinator"], lead["listening"], seen["listening"]) == (True, [pods.orders.control_port], [])
    assert '"index":1' in seen["environ"]["TF_CONFIG"]
    assert seen["environ"]["MINE"] == "kept"
    assert seen["session"]


def test_one_replica_needs_no_line(start: Start) -> None:
    """A single replica listens nowhere and has no TF_CONFIG."""
    seen = value(start(workers(1), acts.where), "worker-0")
    assert (seen["coordinator"], seen["listening"]) == (True, [])
    assert "TF_CONFIG" not in seen["environ"]


def test_no_shell_has_a_part_in_it(start: Start) -> None:
    """What a shell would expand arrives as it was, and where there is no program to be found at all."""
    odd = "$HOME $(id) `id` \\\\ 'it' \"\nEOM\n; exit 1 # \u20ac"
    assert value(start(workers(1), acts.give, odd, environment={"PATH": "/none"}), "worker-0") == odd


def test_whoever_has_returned_waits_for_the_others(start: Start) -> None:
    """All values are there, although an operator takes a run down when its coordinator has ended: that one ends last."""
    pods = start(workers(3), acts.each, {f"worker-{index}": ("later", index / 3, index) for index in range(3)})
    assert pods.kinds() == dict.fromkeys(pods.orders.names, ("returned", 0))
    assert [value(pods, name) for name in pods.orders.names] == [0, 1, 2]


def test_the_others_get_a_grace_period(start: Start) -> None:
    """Once the deciders have returned, whoever does not return in time is stopped, and that is no failure."""
    job = Job("tensorflow", chief=1, worker=2)
    acted = {"chief-0": ("give", 1), "worker-0": ("later", 0.3, 2), "worker-1": ("wait",)}
    pods = start(job, acts.each, acted, deciders=("chief-0",))
    assert pods.kinds() == {"chief-0": ("returned", 0), "worker-0": ("returned", 0), "worker-1": ("stopped", 0)}


def test_services_end_when_the_rest_is_done(start: Start) -> None:
    """Roles that serve, and replicas that say so, are not waited for, whatever else they write where they say it."""
    job = Job("tensorflow", chief=1, worker=2, ps=1)
    acted = {"chief-0": ("later", 0.5, 1), "worker-0": ("serve",), "worker-1": ("serve_among_others",), "ps-0": ("wait",)}
    before = time.monotonic()
    pods = start(job, acts.each, acted, deciders=("chief-0",), grace_period=30.0)
    assert pods.kinds() == {"chief-0": ("returned", 0), **dict.fromkeys(("worker-0", "worker-1", "ps-0"), ("stopped", 0))}
    assert time.monotonic() - before < 25


def test_a_failure_ends_all(start: Start) -> None:
    """The one that raised tells its exception; the others are stopped because of it."""
    pods = start(workers(3), acts.only, "worker-1", "fail", "no blue left")
    assert pods.kinds() == {"worker-0": ("stopped", 143), "worker-1": ("raised", 1), "worker-2": ("stopped", 143)}
    report = pods.report("worker-1")
    assert report.error is not None
    assert report.exception is not None
    assert (report.error["type"], report.error["text"]) == ("ValueError", "no blue left")
    assert isinstance(pickle.loads(report.exception), ValueError)
    assert "no blue left" in pods.log("worker-1")
    assert {pods.report(name).cause for name in ("worker-0", "worker-2")} == {"worker-1"}


def test_a_coordinator_that_has_returned_fails_with_the_run(start: Start) -> None:
    """An operator would call the run a success for a coordinator that ends well."""
    pods = start(workers(2), acts.each, {"worker-0": ("give", 1), "worker-1": ("fail_later", 1.0, "late")})
    assert pods.kinds() == {"worker-0": ("stopped", 143), "worker-1": ("raised", 1)}


@pytest.mark.parametrize(
    ("act", "kind", "code", "number"),
    [
        (("leave", 7), "ended", 7, None),
        (("leave", 0), "ended", 1, None),
        (("exit_with", 7), "raised", 7, None),
        (("exit_with", 0), "returned", 0, None),
        (("kill", int(signal.SIGKILL)), "ended", 137, signal.SIGKILL),
        (("kill", int(signal.SIGSEGV)), "ended", 139, signal.SIGSEGV),
        (("lose_a_process", int(signal.SIGKILL)), "raised", 137, None),
        (("unpicklable",), "raised", 1, None),
        (("linger", 3), "returned", 0, None),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_every_kind_of_end_is_told(start: Start, act: tuple[Any, ...], kind: str, code: int, number: int | None) -> None:
    """Kind, exit code and signal; nothing but a returned function ends with 0."""
    pods = start(workers(1), acts.each, {"worker-0": act})
    report = pods.report("worker-0")
    assert (report.kind, report.code, pods.code("worker-0"), report.signal) == (kind, code, code, number)
    assert (report.error or {}).get("ended") == (-act[1] if act[0] == "lose_a_process" else None)


def test_a_programs_exit_code_is_its_replicas(start: Start) -> None:
    """A command that ends with 0 has returned; any other code is what the pod ends with."""
    assert start(workers(1), Command(["true"])).report("worker-0").kind == "returned"


def test_a_program_that_fails(start: Start) -> None:
    """Its code arrives."""
    pods = start(workers(1), Command(["sh", "-c", "exit 9"]))
    assert (pods.report("worker-0").kind, pods.code("worker-0")) == ("ended", 9)


def test_a_function_has_time_to_save(start: Start, tmp_path: Path) -> None:
    """The kubelet's SIGTERM reaches the function, which may end in its own way; the pod is a stopped one all the same."""
    pods = start(workers(1), acts.save, str(tmp_path), grace_period=20.0)
    eventually((tmp_path / "worker-0.ready").exists)
    pods.end("worker-0")
    assert pods.kinds() == {"worker-0": ("stopped", 143)}
    assert (tmp_path / "saved").read_text() == "worker-0"


def test_nothing_outlives_a_pod(start: Start, tmp_path: Path) -> None:
    """Processes that take no notice of SIGTERM are killed, those that they have started too."""
    pods = start(workers(2), acts.each, {"worker-0": ("stubborn", str(tmp_path)), "worker-1": ("stubborn", str(tmp_path))})
    eventually(lambda: all((tmp_path / f"worker-{index}.pid").exists() for index in range(2)))
    time.sleep(0.2)
    pods.end("worker-1")
    assert pods.kinds() == {"worker-0": ("stopped", 143), "worker-1": ("stopped", 143)}
    left = [int(pid) for index in range(2) for pid in (tmp_path / f"worker-{index}.pid").read_text().split()]
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def test_a_pod_that_is_gone_fails_the_run(start: Start) -> None:
    """A node that is lost says nothing; its peers end all the same."""
    pods = start(workers(2), acts.wait)
    eventually(lambda: is_connected(pods, "worker-1"))
    time.sleep(0.5)  # it says who it is as soon as it is
    pods.end("worker-1", signal.SIGKILL)
    report = pods.report("worker-0")
    assert (report.kind, report.code, report.cause) == ("stopped", 143, "worker-1")
    assert "worker-1 is gone" in report.text


def test_a_replica_that_is_started_again_finds_its_way(start: Start, tmp_path: Path) -> None:
    """Where the policy starts it again, a failure is told to nobody, and the run goes on."""
    acted = {"worker-0": ("later", 2.0, 0), "worker-1": ("once", str(tmp_path), "leave", 3)}
    pods = start(workers(2), acts.each, acted, restarts={"worker": "OnFailure"})
    assert pods.code("worker-1") == 3
    pods.start("worker-1")
    assert pods.kinds() == {"worker-0": ("returned", 0), "worker-1": ("returned", 0)}
    assert value(pods, "worker-1") == "worker-1"


def test_a_coordinator_that_is_started_again_is_told_all(start: Start, tmp_path: Path) -> None:
    """Whoever has returned says so again to the new one."""
    acted = {"worker-0": ("once", str(tmp_path), "kill", int(signal.SIGKILL)), "worker-1": ("give", 1)}
    pods = start(workers(2), acts.each, acted, restarts={"worker": "OnFailure"})
    assert pods.code("worker-0") == 137
    pods.start("worker-0")
    assert pods.kinds() == {"worker-0": ("returned", 0), "worker-1": ("returned", 0)}


def test_a_stranger_is_not_listened_to(start: Start) -> None:
    """Who does not know the token, or speaks another language, can neither end the run nor hear of it."""
    pods = start(workers(2), acts.later, 2.0, 5)

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("localhost", pods.orders.control_port), timeout=5)
        except OSError:
            return None

    lines: list[socket.socket] = []
    eventually(lambda: bool((line := connect()) and (lines.append(line) or True)))
    lines += [line for _ in range(2) if (line := connect())]
    for line, words in zip(
        lines,
        (json.dumps({"token": "", "name": "worker-1", "word": "failed"}).encode() + b"\n", b"GET / HTTP/1.1\r\n\r\n", os.urandom(1 << 17)),
        strict=True,
    ):
        try:
            line.sendall(words)
            assert line.recv(100) == b""
        except ConnectionError:  # hung up on
            pass
        line.close()
    assert pods.kinds() == {"worker-0": ("returned", 0), "worker-1": ("returned", 0)}


def test_large_values_go_to_the_storage(start: Start, tmp_path: Path) -> None:
    """What no termination message holds is found by the message; small ones stay in it."""
    pods = start(workers(2), acts.each, {"worker-0": ("give", os.urandom(10_000)), "worker-1": ("give", 3)}, storage=f"{tmp_path}/kept")
    from distrib.engines.kubernetes._results import whole

    report = pods.report("worker-0")
    assert report.value is None
    kept = whole(report).value
    assert kept is not None
    assert len(pickle.loads(kept)) == 10_000
    assert value(pods, "worker-1") == 3
    assert not pods.report("worker-1").stored


def test_a_value_without_a_storage_that_is_too_large(start: Start) -> None:
    """The coordinator's is an error that says so; another one's is left out, and told."""
    acted = {"worker-0": ("give", 1), "worker-1": ("give", os.urandom(10_000))}
    pods = start(workers(2), acts.each, acted)
    assert pods.kinds() == {"worker-0": ("returned", 0), "worker-1": ("returned", 0)}
    assert "kubernetes={'storage'" in pods.report("worker-1").text


def test_the_coordinators_value_that_is_too_large(start: Start) -> None:
    """It fails the run, and no replica waits for it."""
    pods = start(workers(2), acts.each, {"worker-0": ("give", os.urandom(10_000)), "worker-1": ("wait",)}, deciders=("worker-0",))
    report = pods.report("worker-0")
    assert report.error is not None
    assert (report.kind, report.code) == ("raised", 1)
    assert "kubernetes={'storage'" in report.error["text"]
    assert pods.kinds()["worker-1"] == ("stopped", 143)


def test_a_storage_that_cannot_be_written(start: Start) -> None:
    """The value is lost, and the error names the place."""
    report = start(workers(1), acts.give, os.urandom(10_000), storage="/proc/none").report("worker-0")
    assert report.kind == "raised"
    assert report.error is not None
    assert "/proc/none/worker-0.report cannot be written" in report.error["text"]


def test_a_home_for_a_user_without_one(start: Start) -> None:
    """An image does not know the user that it is run as; libraries look for a cache and a name."""
    seen = value(start(workers(1), acts.where, environment={"HOME": "/proc", "USER": "", "LOGNAME": ""}), "worker-0")
    assert os.access(seen["environ"]["HOME"], os.W_OK)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DISTRIB_INDEX": "5"}, "no replica of the run is called so; it has worker-0"),
        ({"DISTRIB_ROLE": ""}, "no replica of the run is called so"),
        ({"DISTRIB_MOUNT": "/nowhere"}, "cannot be read from /nowhere/orders.json"),
    ],
)
def test_a_pod_that_was_put_together_wrongly(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    """It says so with a code of its own, and calls nothing."""
    with Pods(tmp_path, workers(1), acts.give, 1) as pods:
        pods.start("worker-0", environment=environment)
        assert pods.code("worker-0") == 126
        assert words in (tmp_path / "worker-0.message").read_text()
        assert words in pods.log("worker-0")


def test_an_image_without_distrib(tmp_path: Path) -> None:
    """The very first line that runs says what to install, with whatever Python there is."""
    with Pods(tmp_path, workers(1), acts.give, 1) as pods:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "distrib.py").write_text("raise ImportError('not here')")
        pods.start("worker-0", environment={"PYTHONPATH": str(tmp_path / "empty")})
        report = pods.report("worker-0")
        assert (report.kind, report.code, pods.code("worker-0")) == ("refused", 126, 126)
        assert "RUN python -m pip install --no-cache-dir /tmp/distrib-*.whl" in report.text


class _Elsewhere:
    """What only a machine with that module can read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("nowhere_to_be_found",)


def test_an_image_without_a_module_of_the_call(start: Start) -> None:
    """What is missing is named, and the others do not wait."""
    pods = start(workers(2), acts.give, _Elsewhere())
    kinds = pods.kinds()
    refused = [name for name, (kind, _) in kinds.items() if kind == "refused"]
    assert set(kinds.values()) <= {("refused", 126), ("stopped", 143)}
    assert "python -m pip install nowhere_to_be_found" in pods.report(refused[0]).text


def _repack(pods: Pods, **changes: Any) -> None:
    path = pods.secret / "call.pickle"
    path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), **changes}))


def test_another_python_is_refused(tmp_path: Path) -> None:
    """Code that travels itself needs an equal Python, and says so."""
    with Pods(tmp_path, workers(1), lambda: 1) as pods:
        _repack(pods, python=(3, 9))
        report = pods.start().report("worker-0")
        assert report.kind == "refused"
        assert "packed by Python 3.9" in report.text


def test_another_python_does_for_names(tmp_path: Path) -> None:
    """A function that goes by its name is whatever the image has."""
    with Pods(tmp_path, workers(1), acts.give, 1) as pods:
        _repack(pods, python=(3, 9))
        assert pods.start().report("worker-0").kind == "returned"


def test_other_versions_are_told(tmp_path: Path) -> None:
    """They may do, so a line in the log is all."""
    with Pods(tmp_path, workers(1), acts.give, 1) as pods:
        _repack(pods, versions={"attrs": "1.0", "not-there": "2.0"})
        assert pods.start().report("worker-0").kind == "returned"
        assert "(not 1.0)" in pods.log("worker-0")
        assert "not-there" not in pods.log("worker-0")


def test_a_framework_that_the_image_lacks(tmp_path: Path) -> None:
    """It is named with the line that installs it."""
    with Pods(tmp_path, workers(1), acts.give, 1) as pods:
        hide = tmp_path / "hide"
        hide.mkdir()
        text = "import sys, importlib.abc\nclass F(importlib.abc.MetaPathFinder):\n    def find_spec(self, name, *_):\n"
        text += "        if name == 'tensorflow': raise ImportError(name)\nsys.meta_path.insert(0, F())\n"
        (hide / "sitecustomize.py").write_text(text)
        report = pods.start("worker-0", environment={"PYTHONPATH": str(hide)}).report("worker-0")
        assert report.kind == "refused"
        assert "in the image: framework='tensorflow' needs" in report.text


def test_a_peer_whose_name_is_nowhere(start: Start) -> None:
    """Waiting for it ends, and the others hear why."""
    cluster = {"worker": ("localhost:1111", "nowhere.invalid:1111")}
    pods = start(workers(2), acts.wait, cluster=cluster, peers_timeout=2.0)
    assert all(code != 0 for _, code in pods.kinds().values())
    texts = " ".join(pods.report(name).text for name in pods.orders.names)
    assert "the name nowhere.invalid cannot be resolved" in texts


def test_a_peer_whose_name_comes_later(start: Start, tmp_path: Path) -> None:
    """Names that are not known yet are asked for again, until they are."""
    hook, asked, known = tmp_path / "hook", tmp_path / "asked", tmp_path / "known"
    hook.mkdir()
    lines = [
        "import os, socket",
        "real = socket.getaddrinfo",
        "def found(host, *args, **named):",
        "    if host == 'late.invalid':",
        f"        open({str(asked)!r}, 'a').write('x')",
        f"        if not os.path.exists({str(known)!r}):",
        "            raise socket.gaierror(-2, 'not yet')",
        "    return real('localhost', *args, **named)",
        "socket.getaddrinfo = found",
    ]
    (hook / "sitecustomize.py").write_text("\n".join(lines))
    cluster = {"worker": ("localhost:1111", "late.invalid:1111")}
    pods = start(workers(2), acts.give, 1, cluster=cluster, environment={"PYTHONPATH": os.pathsep.join([str(hook), *sys.path])})
    eventually(lambda: asked.exists() and asked.stat().st_size > 2, 30)
    assert {process.poll() for process in pods.processes.values()} == {None}
    known.touch()
    assert pods.kinds() == {"worker-0": ("returned", 0), "worker-1": ("returned", 0)}


def test_a_peer_that_never_comes(tmp_path: Path) -> None:
    """A pod that is not started is given up in the end, with what may be in the way."""
    with Pods(tmp_path, workers(2), acts.give, 1, peers_timeout=2.0) as pods:
        report = pods.start("worker-0").report("worker-0")
        assert (report.kind, report.code, report.cause) == ("stopped", 143, "worker-1")
        assert f"port {pods.orders.control_port}" in report.text


def test_a_coordinator_that_never_comes(tmp_path: Path) -> None:
    """The same the other way round; what it has returned is kept."""
    with Pods(tmp_path, workers(3), acts.each, {"worker-1": ("wait",), "worker-2": ("give", 2)}, peers_timeout=2.0) as pods:
        pods.start("worker-1", "worker-2")
        assert pods.kinds() == {"worker-1": ("stopped", 143), "worker-2": ("returned", 0)}


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The option that names another one is told."""
    with Pods(tmp_path, workers(2), acts.give, 1) as pods, socket.create_server(("", pods.orders.control_port)):
        report = pods.start("worker-0").report("worker-0")
        assert report.kind == "refused"
        assert "kubernetes={'control_port'" in report.text


def test_an_elastic_group_goes_on_without_the_lost(start: Start) -> None:
    """As long as as many are left as are needed; a failure that is no loss still fails the run."""
    acted = {"worker-0": ("later", 2.0, 0), "worker-1": ("later", 2.0, 1), "worker-2": ("kill", int(signal.SIGKILL))}
    pods = start(workers(3), acts.each, acted, needed=2)
    assert pods.kinds() == {"worker-0": ("returned", 0), "worker-1": ("returned", 0), "worker-2": ("ended", 137)}


def test_a_failure_ends_an_elastic_group_too(start: Start) -> None:
    """An exception is no loss."""
    pods = start(workers(2), acts.only, "worker-1", "fail", "really", needed=1)
    assert pods.kinds() == {"worker-0": ("stopped", 143), "worker-1": ("raised", 1)}


class TestOperator:
    """What an operator was to tell the pod."""

    def test_nothing(self, start: Start) -> None:
        """Nobody trains alone because no operator was there."""
        pods = start(workers(2), acts.give, 1, workload="operator")
        kinds = pods.kinds()
        assert set(kinds.values()) <= {("refused", 126), ("stopped", 143)}
        refused = next(name for name, (kind, _) in kinds.items() if kind == "refused")
        assert "the operator of TFJobs has not told it where the others are" in pods.report(refused).text

    @pytest.mark.parametrize(
        ("index", "count", "kind"), [(0, 2, "returned"), (1, 2, "refused"), (0, 3, "refused")], ids=["right", "another", "more"]
    )
    def test_something(self, tmp_path: Path, index: int, count: int, kind: str) -> None:
        """The same group, and the same replica of it, or nothing."""
        hosts = [f"mine-worker-{number}.here.svc:2222" for number in range(count)]
        told = json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}, "environment": "cloud"})
        with Pods(tmp_path, workers(2), acts.give, 1, workload="operator", peers_timeout=3.0, deciders=("worker-0",)) as pods:
            pods.start("worker-0", environment={"TF_CONFIG": told})
            if kind == "returned":
                other = json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 1}, "environment": "cloud"})
                pods.start("worker-1", environment={"TF_CONFIG": other})
            report = pods.report("worker-0")
            assert report.kind == kind
            assert kind == "returned" or "the operator of TFJobs says that this is" in report.text
