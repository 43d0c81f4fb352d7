"""
Backends of which each breaks one promise, and a sound one that they are made from.

Each names the law that it breaks (``law``) and what its author is told (``said``).
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs

from distrib import Backend, ClusterSpec, InvalidJobError, Job, Replica, Role
from distrib.backend import FlyteTask, Operator
from distrib.errors import UnsupportedError
from distrib.manifests import operator_job
from distrib.testing import BackendContract, Seen

_whole = attrs.validators.instance_of(int)
#: Never the same number again.
_numbers = itertools.count()


@attrs.frozen(kw_only=True)
class SoundOptions:
    """
    Settings of a sound backend.
    """

    rounds: int = attrs.field(default=1, validator=_whole)


class Sound(Backend):
    """
    A backend that keeps all promises.
    """

    law: ClassVar[str]
    said: ClassVar[str]

    name = "sound"
    roles = (Role("first", at_most=1), Role("rest"), Role("store", service=True))
    options = SoundOptions
    reserved = ("SOUND_RANK", "SOUND_SIZE", "SOUND_ADDRESS", "SOUND_FIRST", "SOUND_CLUSTER")

    def validate(self, job: Job) -> None:
        if not {"first", "rest"} & {group.role for group in job.groups}:
            raise InvalidJobError("rest: only stores; write e.g. rest=1.", field="rest", value=0)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {
            "SOUND_RANK": str(replica.rank),
            "SOUND_SIZE": str(cluster.world_size),
            "SOUND_ADDRESS": cluster[replica.role][replica.index],
            "SOUND_FIRST": next(iter(cluster.values()))[0],
            "SOUND_CLUSTER": json.dumps(dict(cluster)),
        }

    def manifest(self, job: Job) -> dict[str, Any]:
        groups = [{"name": group.role, "replicas": group.replicas} for group in job.groups]
        return {"apiVersion": "example.com/v1", "kind": "SoundJob", "metadata": {"name": job.name}, "spec": {"groups": groups}}

    def flyte_task(self, job: Job) -> FlyteTask:
        if job.image is not None:
            raise UnsupportedError("image: Flyte has its own.", field="image")
        return FlyteTask(type="sound", custom={group.role: group.replicas for group in job.groups})


class SoundContract(BackendContract):
    """
    The suite, for whoever writes its environment as the sound backend does.
    """

    runs_with = ({"rounds": 2},)

    def seen(self, environment: Mapping[str, str]) -> Seen:
        return Seen(
            rank=int(environment["SOUND_RANK"]) if "SOUND_RANK" in environment else None,
            world_size=int(environment["SOUND_SIZE"]),
            address=environment["SOUND_ADDRESS"],
            coordinator=environment["SOUND_FIRST"],
            cluster=json.loads(environment["SOUND_CLUSTER"]),
        )


# Declarations


class NotInstalled(Sound):
    law, said = "test_found_by_its_name", r'entry-points."distrib.backends"\]\s+sound = "broken_backends:NotInstalled"'


class TakesAName(Sound):
    law, said = "test_found_by_its_name", "the name 'tensorflow' belongs to .*TensorFlowBackend"
    name = "tensorflow"


class Shouts(Sound):
    law, said = "test_its_name_can_be_written", "name='My Framework'"
    name = "My Framework"


class RoleTwice(Sound):
    law, said = "test_roles_are_different_words", "given more than once: rest"
    roles = (Role("rest"), Role("first"), Role("rest", service=True))


class RoleUnspeakable(Sound):
    law, said = "test_roles_are_different_words", "'the-rest' is no such word"
    roles = (Role("the-rest"),)


class BoundsCrossed(Sound):
    law, said = "test_bounds_are_sane", "at_most=2"
    roles = (Role("rest", at_least=3, at_most=2),)


class BoundsOfNothing(Sound):
    law, said = "test_bounds_are_sane", "at_most=0"
    roles = (Role("first", at_most=0), Role("rest"))


class BoundsBelowNothing(Sound):
    law, said = "test_bounds_are_sane", "at_least=-1"
    roles = (Role("rest", at_least=-1),)


class NeverEnds(Sound):
    law, said = "test_some_role_ends_by_itself", "all of them are"
    roles = (Role("rest", service=True), Role("store", service=True))


class RoleIsAField(Sound):
    law, said = "test_each_keyword_means_one_thing", "env: the name of something else too"
    roles = (Role("rest"), Role("env"))


class RoleIsAnEngine(Sound):
    law, said = "test_each_keyword_means_one_thing", "local: the name of something else too"
    roles = (Role("rest"), Role("local"))


class PreloadIsText(Sound):
    law, said = "test_tables_hold_words", "preload='torch' is no tuple"
    preload = "torch"  # type: ignore[assignment]


class HoldsALock(Sound):
    law, said = "test_it_can_be_pickled", "cannot pickle '_thread.lock' object"

    def __init__(self) -> None:
        self.lock = threading.Lock()


class ImportsItsFramework(Sound):
    # This module has imported json, at its top.
    law, said = "test_importing_it_imports_no_framework", "it imports json"
    requires = {"json": "json"}


# Jobs


class KnowsAllRoles(Sound):
    law, said = "test_an_unknown_role_is_refused", "'firstx' is taken for a role"

    def role(self, name: str) -> Role:
        return next((role for role in self.roles if role.name == name), self.roles[0])


class RefusesWithinBounds(Sound):
    law, said = "test_every_role_can_be_had", r"no job can have rest=4, which is within the bounds: .*too many"
    roles = (Role("first", at_most=1), Role("rest", at_most=4))

    def validate(self, job: Job) -> None:
        if any(group.replicas > 3 for group in job.groups):
            raise InvalidJobError("rest: too many.", field="rest", value=4)


class RaisesTheWrongError(Sound):
    law, said = "test_a_job_is_legal_or_its_field_is_named", "RuntimeError: no stores without"

    def validate(self, job: Job) -> None:
        if {group.role for group in job.groups} == {"store"}:
            raise RuntimeError("no stores without anybody to use them")


class RaisesWithoutAField(Sound):
    law, said = "test_a_job_is_legal_or_its_field_is_named", "field='' is no field of the job"

    def validate(self, job: Job) -> None:
        if {group.role for group in job.groups} == {"store"}:
            raise InvalidJobError("no stores without anybody to use them")


class NamesTheWrongField(Sound):
    law, said = "test_a_job_is_legal_or_its_field_is_named", "field='workers' is no field of the job"

    def validate(self, job: Job) -> None:
        if job.world_size > 3:
            raise InvalidJobError("workers: too many of them.", field="workers", value=job.world_size)


class RefusesNames(Sound):
    law, said = "test_what_is_not_its_own_is_left_alone", r"refused: name=.*write refuses = \('name',\)"

    def validate(self, job: Job) -> None:
        super().validate(job)
        if job.name is not None:
            raise InvalidJobError(f"name={job.name}: leave it out.", field="name", value=job.name)


class AcceptsStoresAlone(Sound):
    law, said = "test_a_legal_job_can_be_rendered_and_ends", r"Job\('sound', store=1\) is accepted, and store-0 never ends"

    def validate(self, job: Job) -> None:
        pass


class AcceptsWhatItCannotRender(Sound):
    law, said = "test_a_legal_job_can_be_rendered_and_ends", "KeyError: 'first'"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_FIRST": cluster["first"][0]}


@attrs.frozen(kw_only=True)
class Doubling:
    """
    Settings that grow each time they are read.
    """

    rounds: int = attrs.field(default=0, converter=lambda value: 2 * int(value))


class OptionsGrow(Sound):
    law, said = "test_a_job_is_its_data", "written as JSON and read, .*rounds=4.* is .*rounds=16"
    options = Doubling


@attrs.define(kw_only=True)
class Loose:
    """
    Settings that anybody can change.
    """

    rounds: int = attrs.field(default=1, validator=_whole)


class OptionsNotFrozen(Sound):
    law, said = "test_options_are_frozen", "rounds of .* can be set; write @attrs.frozen"
    options = Loose


@attrs.frozen(kw_only=True)
class Listing:
    """
    Settings that hold what anybody can change.
    """

    rounds: list[int] = attrs.field(factory=list)


class OptionsHoldAList(Sound):
    law, said = "test_options_are_frozen", "unhashable type: 'list'"
    options = Listing


@attrs.frozen(kw_only=True)
class Careless:
    """
    Settings that take anything.
    """

    rounds: int = 1


class OptionsTakeAnything(Sound):
    law, said = "test_odd_options_are_refused", "no plain data"
    options = Careless


class AsksForStrangers(Sound):
    law, said = "test_options_may_ask_for_replicas", "asks for {'worker': 2}"

    def replicas(self, options: Any) -> Mapping[str, int]:
        return {"worker": 2}


class NeedsMoreThanThereAre(Sound):
    law, said = "test_no_more_are_needed_than_there_are", "has 1 replicas and needs 2"

    def needed(self, job: Job) -> int | None:
        return 2


# Environments


class GivesNumbers(Sound):
    law, said = "test_an_environment_is_text", "SOUND_RANK=0 is no text, but a int"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_RANK": replica.rank}  # type: ignore[dict-item]


class GivesWhatIsOurs(Sound):
    law, said = "test_an_environment_is_text", "DISTRIB_RANK is ours"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "DISTRIB_RANK": str(replica.rank)}


class NonDeterministic(Sound):
    law, said = "test_an_environment_is_pure", "is given .*, and then"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_ID": uuid.uuid4().hex}


class HashOrder(Sound):
    law, said = "test_an_environment_is_the_same_everywhere", "with PYTHONHASHSEED="

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        words = {f"{place}:{address}" for place in range(20) for addresses in cluster.values() for address in addresses}
        return {**super().environment(replica, cluster), "SOUND_PEERS": ",".join(words)}


class HandsOutItsOwn(Sound):
    law, said = "test_an_environment_is_nobody_elses", "the next one is changed too"
    kept: ClassVar[dict[tuple[Replica, ClusterSpec], dict[str, str]]] = {}

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return self.kept.setdefault((replica, cluster), dict(super().environment(replica, cluster)))


class RankMissing(Sound):
    law, said = "test_no_two_replicas_are_given_the_same", "-0 and .* are both given"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {"SOUND_SIZE": str(cluster.world_size), "SOUND_CLUSTER": json.dumps(dict(cluster))}


class NothingReserved(Sound):
    law, said = "test_what_it_sets_is_reserved", "SOUND_RANK, .*: not in reserved"
    reserved = ()


class RanksFromOne(Sound):
    law, said = "test_ranks_are_given_once_each", "ranks: {'.*-0': 1}"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_RANK": str(replica.rank + 1)}


class RanksByRole(Sound):
    law, said = "test_ranks_are_given_once_each", "ranks: {.*: 0, .*: 0"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_RANK": str(replica.index)}


class SizeOfTheRole(Sound):
    law, said = "test_ranks_are_given_once_each", "there are 2 processes, and they expect"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_SIZE": str(len(cluster[replica.role]))}


class SharedAddress(Sound):
    law, said = "test_each_replica_sees_its_own_address", "-1 is at .* and sees itself at"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_ADDRESS": cluster[replica.role][0]}


class ClusterDiffers(Sound):
    law, said = "test_all_replicas_see_one_cluster", "-0 sees {.*}, .* sees {"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        own = {role: addresses for role, addresses in cluster.items() if role == replica.role}
        return {**super().environment(replica, cluster), "SOUND_CLUSTER": json.dumps(own)}


class ClusterOfStrangers(Sound):
    law, said = "test_all_replicas_see_one_cluster", "localhost:1000: nobody's address"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_CLUSTER": json.dumps(["localhost:1000"])}


class LooksElsewhere(Sound):
    law, said = "test_all_replicas_look_for_the_coordinator", "-0 is at .*, .* looks at"

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {**super().environment(replica, cluster), "SOUND_FIRST": cluster.replicas[-1].address}


# What else it decides


class CoordinatorOutside(Sound):
    law, said = "test_the_coordinator_is_in_the_cluster", "is none of ClusterSpec"

    def coordinator(self, cluster: ClusterSpec) -> Replica:
        return Replica(role="first", index=0, rank=0, cluster=cluster)


class CoordinatorIsAName(Sound):
    law, said = "test_the_coordinator_is_in_the_cluster", "'rest-0' is none"

    def coordinator(self, cluster: ClusterSpec) -> Replica:
        return cluster.replicas[0].name  # type: ignore[return-value]


class CoordinatorTakesTurns(Sound):
    law, said = "test_the_coordinator_is_in_the_cluster", "asked again, it is another"

    def coordinator(self, cluster: ClusterSpec) -> Replica:
        return cluster.replicas[next(_numbers) % cluster.world_size]


class WrapsALock(Sound):
    law, said = "test_wrapping_calls_nothing", "cannot pickle '_thread.lock' object"

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        lock = threading.Lock()

        def wrapped(*args: Any) -> Any:
            with lock:
                return function(*args)

        return wrapped


class CallsAtOnce(Sound):
    law, said = "test_wrapping_calls_nothing", r"wrap\(\) has called the function"

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        function()
        return function


class WrapsInNothing(Sound):
    law, said = "test_wrapping_calls_nothing", r"wrap\(\) has given None"

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        return None  # type: ignore[return-value]


class RemarksAtLength(Sound):
    law, said = "test_a_remark_is_a_line", "is more than a line"

    def remark(self, job: Job) -> str:
        return "one\ntwo"


class CannotSay(Sound):
    law, said = "test_whether_to_fork_is_yes_or_no", "it answers None"

    def fork_safe(self) -> bool:
        return None  # type: ignore[return-value]


# Clusters


class ManifestHoldsATuple(Sound):
    law, said = "test_a_manifest_is_plain_data", "manifest.spec is a tuple"

    def manifest(self, job: Job) -> dict[str, Any]:
        return {**super().manifest(job), "spec": ("replicas",)}


class ManifestWithoutAKind(Sound):
    law, said = "test_a_manifest_is_plain_data", "it has no kind"

    def manifest(self, job: Job) -> dict[str, Any]:
        return {key: value for key, value in super().manifest(job).items() if key != "kind"}


class ManifestLosesAGroup(Sound):
    law, said = "test_a_manifest_has_every_count", "no group of [0-9]+ replicas is in it"

    def manifest(self, job: Job) -> dict[str, Any]:
        found = super().manifest(job)
        found["spec"]["groups"] = found["spec"]["groups"][:1]
        return found


class ManifestSwapsCounts(Sound):
    law, said = "test_a_manifest_has_every_count", "its groups are {'first': [02-9]"
    roles = (Role("first", at_most=1), Role("rest", at_least=1))
    operator = Operator(
        kind="SoundJob",
        plural="soundjobs",
        replica_specs="soundReplicaSpecs",
        types={"first": "First", "rest": "Rest"},
        container="sound",
        port_name="sound-port",
        port=2222,
    )

    def manifest(self, job: Job) -> dict[str, Any]:
        found = operator_job(job, self.operator)
        specs = found["spec"]["soundReplicaSpecs"]
        counts = [spec["replicas"] for spec in specs.values()]
        for spec, count in zip(specs.values(), reversed(counts), strict=True):
            spec["replicas"] = count
        return found


class ManifestIsNew(Sound):
    law, said = "test_equal_jobs_have_equal_manifests", "one job has .*uid.*, its equal"

    def manifest(self, job: Job) -> dict[str, Any]:
        return {**super().manifest(job), "metadata": {"uid": uuid.uuid4().hex}}


class ManifestAliases(Sound):
    law, said = "test_a_manifest_is_nobody_elses", "the next one has changed with it"
    labels: ClassVar[dict[str, str]] = {}

    def manifest(self, job: Job) -> dict[str, Any]:
        self.labels.setdefault("app", "sound")
        return {**super().manifest(job), "metadata": {"name": job.name, "labels": {**self.labels}, "annotations": self.notes(job)}}

    def notes(self, job: Job, _kept: dict[Job, dict[str, str]] = {}) -> dict[str, str]:  # noqa: B006  # that is the fault
        return _kept.setdefault(job, {"made-by": "distrib"})


class FlyteTaskHoldsAJob(Sound):
    law, said = "test_a_flyte_task_is_plain_data", "custom is a Job"

    def flyte_task(self, job: Job) -> FlyteTask:
        return FlyteTask(type="sound", custom=job)  # type: ignore[arg-type]


# Runs


class LosesTheEnvironment(Sound):
    law, said = "test_replicas_find_their_environment", "finds {'SOUND_RANK': None.*} in place of"

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        return Emptied(function)


class Emptied:
    """
    Calls a function in an empty environment.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        for name in [name for name in os.environ if name.startswith("SOUND_")]:
            del os.environ[name]
        return self.function(*args)


class LosesTheValue(Sound):
    law, said = "test_replicas_find_their_environment", "-0 has returned None in place of the function's value"

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        return Forgetful(function)


class Forgetful:
    """
    Calls a function and forgets what it returns.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> None:
        self.function(*args)


class InheritsTheLaunchers(Sound):
    law, said = "test_replicas_find_their_environment", "finds the launcher's SOUND_LEFT"
    reserved = (*Sound.reserved, "SOUND_LEFT")

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        return Burdened(function, os.environ["SOUND_LEFT"]) if "SOUND_LEFT" in os.environ else function


class Burdened:
    """
    Calls a function in an environment that has something of the launcher's.
    """

    def __init__(self, function: Callable[..., Any], left: str) -> None:
        self.function = function
        self.left = left

    def __call__(self, *args: Any) -> Any:
        os.environ["SOUND_LEFT"] = self.left
        return self.function(*args)


class LosesTheArguments(Sound):
    law, said = "test_options_leave_the_run_whole", r"with {'rounds': 2} \w+-0 is called with \(\), {}"

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        return Deaf(function) if job.options.rounds > 1 else function


class Deaf:
    """
    Calls a function without arguments.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function()


#: All of them, by name.
BROKEN: dict[str, type[Sound]] = {kind.__name__: kind for kind in Sound.__subclasses__()}
