"""
Objects that are followed.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standin import RefusedError, StandIn, eventually

from distrib.engines.kubernetes import _watch
from distrib.engines.kubernetes._client import Client
from distrib.engines.kubernetes._kinds import PODS
from distrib.engines.kubernetes._watch import News, Watch, pause_after

WHERE = "/api/v1/namespaces/here/pods"


def pod(name: str, run: str = "mine", **status: str) -> dict[str, object]:
    """A pod of a run."""
    return {"metadata": {"name": name, "labels": {"distrib.dev/run": run}}, "status": status}


class Told:
    """What a watch tells."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[News] = queue.Queue()
        self.watch = Watch(Client(), PODS, "here", self.inbox.put, labelSelector="distrib.dev/run=mine").start()

    def next(self) -> tuple[str, list[str]]:
        """The next news: the change, and the names it is about."""
        news = self.inbox.get(timeout=10)
        return news.change, [data["metadata"]["name"] for data in news.objects]

    def end(self) -> None:
        """Wait until the watch has ended."""
        eventually(lambda: not self.watch._thread.is_alive())


@pytest.fixture(name="told")
def _told(standin: StandIn) -> Iterator[Told]:
    standin.put(WHERE, pod("before"))
    standin.put(WHERE, pod("other", "another"))
    told = Told()
    assert told.next() == ("LISTED", ["before"])
    yield told
    told.watch.stop()
    told.end()


def test_changes_are_told(standin: StandIn, told: Told) -> None:
    """
    What there is is listed once, and each change is told as it comes; those of others are not.
    """
    standin.put(WHERE, pod("other-2", "another"))
    standin.put(WHERE, pod("new"))
    standin.change(WHERE, "before", {"status": {"phase": "Running"}})
    standin.remove(WHERE, "new")
    assert [told.next() for _ in range(3)] == [("ADDED", ["new"]), ("MODIFIED", ["before"]), ("DELETED", ["new"])]


def test_a_broken_connection_is_taken_up(standin: StandIn, told: Told) -> None:
    """
    After the connection broke, the watch goes on from the last version: nothing is listed again, lost or told twice.
    """
    for number in range(5):
        eventually(lambda number=number: standin.asked()["watch", "pods"] == number + 1)
        standin.put(WHERE, pod(f"new-{number}"))
        assert told.next() == ("ADDED", [f"new-{number}"])
        standin.cut()
        standin.put(WHERE, pod(f"between-{number}"))
        assert told.next() == ("ADDED", [f"between-{number}"])
    assert standin.asked()["list", "pods"] == 1


def test_bookmarks_move_on(standin: StandIn, told: Told) -> None:
    """
    From a bookmark on, a watch goes on although the server has forgotten what was before.
    """
    eventually(lambda: standin.asked()["watch", "pods"])
    for _ in range(3):
        standin.put(WHERE, pod("other", "another"))
    standin.bookmark(WHERE)
    standin.put(WHERE, pod("new"))
    assert told.next() == ("ADDED", ["new"])
    standin.compact()
    standin.cut()
    standin.put(WHERE, pod("newer"))
    assert told.next() == ("ADDED", ["newer"])
    assert standin.asked()["list", "pods"] == 1


def test_too_old_a_version_is_listed_anew(standin: StandIn, told: Told) -> None:
    """
    A server that has forgotten the version says so, and all is listed again.
    """
    eventually(lambda: standin.asked()["watch", "pods"])
    with standin.changed:
        standin.cut()
        standin.remove(WHERE, "before")
        standin.put(WHERE, pod("new"))
        standin.compact()
    assert told.next() == ("LISTED", ["new"])
    assert standin.asked()["list", "pods"] == 2


def test_gone_in_the_middle(standin: StandIn, told: Told) -> None:
    """
    It may also be said within a watch.
    """
    eventually(lambda: standin.asked()["watch", "pods"])
    with standin.changed:
        standin.version += 1
        status = {
            "kind": "Status",
            "code": 410,
            "reason": "Expired",
            "message": "too old",
            "metadata": {"labels": {"distrib.dev/run": "mine"}},
        }
        standin.history.append((standin.version, "ERROR", WHERE, status))
        standin.changed.notify_all()
    assert told.next() == ("LISTED", ["before"])


def test_a_server_that_is_away(standin: StandIn, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is told once that the server cannot be asked, and once that it answers again; what happened meanwhile is told.
    """
    monkeypatch.setattr(_watch, "LONGEST_PAUSE", 0.2)
    standin.is_down = True
    standin.cut()
    assert told.next() == ("LOST", [])
    standin.put(WHERE, pod("new"))
    standin.is_down = False
    assert told.next() == ("BACK", [])
    assert told.next() == ("ADDED", ["new"])


def test_a_server_that_has_too_much_to_do(standin: StandIn) -> None:
    """
    Answers such as 429 and 500 pass.
    """
    standin.refusals["list", "pods"] = [RefusedError(429, "TooManyRequests", "later"), RefusedError(500, "InternalError", "hm")]
    told = Told()
    assert told.next() == ("LISTED", [])
    told.watch.stop()


@pytest.mark.parametrize("answer", [{"page": b"<html>Log in first</html>"}, {"page": b"[]"}, {"message": "no list"}])
def test_answers_of_others(standin: StandIn, answer: dict[str, Any]) -> None:
    """
    What is no API server's answer, such as the page of a proxy, passes like a server that is away.
    """
    standin.refusals["list", "pods"] = [RefusedError(200, **answer)]
    told = Told()
    assert told.next() == ("LISTED", [])
    told.watch.stop()


def test_credentials_that_are_being_exchanged(standin: StandIn, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A kubeconfig that cannot be read when its token has expired is read again until it can be.
    """
    monkeypatch.setattr(_watch, "LONGEST_PAUSE", 0.2)
    path = Path(os.environ["KUBECONFIG"])
    path.write_text("half a ", encoding="utf-8")
    standin.tokens = {"Bearer new"}
    standin.cut()
    assert told.next() == ("LOST", [])
    standin.put(WHERE, pod("new"))
    standin.kubeconfig(path, {"token": "new"})
    assert [told.next() for _ in range(2)] == [("BACK", []), ("ADDED", ["new"])]


def test_what_nobody_has_thought_of(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever ends a watch is told: nobody waits for its news without end.
    """
    monkeypatch.setattr(Client, "list", lambda *_, **__: {"metadata": 1})
    told = Told()
    assert told.next() == ("REFUSED", [])
    told.end()


def test_what_is_forbidden(standin: StandIn) -> None:
    """
    Whoever may not list is told so, and the watch ends.
    """
    standin.refusals["list", "pods"] = [RefusedError(403, "Forbidden", 'pods is forbidden: User "me" cannot list')]
    told = Told()
    news = told.inbox.get(timeout=10)
    assert news.change == "REFUSED"
    assert "cannot list" in str(news.error)
    told.end()
    assert told.inbox.empty()


def test_forbidden_for_a_moment(standin: StandIn, told: Told) -> None:
    """
    A server that has let us before, and forbids it after it was started again, is asked again.
    """
    eventually(lambda: standin.asked()["watch", "pods"])
    standin.refusals["watch", "pods"] = [RefusedError(403, "Forbidden", "not yet")]
    standin.cut()
    standin.put(WHERE, pod("new"))
    assert told.next() == ("ADDED", ["new"])


def test_silence_asks_for_nothing(standin: StandIn, told: Told) -> None:
    """
    While nothing happens nobody is asked.
    """
    eventually(lambda: standin.asked()["watch", "pods"])
    with pytest.raises(queue.Empty):
        told.inbox.get(timeout=1)
    assert sum(standin.asked().values()) == 2


def test_stopping_wakes_it(standin: StandIn, told: Told) -> None:
    """
    A watch ends at once when it is stopped, also while it waits.
    """
    eventually(lambda: standin.asked()["watch", "pods"])
    told.watch.stop()
    told.end()


def test_pauses_grow_and_differ() -> None:
    """
    The pause before the next try is doubled up to a limit, and never the same for all.
    """
    assert all(0.1 <= pause_after(1) <= 0.2 for _ in range(20))
    assert all(15 <= pause_after(50) <= 30 for _ in range(20))
    assert len({pause_after(5) for _ in range(20)}) > 10
