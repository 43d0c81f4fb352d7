"""
What else a backend decides.
"""

from __future__ import annotations

import pickle

from ..._cluster import ClusterSpec, Replica
from ..._job import Job
from .. import _calls
from .._law import for_all, law
from ..strategies import cluster_specs, jobs
from .subject import BackendSubject


class HookLaws(BackendSubject):
    """
    The coordinator, and what stands for a function.
    """

    @law
    def test_the_coordinator_is_in_the_cluster(self) -> None:
        """
        The coordinator is one of the cluster's replicas, always the same one.
        """

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            coordinator = self._subject.coordinator(cluster)
            assert isinstance(coordinator, Replica), f"{coordinator!r} is none"
            known = {(replica.role, replica.index, replica.rank) for replica in cluster.replicas}
            assert (coordinator.role, coordinator.index, coordinator.rank) in known, f"{coordinator!r} is none of {cluster!r}"
            assert self._subject.coordinator(cluster) == coordinator, "asked again, it is another"

        holds()

    @law
    def test_wrapping_calls_nothing(self) -> None:
        """
        What stands for a function in replicas is callable and can be pickled, and making it calls nothing.
        """
        import cloudpickle

        called = []
        for counts in self._legal_counts:
            job = Job(self._subject.name, **counts)
            self._subject.wrap(lambda: called.append(1), job)
            assert not called, "wrap() has called the function"
            wrapped = self._subject.wrap(_calls.echo, job)
            assert callable(wrapped), f"wrap() has given {wrapped!r}"
            assert callable(pickle.loads(cloudpickle.dumps(wrapped)))  # noqa: S301  # what was just written

    @law
    def test_a_remark_is_a_line(self) -> None:
        """
        What is remarked on a job is one line of text, the same each time.
        """

        @for_all(jobs(self._subject, bare=True))
        def holds(job: Job) -> None:
            remark = self._subject.remark(job)
            assert isinstance(remark, str), f"{remark!r} is no text"
            assert len(remark.splitlines()) <= 1, f"{remark!r} is more than a line"
            assert self._subject.remark(job) == remark, "asked again, it is another"

        holds()

    @law
    def test_whether_to_fork_is_yes_or_no(self) -> None:
        """
        ``fork_safe()`` answers True or False.
        """
        answer = self._subject.fork_safe()
        assert isinstance(answer, bool), f"it answers {answer!r}"
