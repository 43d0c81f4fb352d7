"""
Which jobs a backend accepts.
"""

from __future__ import annotations

import json
import pickle
from typing import Any

import attrs
from hypothesis import assume
from hypothesis import strategies as st

from ..._converter import job_from_data, job_to_data
from ..._job import KEYS, Job
from ..._registry import engine_names
from ...errors import InvalidJobError
from .._law import assert_frozen, for_all, law
from ..strategies import job_keywords, jobs, option_keywords
from .subject import BackendSubject, cluster_of, environments_of, refusal, root

#: No option means any of these.
_ODD = (object(), print, {1, 2}, float("nan"), b"bytes", 1j, [object()], {1: object()}, "\ud800", Exception)


class JobLaws(BackendSubject):
    """
    Jobs and their options.
    """

    @law
    def test_an_unknown_role_is_refused(self) -> None:
        """
        A role that the backend does not have is refused with the names of those it has.
        """
        unknown = f"{self._role_names[0]}x"
        for error in (refusal(self._subject.role, unknown), self._refused({unknown: 1})):
            assert error is not None, f"{unknown!r} is taken for a role"
            for name in self._role_names:
                assert name in str(error), f"asked for {unknown!r}, the message leaves out {name!r}: {error}"
        for role in self._subject.roles:
            assert self._subject.role(role.name) == role

    @law
    def test_counts_out_of_bounds_are_refused(self) -> None:
        """
        A count below what a role needs, or above what it takes, is refused with the role's name.
        """
        legal = self._legal_counts[0]
        for role in self._subject.roles:
            for count in (role.at_least - 1, -1 if role.at_most is None else role.at_most + 1):
                error = self._refused({**legal, role.name: count})
                assert error is not None, f"{role.name}={count} is accepted, the bounds are {role}"
                assert role.name in str(error), f"{role.name}={count}: the message does not name the role: {error}"

    @law
    def test_every_role_can_be_had(self) -> None:
        """
        Of each role there may be as few and as many replicas as its bounds say, in one job or another.
        """
        for role in self._subject.roles:
            for count in {max(1, role.at_least), role.at_least + 5 if role.at_most is None else role.at_most}:
                others = self._counts_within_bounds(without=role)
                refusals = [self._refused({**counts, role.name: count}) for counts in others]
                assert None in refusals, f"no job can have {role.name}={count}, which is within the bounds: {refusals[-1]}"

    @law
    def test_a_job_is_legal_or_its_field_is_named(self) -> None:
        """
        A job within the bounds is accepted, or refused by an InvalidJobError that names one of its fields.
        """
        fields = {*self._role_names, *self._option_names, *KEYS, *engine_names()}

        def check(keywords: dict[str, Any]) -> None:
            try:
                Job(**keywords)
            except InvalidJobError as error:
                field = error.field or ""
                assert root(field) in fields, f"field={field!r} is no field of the job: {error}"
                assert field in str(error), f"the message does not name {field!r}: {error}"

        # What is refused is mostly a choice of roles: each of them, not those that chance draws.
        for counts in self._counts_within_bounds():
            check({"framework": self._subject.name, **counts})
        for_all(job_keywords(self._subject))(check)()

    @law
    def test_what_is_not_its_own_is_left_alone(self) -> None:
        """
        A job that is legal stays so with any image, variables, resources and policies, but for what the backend says that it refuses.
        """

        @for_all(job_keywords(self._subject))
        def holds(keywords: dict[str, Any]) -> None:
            assume(self._refused({group.role: group.replicas for group in keywords["groups"]}) is None)
            error = refusal(Job, **{**keywords, "options": None})
            if error is not None and root(error.field) not in self.refuses:
                raise AssertionError(f"refused: {error}\nIf it has to be, write refuses = ({root(error.field)!r},).")

        holds()

    @law
    def test_a_legal_job_can_be_rendered_and_ends(self) -> None:
        """
        Each replica of a job that is accepted has an environment, and its coordinator is no service.
        """

        @for_all(jobs(self._subject, bare=True))
        def holds(job: Job) -> None:
            before = job_to_data(job)
            cluster = cluster_of({group.role: group.replicas for group in job.groups})
            coordinator = self._subject.coordinator(cluster)
            assert not self._subject.role(coordinator.role).service, f"{job} is accepted, and {coordinator.name} never ends"
            environments_of(self._subject, cluster)
            assert self._subject.validate(job) is None  # type: ignore[func-returns-value]  # asking again changes nothing
            assert job_to_data(job) == before, "validate() has changed the job"

        holds()

    @law
    def test_a_job_is_its_data(self) -> None:
        """
        A job that was written as JSON or pickled is the same job when it is read.
        """

        @for_all(jobs(self._subject))
        def holds(job: Job) -> None:
            copy = job_from_data(json.loads(json.dumps(job_to_data(job))))
            assert copy == job, f"written as JSON and read, {job} is {copy}"
            assert hash(copy) == hash(job), f"written as JSON and read, {job} hashes differently"
            assert pickle.loads(pickle.dumps(job)) == job, f"pickled and read, {job} is another"  # noqa: S301  # what was just written

        holds()

    @law
    def test_options_are_frozen(self) -> None:
        """
        Options are an attrs class whose objects, and what they hold, nobody can change.
        """
        kind = self._options_class()
        assert attrs.has(kind), f"{kind} is none"

        @for_all(option_keywords(kind))
        def holds(given: dict[str, Any]) -> None:
            options = kind(**given)
            assert_frozen(options)
            assert hash(options) == hash(kind(**given)), f"equal options hash differently: {options}"
            assert options == kind(**given)

        holds()

    @law
    def test_odd_options_are_refused(self) -> None:
        """
        An option that nothing sensible was written for is refused by its name, or it is plain data.
        """
        kind = self._options_class()
        legal = self._legal_counts[0]
        needed = {field.alias for field in attrs.fields(kind) if field.default is attrs.NOTHING}
        words = st.sampled_from([field.alias for field in attrs.fields(kind) if field.init])

        @for_all(option_keywords(kind), words, st.sampled_from(_ODD))
        def holds(given: dict[str, Any], option: str, value: Any) -> None:
            keywords = {**{name: given[name] for name in needed}, option: value}
            try:
                job = Job(self._subject.name, **legal, **keywords)
            except InvalidJobError as error:
                assert option in str(error), f"{option}={value!r}: the message does not name the option: {error}"
            else:
                assert job_from_data(job_to_data(job)) == job, f"{option}={value!r} is accepted"

        holds()

    @law
    def test_options_may_ask_for_replicas(self) -> None:
        """
        The replicas that options ask for by themselves are counts of the backend's own roles.
        """
        kind = self._subject.options
        given = st.none() if kind is None else option_keywords(kind).map(lambda keywords: kind(**keywords))

        @for_all(given)
        def holds(options: Any) -> None:
            counts = self._subject.replicas(options)
            assert set(counts) <= set(self._role_names), f"{options} asks for {dict(counts)}"
            assert all(type(count) is int and count >= 0 for count in counts.values()), f"{options} asks for {dict(counts)}"

        holds()

    @law
    def test_no_more_are_needed_than_there_are(self) -> None:
        """
        With how many replicas a job goes on is not said, or is a number from 1 to all of them.
        """

        @for_all(jobs(self._subject, bare=True))
        def holds(job: Job) -> None:
            needed = self._subject.needed(job)
            assert needed is None or 1 <= needed <= job.world_size, f"{job} has {job.world_size} replicas and needs {needed}"

        holds()
