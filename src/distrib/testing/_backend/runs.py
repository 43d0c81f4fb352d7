"""
What becomes of a backend in a real run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ..._cluster import ClusterSpec
from ..._job import Job
from ..._registry import get_engine
from ...engine import Call
from .. import _calls
from .._elsewhere import with_variables
from .._law import law
from .subject import BackendSubject

_JUNK = "left over from the program that started the run"


class RunLaws(BackendSubject):
    """
    Replicas on this machine.
    """

    @pytest.mark.slow
    @law
    def test_replicas_find_their_environment(self) -> None:
        """
        In a real run each replica finds its environment, and nothing of the launcher's in its place; the coordinator's value is the result.
        """
        self._skip_unless_installed()
        for counts in self._counts_to_run():
            job = Job(self._subject.name, **counts, engine_options={"local": {"echo": False}})
            with with_variables(dict.fromkeys(self._subject.reserved, _JUNK)):
                run = get_engine("local").start(job, Call(_calls.echo))
                results = dict(run.results(self.patience).items())
            self._check_run(job, results)
            assert run.result()["is_coordinator"], f"the result is that of {run.result()['name']}"

    @pytest.mark.slow
    @law
    def test_options_leave_the_run_whole(self) -> None:
        """
        With options too, each replica calls the function with its arguments, and the coordinator's value is the result.
        """
        self._skip_unless_installed()
        if not self.runs_with:
            pytest.skip("runs_with names no options")
        for options in self.runs_with:
            job = self._job_with(options)
            run = get_engine("local").start(job, Call(_calls.echo, (1,), {"two": 2}))
            results = dict(run.results(self.patience).items())
            self._check_whole(job, results)
            found = run.result()
            coordinator = self._subject.coordinator(ClusterSpec(found["cluster"]))
            assert (found["name"], found["is_coordinator"]) == (coordinator.name, True), (
                f"with {options} the result is that of {found['name']}"
            )
            for name, each in results.items():
                assert (each["args"], each["kwargs"]) == ((1,), {"two": 2}), (
                    f"with {options} {name} is called with {each['args']}, {each['kwargs']}"
                )

    def _job_with(self, options: Mapping[str, Any]) -> Job:
        """
        A job with these options, of as many replicas as they ask for by themselves, else of the first legal counts that they agree with.
        """
        for counts in ({}, *self._counts_to_run(), *self._legal_counts):
            if self._refused({**counts, **options}) is None:
                return Job(self._subject.name, **counts, **options, engine_options={"local": {"echo": False}})
        raise AssertionError(f"no job is accepted with {dict(options)}: {self._refused({**self._legal_counts[0], **options})}")

    def _counts_to_run(self) -> list[dict[str, Any]]:
        """
        The smallest job there is, and the smallest one with as many of the roles as there can be at once, in two or more replicas.
        """
        several = [counts for counts in self._legal_counts if sum(counts.values()) > 1]
        return [self._legal_counts[0], *sorted(several, key=lambda counts: (-sum(map(bool, counts.values())), sum(counts.values())))[:1]]

    def _check_run(self, job: Job, results: Mapping[str, Mapping[str, Any]]) -> None:
        self._check_whole(job, results)
        for name, found in results.items():
            cluster = ClusterSpec(found["cluster"])
            replica = _calls.marked(self._subject, cluster)[found["rank"]]
            assert replica.name == name, f"{name} takes itself for {replica.name}"
            wanted = self._subject.environment(replica, cluster)
            wrong = {
                variable: found["environment"].get(variable)
                for variable in wanted
                if found["environment"].get(variable) != wanted[variable]
            }
            assert not wrong, f"{name} finds {wrong} in place of {dict(wanted)}"
            inherited = [variable for variable in self._subject.reserved if found["environment"].get(variable) == _JUNK]
            assert not inherited, f"{name} finds the launcher's {', '.join(inherited)}"

    def _check_whole(self, job: Job, results: Mapping[str, Any]) -> None:
        ending = [role for role in self._role_names if not self._subject.role(role).service]
        expected = {f"{group.role}-{index}" for group in job.groups if group.role in ending for index in range(group.replicas)}
        # A replica that ran several processes has one after its name.
        returned = {name.partition("/")[0] for name in results}
        assert expected <= returned, f"{', '.join(sorted(expected - returned))} returned no value"
        for name, found in results.items():
            assert isinstance(found, dict), f"{name} has returned {found!r} in place of the function's value"
