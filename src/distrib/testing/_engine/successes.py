"""
Runs that succeed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..._cluster import ClusterSpec
from ...engine import RunState
from .. import _calls
from .._elsewhere import with_variables
from .._law import law
from .subject import EngineSubject


class SuccessLaws(EngineSubject):
    """
    Values, places and variables.
    """

    @law
    def test_the_result_is_the_coordinators(self) -> None:
        """
        A run whose replicas return has succeeded, and its result is the coordinator's value.
        """
        job = self.job(**{self.lead: 1})
        run = self._start(_calls.name, job=job)
        found = self._result(run)
        coordinator = self._coordinator(job)
        assert found == coordinator, f"the coordinator is {coordinator}, and the value that of {found}"
        assert run.results().value == coordinator
        status = run.wait()
        assert status.state is RunState.SUCCEEDED, f"its state is {status.state}"
        assert run.status().state is RunState.SUCCEEDED, f"its state is {status.state}, and then {run.status().state}"
        assert run.exception() is None

    @law
    def test_every_value_is_kept(self) -> None:
        """
        The value of each replica is had by role and index and by rank, and all of them in the order of the ranks.
        """
        job = self.job(**{self.worker: 3, self.lead: 1})
        results = self._within("results()", self._start(_calls.name, job=job).results)
        names = self._names(job)
        for role in (self.worker, self.lead):
            own = [name for name in names if name.startswith(f"{role}-")]
            assert list(results[role]) == own, f"results[{role!r}] are those of {list(results[role])}"
        assert list(results) == names, f"their order is {list(results)}"
        assert dict(results.items()) == dict(zip(names, names, strict=True)), f"they are {dict(results.items())}"
        assert dict(results.by_rank()) == dict(enumerate(names)), f"by rank, they are {dict(results.by_rank())}"
        assert len(results) == len(names), f"there are {len(results)} of {len(names)}"
        self._raised(LookupError, "a role that is not there", lambda: results["no such role"])

    @law
    def test_replicas_know_who_they_are(self) -> None:
        """
        In each replica ``distrib.replica()`` tells its role, index and rank, and all see the same cluster of different addresses.
        """
        job = self.job(**{self.lead: 1})
        found = dict(self._within("results()", self._start(_calls.echo, job=job).results).items())
        first = ClusterSpec(found[f"{self.worker}-0"]["cluster"])
        assert [replica.name for replica in first.replicas] == self._names(job), f"the cluster is {first}"
        for replica in first.replicas:
            seen = found[replica.name]
            assert seen["name"] == replica.name, f"{replica.name} takes itself for {seen['name']}"
            assert seen["rank"] == replica.rank, f"the rank of {replica.name} is {replica.rank}, it is told {seen['rank']}"
            assert seen["world_size"] == job.world_size, f"{replica.name} is told of {seen['world_size']} replicas"
            assert ClusterSpec(seen["cluster"]) == first, f"{replica.name} sees {seen['cluster']}"
            decides = replica.name == self._coordinator(job)
            assert seen["is_coordinator"] == decides, f"{replica.name} is told is_coordinator={seen['is_coordinator']}"

    @law
    def test_replicas_find_their_variables(self) -> None:
        """
        Each replica finds the variables of its framework, of its group and of the job, and none that the launcher has in their place.
        """
        job = self.job(env={"OF": "job", "JOB": "1"}, **{self.worker: {"replicas": 2, "env": {"OF": "group", "GROUP": "1"}}, self.lead: 1})
        backend = self._backend
        with with_variables(dict.fromkeys([*backend.reserved, "OF"], "the launcher's")):
            found = dict(self._within("results()", self._start(_calls.echo, job=job).results).items())
        for name, seen in found.items():
            cluster = ClusterSpec(seen["cluster"])
            replica = _calls.marked(backend, cluster)[seen["rank"]]
            group = {"OF": "group", "GROUP": "1"} if replica.role == self.worker else {"OF": "job", "GROUP": None}
            for variable, wanted in {"JOB": "1", **group, **backend.environment(replica, cluster)}.items():
                value = seen["environment"].get(variable)
                assert value == wanted, f"{name} finds {variable}={value!r} in place of {wanted!r}"

    @law
    def test_a_call_arrives_as_it_is(self) -> None:
        """
        Functions of any kind, arguments and values come through unchanged.
        """
        secret = {"text": "ü\n\0", "bytes": bytes(range(256)) * 1000, "nested": [(1, 2.5, None)], "kind": ClusterSpec}
        assert self._result(self._start(_calls.call, lambda: secret)) == secret, "a closure, or its value, has changed"
        found = self._result(self._start(_calls.echo, 1, "two", three={"four": [5]}))
        assert found["args"] == (1, "two"), f"the arguments are {found['args']}"
        assert found["kwargs"] == {"three": {"four": [5]}}, f"the keywords are {found['kwargs']}"

    @law
    def test_a_service_is_stopped(self) -> None:
        """
        A replica of a service role is stopped when the rest has returned, and has no value; the run succeeds.
        """
        run = self._start(_calls.serve, self.service, job=self.job(**{self.service: 2}))
        assert self._result(run) == f"{self.worker}-0"
        assert run.status().state is RunState.SUCCEEDED, f"its state is {run.status().state}"
        self._raised(LookupError, "the value of a service", lambda: run.results()[self.service][0])
        self._check_nothing_left(run)

    @law
    def test_it_can_be_awaited(self) -> None:
        """
        ``await run`` gives the result.
        """

        async def main() -> Any:
            return await self._start(_calls.name)

        assert self._within("await run", lambda: asyncio.run(main())) == f"{self.worker}-0"

    @law
    def test_two_runs_do_not_mix(self) -> None:
        """
        Runs at the same time each have their own replicas, values and logs.
        """
        one, other = self._start(_calls.write, 1), self._start(_calls.echo, "other")
        assert self._result(one) is None
        assert self._result(other)["args"] == ("other",)
        assert list(other.logs()) == [], f"its logs are {list(other.logs())}"
