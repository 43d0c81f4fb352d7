"""
What a pod's part in a run amounts to, whatever happens and in whatever order: laws that hold for every story.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib.engines.kubernetes._orders import Orders
from distrib.engines.kubernetes._part import GONE_SECONDS, LOST_SECONDS, Move, Part
from distrib.engines.kubernetes._report import Report

GRACE = 10.0
PEERS = 600.0
NAMES = ("chief-0", "ps-0", "worker-0", "worker-1")
#: Longer than any patience.
LATE = 10 * PEERS


def orders(**fields: Any) -> Orders:
    """A run with a chief that decides, a service and two workers."""
    cluster = {"chief": ("a:1",), "ps": ("b:1",), "worker": ("c:1", "d:1")}
    given = {"coordinator": "chief-0", "services": ("ps",), "deciders": ("chief-0",), "grace_period": GRACE, "peers_timeout": PEERS}
    return Orders(**{"run": "mine", "namespace": "here", "workload": "job", "cluster": cluster, **given, **fields})


def part(name: str, **fields: Any) -> Part:
    """One replica's."""
    return Part(orders=orders(**fields), name=name, began=0.0)


def report(name: str, kind: str, code: int = 0, number: int | None = None) -> Report:
    """How its function ended."""
    return Report(replica=name, kind=kind, code=code, signal=number)


RETURNED, RAISED, KILLED = ("returned", 0, None), ("raised", 1, None), ("ended", 137, 9)
ENDS = st.sampled_from([RETURNED, RAISED, KILLED])
EVENTS = st.one_of(
    st.tuples(st.just("says"), st.sampled_from(NAMES[1:]), st.sampled_from(["here", "serving", "returned", "failed"])),
    st.tuples(st.just("loses"), st.sampled_from(NAMES[1:])),
    st.tuples(st.just("hears"), st.sampled_from(["here", "over", "failed"]), st.sampled_from(NAMES)),
    st.tuples(st.just("ended"), ENDS),
    st.tuples(st.just("told_to_end")),
    st.tuples(st.just("time"), st.floats(0.1, 30)),
)
RESTARTS = st.dictionaries(st.sampled_from(["chief", "worker", "ps"]), st.sampled_from(["Never", "OnFailure", "ExitCode"]))


class Story:
    """A part, and the time in which things happen to it."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.part = part(name, **fields)
        self.now = 0.0
        self.move: Move | None = None
        self.happened: list[tuple[Any, ...]] = []

    def take(self, event: tuple[Any, ...]) -> None:
        """Have something happen, unless it has ended."""
        kind, *rest = event
        if self.move is not None or (kind == "ended" and self.part.own is not None):
            return
        if (kind in ("says", "loses") and not self.part.is_lead) or (kind == "hears" and self.part.is_lead):
            return
        self.happened.append(event)
        if kind == "says":
            self.part.says(rest[0], rest[1], self.now)
        elif kind == "loses":
            self.part.loses(rest[0], self.now)
        elif kind == "hears":
            self.part.meets(self.part.orders.coordinator)
            self.part.hears(rest[0], rest[1])
        elif kind == "ended":
            self.part.ended(report(self.part.name, *rest[0]), self.now)
        elif kind == "told_to_end":
            self.part.told_to_end()
        else:
            self.now += rest[0]
        self.move = self.part.next(self.now)

    def go_on(self) -> None:
        """Let time pass as a pod does: until it is to look again, or for ever."""
        while self.move is None and (seconds := self.part.when(self.now)) is not None and self.now < LATE:
            self.now += seconds
            self.move = self.part.next(self.now)


STORIES = st.builds(
    lambda name, restarts, events: (name, restarts, events), st.sampled_from(NAMES), RESTARTS, st.lists(EVENTS, max_size=12)
)


@given(STORIES)
def test_nothing_but_a_success_ends_with_0(told: tuple[str, dict[str, str], list[tuple[Any, ...]]]) -> None:
    """A pod ends with 0 if its function has returned, or if it was not waited for when the run was over."""
    name, restarts, events = told
    story = Story(name, restarts=restarts)
    for event in events:
        story.take(event)
    story.go_on()
    if story.move is None:
        return
    ended = story.move.report
    assert (ended.code == 0) == (ended.kind == "returned" or ended.text == "the run is over")
    assert ended.kind != "returned" or story.part.own is ended


@given(STORIES)
def test_the_coordinator_ends_well_only_when_all_is_decided(told: tuple[str, dict[str, str], list[tuple[Any, ...]]]) -> None:
    """It has returned, nobody has failed, and either all have returned or they have had their time."""
    _, restarts, events = told
    story = Story("chief-0", restarts=restarts)
    for event in events:
        story.take(event)
    story.go_on()
    if story.move is None or story.move.report.code != 0:
        return
    said = {(event[1], event[2]) for event in story.happened if event[0] == "says"}
    assert not {who for who, word in said if word == "failed"}
    assert story.move.tell == {"word": "over"}
    all_back = all({(worker, "returned"), (worker, "serving")} & said for worker in ("worker-0", "worker-1"))
    assert all_back or story.now >= GRACE


@given(STORIES)
def test_whoever_has_ended_leaves_in_the_end(told: tuple[str, dict[str, str], list[tuple[Any, ...]]]) -> None:
    """Whatever the others do or leave undone: no pod stays for ever once its function has ended and its line is cut."""
    name, restarts, events = told
    story = Story(name, restarts=restarts)
    for event in events:
        story.take(event)
    if story.move is None and story.part.own is None:
        story.take(("ended", RETURNED))
    if story.move is None:
        for peer in NAMES[1:] if story.part.is_lead else NAMES[:1]:
            if peer != name and story.move is None:
                story.part.loses(peer, story.now)
                story.move = story.part.next(story.now)
    story.go_on()
    assert story.move is not None


@given(STORIES)
def test_a_failure_that_nobody_mends_is_told(told: tuple[str, dict[str, str], list[tuple[Any, ...]]]) -> None:
    """The coordinator tells it to all, and a member tells its own to the coordinator."""
    name, restarts, events = told
    story = Story(name, restarts=restarts)
    for event in events:
        story.take(event)
    if story.move is None or story.move.report.code == 0:
        return
    ended = story.move.report
    is_own = story.part.own is ended or ended.text == "the pod was told to end"
    mended = is_own and orders(restarts=restarts).restarts_after(name.rpartition("-")[0], ended.code)
    tells = story.move.tell.get("word") == "failed"
    assert tells == (not mended and (is_own or story.part.is_lead))


@pytest.mark.parametrize(("restarts", "patience"), [({}, GONE_SECONDS), ({"worker": "OnFailure"}, PEERS)])
def test_a_member_that_is_gone_is_waited_for(restarts: dict[str, str], patience: float) -> None:
    """For long only if it may be started again."""
    story = Story("chief-0", restarts=restarts)
    for name in NAMES[1:]:
        story.part.says(name, "here", 1.0)
    story.part.loses("worker-1", 2.0)
    story.now = 2.0
    story.go_on()
    assert story.move is not None
    assert (story.now, story.move.report.cause, story.move.tell["cause"]) == (2.0 + patience, "worker-1", "worker-1")


@pytest.mark.parametrize(("restarts", "patience"), [({}, LOST_SECONDS), ({"chief": "OnFailure"}, PEERS)])
def test_a_coordinator_that_is_gone_is_waited_for(restarts: dict[str, str], patience: float) -> None:
    """The same the other way round; what was returned stays."""
    story = Story("worker-1", restarts=restarts)
    story.take(("hears", "here", ""))
    story.take(("ended", RETURNED))
    story.part.loses("chief-0", 2.0)
    story.now = 2.0
    story.go_on()
    assert story.move is not None
    assert (story.now, story.move.report.kind) == (2.0 + patience, "returned")


def test_an_elastic_run_has_to_keep_as_many_as_it_needs() -> None:
    """The first ones lost are not missed; one too many is."""
    story = Story("worker-0", cluster={"worker": ("a:1", "b:1", "c:1")}, coordinator="worker-0", deciders=("worker-0",), needed=2)
    for name in ("worker-1", "worker-2"):
        story.part.says(name, "here", 1.0)
    story.part.loses("worker-2", 2.0)
    story.now = 2.0 + 2 * GONE_SECONDS
    assert story.part.next(story.now) is None
    story.part.loses("worker-1", story.now)
    story.go_on()
    assert story.move is not None
    assert story.move.report.code == 143
