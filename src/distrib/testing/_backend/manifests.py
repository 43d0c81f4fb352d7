"""
What a backend says to clusters.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import assume

from ..._converter import job_from_data, job_to_data
from ..._job import Job
from ...errors import UnsupportedError
from .._law import for_all, law
from ..strategies import jobs
from .subject import BackendSubject


class ManifestLaws(BackendSubject):
    """
    Manifests of operators, and tasks of Flyte.
    """

    @law
    def test_a_manifest_is_plain_data(self) -> None:
        """
        A manifest is what JSON can hold, with apiVersion, kind, metadata and spec.
        """
        self._skip_without("manifest")

        @for_all(jobs(self._subject))
        def holds(job: Job) -> None:
            manifest = self._manifest(job)
            _check_plain("manifest", manifest)
            missing = {"apiVersion", "kind", "metadata", "spec"} - set(manifest)
            assert not missing, f"it has no {', '.join(sorted(missing))}: {manifest}"

        holds()

    @law
    def test_a_manifest_has_every_count(self) -> None:
        """
        The count of every group of the job is in its manifest.
        """
        self._skip_without("manifest")

        @for_all(jobs(self._subject))
        def holds(job: Job) -> None:
            counts, found = {group.role: group.replicas for group in job.groups}, self.counts_in(self._manifest(job))
            if isinstance(found, Mapping):
                assert counts == found, f"{job}: its groups are {dict(found)}"
                return
            missing = Counter(counts.values()) - Counter(found)
            assert not missing, f"{job}: no group of {', '.join(map(str, missing))} replicas is in it"

        holds()

    @law
    def test_equal_jobs_have_equal_manifests(self) -> None:
        """
        Equal jobs give equal manifests, to the byte.
        """
        self._skip_without("manifest")

        @for_all(jobs(self._subject))
        def holds(job: Job) -> None:
            copy = job_from_data(job_to_data(job))
            one, other = json.dumps(self._manifest(job)), json.dumps(self._manifest(copy))
            assert one == other, f"one job has {one}, its equal {other}"

        holds()

    @law
    def test_a_manifest_is_nobody_elses(self) -> None:
        """
        Changing a manifest changes neither the job nor the next manifest.
        """
        self._skip_without("manifest")

        @for_all(jobs(self._subject))
        def holds(job: Job) -> None:
            manifest, data = self._manifest(job), job_to_data(job)
            before = json.dumps(manifest)
            _empty(manifest)
            assert job_to_data(job) == data, "the job has changed with it"
            assert json.dumps(self._manifest(job)) == before, "the next one has changed with it"

        holds()

    @law
    def test_a_flyte_task_is_plain_data(self) -> None:
        """
        A Flyte task has a type, a version, and plain data of its own, equal for equal jobs.
        """
        self._skip_without("flyte_task")

        @for_all(jobs(self._subject))
        def holds(job: Job) -> None:
            try:
                task, again = self._subject.flyte_task(job), self._subject.flyte_task(job_from_data(job_to_data(job)))
            except UnsupportedError:
                return
            assert isinstance(task.type, str), f"type={task.type!r}"
            assert type(task.version) is int, f"version={task.version!r}"
            _check_plain("custom", task.custom)
            assert task == again
            _empty(task.custom)
            assert self._subject.flyte_task(job) == again, "the next one has changed with it"

        holds()

    def _manifest(self, job: Job) -> dict[str, Any]:
        try:
            return self._subject.manifest(job)
        except UnsupportedError as error:
            assert str(error)
            assume(False)
            raise


def _check_plain(where: str, value: Any) -> None:
    if type(value) is dict:
        for key, item in value.items():
            assert type(key) is str, f"{where} has the key {key!r}"
            _check_plain(f"{where}.{key}", item)
    elif type(value) is list:
        for place, item in enumerate(value):
            _check_plain(f"{where}[{place}]", item)
    else:
        assert type(value) in (str, int, float, bool, type(None)), f"{where} is a {type(value).__name__}: {value!r}"


def _empty(value: Any) -> None:
    for part in list(value.values()) if isinstance(value, dict) else list(value):
        if isinstance(part, (dict, list)):
            _empty(part)
    value.clear()
