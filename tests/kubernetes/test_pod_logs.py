"""
Logs of pods: whole, once, and as they grow.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import Pod
from standin import RefusedError, StandIn, eventually

from distrib.engines.kubernetes._client import Client
from distrib.engines.kubernetes._logs import LONGEST_PARTIAL, Channel, Cursor, Logs, read_all
from distrib.engines.kubernetes._seen import pod_of

WHERE = "/api/v1/namespaces/here/pods"


@st.composite
def written(draw: Any) -> list[tuple[str, bytes]]:
    """What a container writes: the time of each line, which goes back a little now and then, and the line."""
    nanos, lines = 0, []
    for _ in range(draw(st.integers(0, 30))):
        nanos = max(0, nanos + draw(st.sampled_from([0, 0, 1, 400_000_000, 1_700_000_000, -3])))
        stamp = f"2026-11-24T05:40:{nanos // 10**9:02d}.{nanos % 10**9:09d}"
        # Kubelets were seen to leave out the last zeros.
        stamp = (stamp.rstrip("0").rstrip(".") if draw(st.booleans()) else stamp) + "Z"
        lines.append((stamp, draw(st.sampled_from([b"", b"a", b"step 1", b"x" * 300])) + b"\n"))
    return lines


def answer(lines: list[tuple[str, bytes]], since: str | None) -> bytes:
    """What the kubelet gives out: lines since a full second."""
    assert not since or since.endswith("Z"), "the API server refuses a time without its zone"
    return b"".join(f"{stamp} ".encode() + line for stamp, line in lines if not since or stamp[:19] >= since[:19])


@given(lines=written(), data=st.data())
def test_nothing_is_lost_or_repeated(lines: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """
    Wherever the connection breaks, and however often, what is given out is what was written.
    """
    cursor, given_out = Cursor(), b""
    for broken in [*data.draw(st.lists(st.just(True), max_size=5)), False]:
        there = answer(lines, cursor.since())
        end = data.draw(st.integers(0, len(there))) if broken else len(there)
        while there[:end]:
            size = data.draw(st.integers(1, max(1, end)))
            given_out += cursor.take(there[: min(size, end)])
            there, end = there[min(size, end) :], end - min(size, end)
    assert given_out + cursor.end() == b"".join(line for _, line in lines)


@given(cuts=st.lists(st.integers(0, 5 * LONGEST_PARTIAL), max_size=4).map(sorted))
def test_a_line_without_an_end(cuts: list[int]) -> None:
    """
    A very long line comes in pieces, so that memory stays bounded, and once, also if the connection breaks within it.
    """
    stamp, text = b"2026-11-24T05:40:01.000000000Z ", b"".join(b"%08d" % number for number in range(5 * LONGEST_PARTIAL // 8))
    cursor, found = Cursor(), b""
    for cut in [*cuts, len(text)]:
        cursor.since()
        whole = (stamp + text)[: len(stamp) + cut]
        for at in range(0, len(whole), 10_000):
            found += cursor.take(whole[at : at + 10_000])
            assert len(cursor._rest) <= LONGEST_PARTIAL + len(stamp)
    found += cursor.take(b"\n")
    assert found == text + b"\n"


def test_what_the_kubelet_says() -> None:
    """
    A line without a time, the kubelet's own about a log that it cannot read, is given out as it is.
    """
    cursor = Cursor()
    cursor.since()
    assert (
        cursor.take(b"unable to retrieve container logs for containerd://1\n") == b"unable to retrieve container logs for containerd://1\n"
    )
    assert cursor.since() is None


class Shown:
    """What is shown of some pods."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin
        self.data: dict[str, bytes] = {}
        self.logs = Logs(Client(), "here", self.show)

    def show(self, name: str, data: bytes) -> None:
        self.data[name] = self.data.get(name, b"") + data

    def see(self, version: dict[str, Any]) -> None:
        """A pod's next version, which the server knows too."""
        self.standin.put(WHERE, version)
        self.logs.see(pod_of(version), gone=False)

    def wait(self, **texts: str) -> None:
        """Wait until that has been shown, and nothing else."""
        wanted = {name.replace("_", "-"): text.encode() for name, text in texts.items()}
        try:
            eventually(lambda: self.data == wanted, 5)
        except AssertionError:
            assert self.data == wanted
            raise


@pytest.fixture(name="shown")
def _shown(standin: StandIn) -> Iterator[Shown]:
    shown = Shown(standin)
    yield shown
    shown.logs.close()


def test_from_pending_on(standin: StandIn, shown: Shown) -> None:
    """
    A pod's log is followed as soon as its container has started; until then nobody asks for it.
    """
    one = Pod("worker-0")
    shown.see(one.pending())
    shown.see(one.waiting("ContainerCreating"))
    assert standin.asked()["log", "pods/log"] == 0
    shown.see(one.running())
    standin.write(one.data["metadata"]["name"], b"one", b"two")
    shown.wait(worker_0="one\ntwo\n")
    standin.finish(one.data["metadata"]["name"])
    shown.see(one.ended(0))
    shown.logs.drain(5)
    assert standin.asked()["log", "pods/log"] == 1
    assert all(query["container"] == "node" for verb, _, query in standin.requests if verb == "log")


def test_the_end_is_not_waited_for(standin: StandIn, shown: Shown) -> None:
    """
    A real kubelet ends a log, and calls the pod over, up to a second after its container has ended: all of it is read before.
    """
    one = Pod("worker-0")
    shown.see(one.running())
    name = one.data["metadata"]["name"]
    standin.write(name, b"one")
    shown.wait(worker_0="one\n")
    shown.see(one.ended(0, again=True))
    began = monotonic()
    shown.logs.drain(5)
    assert monotonic() - began < 2
    assert shown.data == {"worker-0": b"one\n"}
    assert [query.get("follow") for verb, _, query in standin.requests if verb == "log"] == ["true", None]


def test_a_container_that_is_just_starting(standin: StandIn, shown: Shown) -> None:
    """
    A server that says that the container is waiting to start is asked again when the pod has changed, not sooner.
    """
    one = Pod("worker-0")
    version = one.running()
    standin.put(WHERE, version)
    name = version["metadata"]["name"]
    standin.refusals["log", "pods/log"] = [RefusedError(400, "BadRequest", "is waiting to start: PodInitializing")]
    standin.write(name, b"hello")
    shown.logs.see(pod_of(version), gone=False)
    eventually(lambda: standin.asked()["log", "pods/log"] == 1)
    threading.Event().wait(0.5)
    assert standin.asked()["log", "pods/log"] == 1
    shown.see(one.running())
    shown.wait(worker_0="hello\n")


def test_broken_connections(standin: StandIn, shown: Shown) -> None:
    """
    Lines of one instant, and one that is cut in the middle, come once.
    """
    one = Pod("worker-0")
    shown.see(one.running())
    name, text = one.data["metadata"]["name"], ""
    for number in range(4):
        standin.write(name, *(b"same" for _ in range(number)), b"%d" % number, stamp="2026-11-24T05:40:00.000000000Z")
        standin.write(name, b"half ", end=b"", stamp="2026-11-24T05:40:00.000000001Z")
        text += "same\n" * number + f"{number}\n"
        shown.wait(worker_0=text)
        standin.cut()
        eventually(lambda number=number: standin.asked()["log", "pods/log"] == number + 2)
        standin.write(name, b"line", stamp="2026-11-24T05:40:00.000000001Z")
        text += "half line\n"
        shown.wait(worker_0=text)
    assert all("sinceTime" in query for verb, _, query in standin.requests[1:] if verb == "log")


def test_restarts(standin: StandIn, shown: Shown) -> None:
    """
    A container that is started again goes on in the same log; what the one before it wrote is not lost.
    """
    one = Pod("worker-0")
    shown.see(one.running())
    name = one.data["metadata"]["name"]
    standin.write(name, b"first")
    standin.finish(name)
    shown.see(one.ended(1, again=True))
    shown.see(one.restarting())
    shown.wait(worker_0="first\n")
    standin.write(name, b"second", number=1)
    shown.see(one.running())
    shown.wait(worker_0="first\nsecond\n")
    # Missed while it ran: it is read from what the cluster keeps of the last one but one.
    standin.finish(name, 1)
    one.restarts = 2
    standin.write(name, b"third", number=2)
    standin.finish(name, 2)
    shown.see(one.ended(0))
    shown.wait(worker_0="first\nsecond\nthird\n")


def test_a_pod_that_vanishes(standin: StandIn, shown: Shown) -> None:
    """
    A pod that is gone is not waited for.
    """
    one = Pod("worker-0")
    version = one.running()
    shown.logs.see(pod_of(version), gone=False)
    shown.logs.drain(5)
    assert shown.data == {}
    other = Pod("worker-1")
    shown.logs.see(pod_of(other.pending()), gone=False)
    shown.logs.see(pod_of(other.pending()), gone=True)
    shown.logs.drain(5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("distrib reads")]


def test_who_is_slow_makes_readers_wait(standin: StandIn) -> None:
    """
    What nobody takes is not heaped up: readers wait when there is a megabyte.
    """
    channel, done = Channel(), threading.Event()

    def read() -> None:
        for _ in range(10):
            channel.put("worker-0", b"x" * (1 << 20))
        channel.end()
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert not done.wait(0.2)
    assert sum(len(data) for _, data in channel.take()) == 10 << 20
    assert done.wait(5)


def test_what_is_kept(standin: StandIn) -> None:
    """
    Afterwards all that the cluster keeps is read, of the container before the last one too.
    """
    one = Pod("worker-0")
    one.restarts = 1
    version = one.ended(0)
    name = version["metadata"]["name"]
    standin.put(WHERE, version)
    for number in range(2):
        standin.write(name, b"from %d" % number, number=number)
        standin.finish(name, number)
    assert b"".join(read_all(Client(), "here", pod_of(version))) == b"from 0\nfrom 1\n"
    standin.remove(WHERE, name)
    assert list(read_all(Client(), "here", pod_of(version))) == []


def test_many_pods_at_once(standin: StandIn, shown: Shown) -> None:
    """
    The logs of many pods are followed at once: none of them has ended when all have been read.
    """
    names = []
    for index in range(50):
        one = Pod(f"worker-{index}")
        shown.see(one.running())
        names.append(one.data["metadata"]["name"])
    for name in names:
        standin.write(name, b"hello")
    eventually(lambda: len(shown.data) == 50)
    assert set(shown.data.values()) == {b"hello\n"}
    for name in names:
        standin.finish(name)
