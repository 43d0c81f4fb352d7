"""
Where a run stands, by what is seen of its objects.
"""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import START, Pod, event, events, pods, raised, returned, shape, state_after, stopped, top, tops

from distrib import RunState
from distrib._outcome import ProcessFailedError, tell_end
from distrib.engines.kubernetes._events import events_of
from distrib.engines.kubernetes._failure import error_of
from distrib.engines.kubernetes._state import State
from distrib.engines.kubernetes._watch import News
from distrib.errors import ReplicaFailedError, RunCancelledError, RunFailedError, RunTimeoutError


def error(state: State) -> Any:
    """The error of a run that is over."""
    verdict = state.conclude(anyway=True)
    assert verdict is not None
    return error_of(state, verdict, namespace="here", tail=lambda pod: f"the end of {pod.name}")


class TestSuccess:
    def test_the_coordinator_has_the_last_word(self) -> None:
        """
        A run whose coordinator has returned has succeeded, before its workload says so.
        """
        one, other = Pod("worker-0"), Pod("worker-1")
        state = state_after(
            pods(one.running(), other.running(), one.ended(0, returned("worker-0", 42)), other.ended(0, returned("worker-1")))
        )
        assert state.conclude() is not None
        assert state.status().state is RunState.SUCCEEDED
        assert {name: end.is_value for name, end in state.values().items()} == {"worker-0": True, "worker-1": True}

    def test_both_conditions(self) -> None:
        """
        When the operator says both that it has succeeded and failed, the coordinator's value decides.
        """
        both = top(("Succeeded", "TFJobSucceeded", "done"), ("Failed", "TFJobFailed", "a worker failed"))
        one, other = Pod("worker-0"), Pod("worker-1")
        ends = pods(one.ended(0, returned("worker-0", 1)), other.ended(1, raised("worker-1", time=START + 11)))
        assert state_after([*ends, *tops(both)]).verdict().state is RunState.SUCCEEDED
        ends = pods(one.ended(143, stopped("worker-0", "worker-1")), other.ended(1, raised("worker-1")))
        assert state_after([*ends, *tops(both)]).verdict().root == "worker-1"

    def test_it_waits_for_the_others(self) -> None:
        """
        As long as another pod runs its value may still come: the verdict is final when all have ended.
        """
        one, other = Pod("worker-0"), Pod("worker-1")
        state = state_after(pods(one.ended(0, returned("worker-0")), other.running()))
        assert state.verdict().state is RunState.SUCCEEDED
        assert state.conclude() is None
        state.take(pods(other.ended(0, returned("worker-1", 5)))[0])
        assert state.conclude() is not None
        assert set(state.values()) == {"worker-0", "worker-1"}

    def test_values_outlive_their_pods(self) -> None:
        """
        With clean_pod_policy='All' pods vanish; what they returned is kept.
        """
        one = Pod("worker-0")
        state = state_after([*pods(one.ended(0, returned("worker-0", 1))), *pods(one.deleted(START + 10), change="DELETED")], workers=1)
        assert state.conclude().state is RunState.SUCCEEDED
        assert set(state.values()) == {"worker-0"}

    def test_a_service_that_was_stopped(self) -> None:
        """
        A service that was told to end, with exit code 0, has no value.
        """
        one, server = Pod("worker-0"), Pod("ps-0")
        state = state_after(
            pods(one.ended(0, returned("worker-0")), server.ended(0, stopped("ps-0", code=0))), roles={"worker": 1, "ps": 1}
        )
        assert state.conclude().state is RunState.SUCCEEDED
        assert state.status().replicas["ps-0"].state == "Stopped"
        assert set(state.values()) == {"worker-0"}


class TestFailure:
    def test_the_earliest(self) -> None:
        """
        Of several failures the earliest is reported, by the clock of the replicas where they have told it.
        """
        one, other = Pod("worker-0"), Pod("worker-1")
        ends = pods(
            one.ended(1, raised("worker-0", time=START + 9.7), at=START + 9),
            other.ended(1, raised("worker-1", time=START + 9.2), at=START + 9),
        )
        found = error(state_after(ends))
        assert isinstance(found, ReplicaFailedError)
        assert found.replica == "worker-1"
        assert isinstance(found.__cause__, ValueError)
        assert "worker-0 failed after it." in str(found)

    def test_never_one_that_was_stopped(self) -> None:
        """
        A replica that was stopped because of another is not the one at fault, however early it ended.
        """
        one, other = Pod("worker-0"), Pod("worker-1")
        ends = pods(one.ended(143, stopped("worker-0", "worker-1", time=START + 5)), other.ended(1, raised("worker-1", time=START + 9)))
        found = error(state_after(ends))
        assert found.replica == "worker-1"
        assert "1 other was stopped." in str(found)

    def test_killed_without_a_word(self) -> None:
        """
        A pod that was asked to go before it ended was stopped, also if it could not say so.
        """
        one, other = Pod("worker-0"), Pod("worker-1")
        one.running()
        one.deleted(START + 8)
        ends = pods(one.ended(137, at=START + 18), other.ended(1, raised("worker-1", time=START + 7.5)))
        state = state_after(ends)
        assert error(state).replica == "worker-1"
        assert state.status().replicas["worker-0"].state == "Stopped"

    def test_out_of_memory(self) -> None:
        """
        A container beyond its memory limit is told so.
        """
        one = Pod("worker-0")
        found = error(state_after(pods(one.ended(137, reason="OOMKilled")), workers=1))
        assert found.exit_code == 137
        assert "out of memory" in found.hint
        assert "out of memory" in str(found)

    def test_a_process_of_its_own_that_ended_without_a_word(self) -> None:
        """
        The signal is told as one, although the replica itself has ended with an exit code.
        """
        lost = ProcessFailedError(tell_end(-signal.SIGKILL), 3)
        found = error(state_after(pods(Pod("worker-0").ended(137, raised("worker-0", lost))), workers=1))
        assert (found.exit_code, found.signal) == (137, signal.SIGKILL)
        assert "worker-0 was ended by signal 9 (SIGKILL): killed from outside" in str(found)

    def test_an_end_without_a_word(self) -> None:
        """
        Exit code 0 without a report is no success.
        """
        one = Pod("worker-0")
        found = error(state_after([*pods(one.ended(0, "what was last in the log")), *tops(top(("Complete", "", "")))], workers=1))
        assert isinstance(found, ReplicaFailedError)
        assert found.exit_code == 0

    def test_evicted(self) -> None:
        """
        A pod that the node has thrown out is told with the node's words.
        """
        one = Pod("worker-0")
        found = error(state_after(pods(one.failed("Evicted", "The node was low on resource: memory.")), workers=1))
        assert found.replica == "worker-0"
        assert "low on resource: memory" in str(found)

    def test_a_command_that_is_not_there(self) -> None:
        """
        A container that could not be started is told with the runtime's words.
        """
        one = Pod("worker-0")
        found = error(state_after(pods(one.ended(128, 'exec: "pythn": not found', reason="StartError")), workers=1))
        assert '"pythn": not found' in str(found)

    def test_deadlines(self) -> None:
        """
        The deadline of the workload, the operator's or the pods' own is a RunTimeoutError.
        """
        for condition in (
            ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"),
            ("Failed", "TFJobFailed", "active longer than specified deadline"),
        ):
            assert isinstance(error(state_after(tops(top(condition)))), RunTimeoutError)
        one = Pod("worker-0")
        late = pods(one.failed("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
        assert isinstance(error(state_after(late, workers=1)), RunTimeoutError)
        one.ended(143, stopped("worker-0"))
        late = pods(one.failed("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
        assert isinstance(error(state_after(late, workers=1)), RunTimeoutError)

    def test_the_backoff_limit(self) -> None:
        """
        A run that has used up its restarts says how many there were.
        """
        one = Pod("worker-0")
        versions = [
            one.running(),
            one.ended(1, raised("worker-0"), again=True),
            one.restarting(),
            one.running(),
            one.ended(1, raised("worker-0")),
        ]
        state = state_after(
            [*pods(*versions), *tops(top(("Failed", "BackoffLimitExceeded", "too many")))], workers=1, restarts={"worker": "OnFailure"}
        )
        assert "BackoffLimitExceeded: 1 restart" in str(error(state))
        assert state.status().restarts == 1
        assert state.status().replicas["worker-0"].attempt == 2

    def test_what_a_workload_alone_says(self) -> None:
        """
        A workload that fails without any replica's failure is told in its own words.
        """
        found = error(state_after(tops(top(("Failed", "FailedJobs", "jobset failed due to a job")))))
        assert type(found) is RunFailedError
        assert "FailedJobs: jobset failed due to a job" in str(found)

    def test_somebody_deletes_it(self) -> None:
        """
        A run whose workload somebody deletes is cancelled.
        """
        state = state_after([*tops(top()), News(tops(top())[0].kind, "DELETED", (top(),))])
        assert isinstance(error(state), RunCancelledError)

    def test_elastic(self) -> None:
        """
        Where some may be lost, the last one too many is the one; one that raises always is.
        """
        three = [Pod(f"worker-{index}") for index in range(3)]
        lost = pods(three[2].ended(137, at=START + 3), three[1].ended(137, at=START + 5))
        failed = tops(top(("Failed", "PyTorchJobFailed", "2 workers failed")))
        assert error(state_after([*lost, *failed], workers=3, needed=2)).replica == "worker-1"
        assert state_after(pods(three[2].ended(137)), workers=3, needed=2).verdict() is None
        both = [*lost, *pods(three[0].ended(1, raised("worker-0", time=START + 6))), *failed]
        assert error(state_after(both, workers=3, needed=2)).replica == "worker-0"


class TestRestarts:
    def test_a_container_that_is_started_again(self) -> None:
        """
        While it waits for its next start the run is restarting; then it runs again.
        """
        one = Pod("worker-0")
        versions = [one.running(), one.ended(1, raised("worker-0"), again=True), one.restarting()]
        state = state_after(pods(*versions), workers=1, restarts={"worker": "OnFailure"})
        assert state.status().state is RunState.RESTARTING
        assert state.verdict() is None
        state.take(pods(one.running())[0])
        assert (state.status().state, state.status().restarts) == (RunState.RUNNING, 1)

    def test_a_pod_that_is_made_anew(self) -> None:
        """
        Restarts are counted by the identity of pods: the operator deletes and makes them anew, with the same name.
        """
        first, second = Pod("worker-0", uid="a"), Pod("worker-0", uid="b", created=START + 20)
        told = [
            *pods(first.running(), first.ended(138, raised("worker-0"))),
            *pods(first.deleted(START + 10), change="DELETED"),
            *pods(second.running()),
        ]
        state = state_after(told, workers=1, restarts={"worker": "ExitCode"})
        assert (state.status().restarts, state.status().replicas["worker-0"].attempt) == (1, 2)
        assert state.verdict() is None

    def test_a_failure_between_two_pods(self) -> None:
        """
        As long as it may be started again, a failure is no verdict.
        """
        first = Pod("worker-0", uid="a")
        assert state_after(pods(first.ended(138, raised("worker-0"))), workers=1, restarts={"worker": "OnFailure"}).verdict() is None
        assert state_after(pods(first.ended(138, raised("worker-0"))), workers=1, gang=True).verdict() is None
        assert state_after(pods(first.ended(138, raised("worker-0"))), workers=1).verdict() is not None


class TestWaiting:
    def test_the_schedulers_words(self) -> None:
        """
        Why a pod is not scheduled is told in the scheduler's words.
        """
        state = state_after(pods(Pod("worker-0").unschedulable("0/1 nodes are available: 1 Insufficient cpu.")))
        assert state.status().replicas["worker-0"].message == "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."
        assert "Insufficient cpu" in state.status().reason
        assert state.verdict() is None
        assert state.stuck()

    @pytest.mark.parametrize(
        ("reason", "message"),
        [
            ("InvalidImageName", "couldn't parse image name"),
            ("ErrImageNeverPull", "Container image is not present with pull policy of Never"),
            ("CreateContainerConfigError", 'secret "mine" not found'),
            ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: rpc error: code = NotFound desc = x: not found'),
            ("ErrImagePull", "pull access denied, repository does not exist or may require authorization"),
        ],
    )
    def test_what_never_heals(self, reason: str, message: str) -> None:
        """
        A pod that will never start ends the run at once, with Kubernetes' words and a remedy.
        """
        found = error(state_after(pods(Pod("worker-1").waiting(reason, message))))
        assert type(found) is RunFailedError
        assert f"worker-1 cannot start: {reason}: {message} (" in str(found)

    def test_what_may_heal(self) -> None:
        """
        A registry that does not answer, a node that has much to do, and a container that is made are waited for.
        """
        for reason, message in (
            ("ErrImagePull", "dial tcp: i/o timeout"),
            ("ContainerCreating", ""),
            ("PodInitializing", ""),
            ("CreateContainerError", "context deadline exceeded"),
            ("CreateContainerError", 'failed to reserve container name "worker": name is reserved for "4f"'),
            ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition"),
        ):
            assert state_after(pods(Pod("worker-0").waiting(reason, message))).verdict() is None

    @pytest.mark.parametrize(
        "message",
        [
            'Error creating: pods "x" is forbidden: status unknown for quota: small, resources: pods',
            'Error creating: pods "x" is forbidden: error looking up service account here/default: serviceaccount "default" not found',
        ],
    )
    def test_a_namespace_that_was_made_just_now(self, message: str) -> None:
        """
        Its controllers have yet to fill it, and then its pods are made.
        """
        assert state_after(events(event("mine-worker", "FailedCreate", message))).verdict() is None

    @pytest.mark.parametrize(
        "message",
        [
            'Error creating: pods "x" is forbidden: exceeded quota: small, requested: cpu=4, used: cpu=0, limited: cpu=2',
            'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            'Error creating: pods "x" is forbidden: error looking up service account here/none: serviceaccount "none" not found',
            'Error creating: admission webhook "policy" denied the request: no',
        ],
    )
    def test_pods_that_nobody_may_make(self, message: str) -> None:
        """
        A quota, a pod security level, a service account or a webhook that keeps pods from being made ends the run at once.
        """
        found = error(state_after(events(event("mine-worker", "FailedCreate", message))))
        assert message in str(found)
        assert str(found).rstrip(".").endswith(")")

    def test_a_refusal_that_has_passed(self) -> None:
        """
        What once kept pods from being made is forgotten when they are there, also while one of them is made anew later.
        """
        quota = events(event("mine-worker", "FailedCreate", 'Error creating: pods "x" is forbidden: exceeded quota: small', at=START + 2))
        one, other = Pod("worker-0", created=START + 3), Pod("worker-1", created=START + 3)
        state = state_after([*quota, *pods(one.running(), other.running())])
        assert (state.verdict(), state.status().state) == (None, RunState.RUNNING)
        state = state_after([*quota, *pods(one.running()), *pods(other.deleted(), change="DELETED")], restarts={"worker": "OnFailure"})
        assert (state.verdict(), bool(state.stuck())) == (None, True)
        again = events(event("mine-worker", "FailedCreate", 'Error creating: pods "y" is forbidden: exceeded quota: small', at=START + 20))
        state.take(again[0])
        assert 'pods "y" is forbidden' in str(error(state))

    def test_what_a_webhook_could_not_say(self) -> None:
        """
        A webhook that does not answer is asked again by whoever makes the pods; what it forbids stays forbidden.
        """
        for reason in ("FailedCreate", "TrainJobResourcesCreationFailed"):
            said = 'Internal error occurred: failed calling webhook "x": failed to call webhook: connection refused'
            assert state_after(events(event("mine", reason, said))).verdict() is None
            assert state_after(events(event("mine", reason, 'admission webhook "x" denied the request: no'))).verdict() is not None

    def test_what_elastic_runs_can_do_without(self) -> None:
        """
        Pods that cannot be made, or never start, end only a run that needs them, or whose coordinator is one of them.
        """
        three = [Pod(f"worker-{index}").running() for index in range(3)]
        quota = events(event("mine-worker", "FailedCreate", 'pods "x" is forbidden: exceeded quota: small'))
        absent = pods(Pod("worker-0").waiting("InvalidImageName"))
        for needed, is_hopeless in ((2, False), (3, False), (4, True), (None, True)):
            assert (state_after([*pods(*three), *quota], workers=4, needed=needed).verdict() is not None) == is_hopeless
        assert state_after([*pods(*three), *quota], workers=4, needed=2).stuck() == ()
        assert state_after([*pods(three[0], three[1]), *quota], workers=4, needed=3).verdict() is not None
        assert state_after([*absent, *pods(*three[1:])], workers=3, needed=1).verdict() is not None
        assert state_after(pods(*three[1:]), workers=3, needed=1).stuck() != ()

    def test_a_volume(self) -> None:
        """
        What events say of a pod explains why its container is not made.
        """
        one = Pod("worker-0")
        version = one.waiting("ContainerCreating")
        told = events(event(version["metadata"]["name"], "FailedMount", 'configmap "data" not found', kind="Pod"))
        state = state_after([*pods(version), *told])
        assert state.status().replicas["worker-0"].message == 'FailedMount: configmap "data" not found'

    def test_events_of_others(self) -> None:
        """
        What happens to others of the namespace is nothing to us.
        """
        assert not state_after(
            events(event("minel", "FailedCreate", "exceeded quota"), event("other", "FailedCreate", "exceeded quota"))
        ).notes

    def test_suspended(self) -> None:
        """
        A run that nobody has admitted is pending, and is waited for without end.
        """
        state = state_after(tops(top(("Suspended", "JobSuspended", "Job suspended"), started=None)))
        assert state.status().state is RunState.PENDING
        assert "Suspended" in state.status().reason
        assert state.stuck() == ()

    def test_before_anything(self) -> None:
        """
        Of a run that nothing is known of, all replicas wait.
        """
        status = State(shape()).status()
        assert status.state is RunState.PENDING
        assert {one.state for one in status.replicas.values()} == {"Waiting"}


# A history is some threads, one for each watch or pod: within one the order is kept, and between them nothing is known.
def _story(failing: frozenset[int], silent: frozenset[int], workers: int, vanish: bool) -> list[list[News]]:
    threads = []
    for index in range(workers):
        name = f"worker-{index}"
        pod = Pod(name, uid=f"u{index}")
        versions = [pod.pending(), pod.waiting("ContainerCreating"), pod.running()]
        if index in failing:
            message = "" if index in silent else raised(name, time=START + 5 + index / 10)
            versions.append(pod.ended(1, message, at=START + 5))
        elif failing:
            versions += [pod.ended(143, stopped(name, f"worker-{min(failing)}"))]
        else:
            versions.append(pod.ended(0, returned(name, index)))
        own = pods(*versions)
        if vanish:
            own += pods(pod.deleted(START + 20), change="DELETED")
        threads.append(own)
    end = ("Failed", "TFJobFailed", "failed") if failing else ("Succeeded", "", "")
    threads.append(tops(top(), top(end)))
    threads.append(events(event("mine-worker-0-u0", "BackOff", "x", kind="Pod"), event("mine-worker", "Odd", "y")))
    return threads


@st.composite
def stories(draw: Any) -> tuple[int, list[list[News]]]:
    """Histories of runs that fail, or do not."""
    workers = draw(st.integers(1, 4))
    failing = draw(st.frozensets(st.integers(0, workers - 1)))
    return workers, _story(failing, draw(st.frozensets(st.integers(0, workers - 1))), workers, draw(st.booleans()))


def interleaved(data: st.DataObject, threads: list[list[News]]) -> list[News]:
    """One of the orders in which watches may tell of it."""
    rest, told = [list(thread) for thread in threads], []
    while any(rest):
        told.append(data.draw(st.sampled_from([thread for thread in rest if thread])).pop(0))
    return told


@given(story=stories(), data=st.data())
def test_the_order_does_not_matter(story: tuple[int, list[list[News]]], data: st.DataObject) -> None:
    """
    Whatever order the watches deliver in, the verdict, the status, the values and the error are the same.
    """
    workers, threads = story
    plain = state_after([one for thread in threads for one in thread], workers=workers)
    other = state_after(interleaved(data, threads), workers=workers)
    assert other.conclude() == plain.conclude()
    assert other.final is not None
    assert other.status() == plain.status()
    assert other.values() == plain.values()
    assert str(error(other)) == str(error(plain))


@given(story=stories(), data=st.data())
def test_what_is_final_stays(story: tuple[int, list[list[News]]], data: st.DataObject) -> None:
    """
    Once a run is over it stays over in the same way, and no run with a failure succeeds.
    """
    workers, threads = story
    state, final = State(shape(workers)), None
    for one in interleaved(data, threads):
        state.take(one)
        final = final or state.conclude()
        assert state.final == final
        assert not final or state.status().state is final.state
    assert final is not None
    failed = any(end.code not in (0, 143) for end in state.ends.values())
    assert (final.state is RunState.FAILED) == failed


@given(story=stories(), data=st.data())
def test_a_list_says_as_much_as_a_watch(story: tuple[int, list[list[News]]], data: st.DataObject) -> None:
    """
    Whoever comes late and lists what there is arrives at the same verdict, unless the pods are gone.
    """
    workers, threads = story
    told = [one for thread in threads for one in thread]
    watched = state_after(told, workers=workers)
    latest = {one.objects[0]["metadata"]["uid"]: one for one in told}
    kinds = {one.kind for one in told}
    lists = [
        News(kind, "LISTED", tuple(one.objects[0] for one in latest.values() if one.kind == kind and one.change != "DELETED"))
        for kind in kinds
    ]
    listed = state_after(data.draw(st.permutations(lists)), workers=workers)
    if not any(one.change == "DELETED" for one in told):
        assert listed.conclude() == watched.conclude()
        assert listed.status() == watched.status()


def test_events_are_told_in_order() -> None:
    """
    What has happened is told in order, and of every replica.
    """
    one, other = Pod("worker-0"), Pod("worker-1")
    state = state_after(
        [
            *pods(one.running(), other.running(), one.ended(0, returned("worker-0")), other.ended(0, returned("worker-1"))),
            *events(event("mine-worker", "Odd", "y")),
        ]
    )
    state.conclude()
    told = events_of(state)
    assert [each.time for each in told] == sorted(each.time for each in told)
    assert {each.replica for each in told} == {"", "worker-0", "worker-1"}
    assert {each.kind for each in told} == {"created", "started", "exited", "Odd", "finished"}
