"""
What Kubernetes would refuse, or accept and never finish, is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import WORKLOADS, plan_of, sights

from distrib import Job
from distrib._refusal import shown
from distrib._registry import backends
from distrib.backend import Backend, Role
from distrib.engine import Call
from distrib.engines.kubernetes import KubernetesOptions
from distrib.engines.kubernetes._plan import make_plan
from distrib.errors import InvalidJobError, UnsupportedError
from distrib.manifests import operator_job

ROLES = {"tensorflow": ("chief", "worker", "ps", "evaluator"), "pytorch": ("master", "worker"), "jax": ("worker",)}
MANY = 4000
LONG = "x" * 131_072


@attrs.frozen
class Case:
    """
    A slip, and how it is told.

    Args:
        name: What it is.

        job: The keywords of the job.

        field: What the error names.

        remedy: Words of the message that say what to write instead.

        options: Those of the engine.

        framework: The job's.

        error: What is raised.
    """

    name: str
    job: Mapping[str, Any]
    field: str
    remedy: str
    options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    framework: str = attrs.field(default="tensorflow", kw_only=True)
    error: type[Exception] = attrs.field(default=InvalidJobError, kw_only=True)


def worker(**fields: Any) -> dict[str, Any]:
    """
    A job with two workers.
    """
    return {"worker": {"replicas": 2, **fields}}


def policy(**fields: Any) -> dict[str, Any]:
    """
    A job with two workers and a run policy.
    """
    return {"worker": 2, "run_policy": fields}


def patch(**spec: Any) -> dict[str, Any]:
    """
    A patch of pods.
    """
    return {"pod_patch": {"spec": spec}}


def patch_main(**fields: Any) -> dict[str, Any]:
    """
    A patch of the container that trains.
    """
    return patch(containers=[{"name": "*", **fields}])


def cannot(name: str, job: Mapping[str, Any], field: str, remedy: str, **more: Any) -> Case:
    """
    Something that is right by itself, and that nobody there can do.
    """
    return Case(name, job, field, remedy, error=UnsupportedError, **more)


#: What the operator's webhook lets pass, and the operator never finishes.
OPERATOR = (
    Case("two chiefs", {"chief": 2, "worker": 1}, "chief", "at most 1"),
    Case("two masters", {"master": 2}, "master", "at most 1", framework="pytorch"),
    Case("an unknown role", {"worker": 1, "foo": 1}, "foo", "worker"),
    Case("another framework's role", {"worker": 1, "chief": 1}, "chief", "worker", framework="jax"),
    Case("a word that is no restart policy", worker(restart_policy="Sometimes"), "worker.restart_policy", "OnFailure"),
    Case("a word that is no clean-up policy", policy(clean_pod_policy="Bogus"), "run_policy.clean_pod_policy", "Running"),
    Case("a word that is no success policy", policy(success_policy="Bogus"), "run_policy.success_policy", "AllWorkers"),
    Case("a negative number", {"worker": -1}, "worker", "from 0"),
    Case("nobody", {"worker": 0}, "worker", "worker=2"),
    Case("no groups", {}, "worker", "worker=2"),
    Case("nobody who decides", {"ps": 2}, "ps", "chief=1, worker=2"),
    Case("an evaluator alone", {"evaluator": 1}, "evaluator", "worker=2"),
    Case("an unknown field", worker(restart_polcy="Never"), "worker.restart_polcy", "restart_policy"),
    Case("an unknown field of the policy", policy(backofflimit=3), "run_policy.backofflimit", "backoff_limit"),
    Case("elastic training with a master", {"master": 1, "nnodes": "1:2"}, "master", "leave it out", framework="pytorch"),
    Case("other nodes than elastic training's", {"worker": 3, "nnodes": "1:2"}, "worker", "worker=2", framework="pytorch"),
    Case(
        "processes told twice",
        {"worker": 1, "nproc_per_node": 2, "elastic": {"nproc_per_node": 3}},
        "nproc_per_node",
        "there alone",
        framework="pytorch",
    ),
    Case("a name with a dot", {"worker": 1, "name": "a.b"}, "name", "lower-case"),
    Case("a name with a digit first", {"worker": 1, "name": "2nd"}, "name", "a letter first"),
    Case("a name in capitals", {"worker": 1, "name": "Train"}, "name", "lower-case"),
    Case("no name", {"worker": 1, "name": ""}, "name", "lower-case"),
    Case("a name of 63 letters", {"worker": 1, "name": "x" * 63}, "name", "shorter"),
    Case("an empty image", {"worker": 1, "image": ""}, "image", "registry"),
    Case("no image", {"worker": 1}, "image", "image='registry", options={"image": None}),
    Case("a deadline of no time", policy(active_deadline_seconds=0), "run_policy.active_deadline_seconds", "None sets no deadline"),
    cannot(
        "always starting what has succeeded",
        worker(restart_policy="Always"),
        "worker.restart_policy",
        "'OnFailure'",
        options={"workload": "operator"},
    ),
    cannot(
        "a limit that is not counted",
        {**worker(restart_policy="ExitCode"), "run_policy": {"backoff_limit": 2}},
        "run_policy.backoff_limit",
        "'workload': 'job'",
        options={"workload": "operator"},
    ),
    cannot(
        "a time to live that never ends",
        {**worker(restart_policy="ExitCode"), "run_policy": {"ttl_seconds_after_finished": 60}},
        "run_policy.ttl_seconds_after_finished",
        "'OnFailure'",
        framework="pytorch",
        options={"workload": "operator"},
    ),
    cannot(
        "restarting all",
        policy(restart_scope="Job"),
        "run_policy.restart_scope",
        "jobset",
        options={"workload": "operator"},
    ),
    cannot(
        "a probe that hides the pods from each other",
        {"worker": 2},
        "kubernetes.pod_patch.spec.containers['tensorflow'].readinessProbe",
        "'workload': 'job'",
        options={"workload": "operator", **patch_main(readinessProbe={"exec": {"command": ["true"]}})},
    ),
)
#: What is more than somebody takes.
SIZES = (
    Case("a variable", {"worker": 1, "env": {"A": LONG}}, "env['A']", "into a file"),
    Case("a group's variable", worker(env={"A": LONG}), "worker.env['A']", "into a file"),
    Case("what TF_CONFIG says", {"worker": MANY, "name": "a-longer-name"}, "TF_CONFIG", "fewer replicas"),
    Case("annotations", worker(annotations={"a": "x" * 2**18}), "worker.annotations", "shorten"),
    Case("an object", {"worker": 1, "env": {f"A{at}": "x" * 100_000 for at in range(15)}}, "TFJob", "shorten env"),
    *(Case(f"a thousand million {framework}", {"worker": 10**9}, "worker", "use fewer", framework=framework) for framework in ROLES),
    Case("a number of replicas", {"worker": 2**31}, "worker", "2147483647"),
)
#: What Jobs, JobSets and TrainJobs do not do.
WORDS_OF_OPERATORS = tuple(
    cannot(f"{name} on a {workload}", job, field, remedy, options={"workload": workload})
    for workload in ("job", "jobset", "trainjob")
    for name, job, field, remedy in (
        ("gang scheduling", policy(scheduling_policy={"min_available": 1}), "run_policy.scheduling_policy", "'workload': 'operator'"),
        ("removing all pods", policy(clean_pod_policy="All"), "run_policy.clean_pod_policy", "Leave it out"),
        ("always starting again", worker(restart_policy="Always"), "worker.restart_policy", "'OnFailure'"),
        (
            "a limit over all roles",
            {**worker(restart_policy="OnFailure"), "chief": {"restart_policy": "OnFailure"}, "run_policy": {"backoff_limit": 2}},
            "run_policy.backoff_limit",
            "one role alone",
        ),
    )
)
JOBS = (
    *WORDS_OF_OPERATORS,
    cannot("restarting all by Jobs", policy(restart_scope="Job"), "run_policy.restart_scope", "jobset", options={"workload": "job"}),
    cannot("queueing role by role", {"chief": 1, "worker": 1}, "kubernetes.queue", "jobset", options={"workload": "job", "queue": "q"}),
    *(
        cannot(
            f"leaving pods of a {workload} as they are",
            policy(clean_pod_policy="None"),
            "run_policy.clean_pod_policy",
            "'workload': 'job'",
            options={"workload": workload},
        )
        for workload in ("jobset", "trainjob")
    ),
    cannot(
        "a TrainJob that goes by itself",
        policy(ttl_seconds_after_finished=1),
        "run_policy.ttl_seconds_after_finished",
        "jobset",
        options={"workload": "trainjob"},
    ),
)
#: What Kubernetes has other rules for than the model.
PODS = (
    Case("a variable of ours", {"worker": 1, "env": {"DISTRIB_ROLE": "ps"}}, "env['DISTRIB_ROLE']", "leave it out"),
    Case("the framework's variable", {"worker": 1, "env": {"TF_CONFIG": "{}"}}, "env['TF_CONFIG']", "leave it out"),
    cannot("a variable's name", {"worker": 1, "env": {"A B": ""}}, "env['A B']", "Use another one"),
    cannot("a variable called ..", {"worker": 1, "env": {"..": ""}}, "env['..']", "Use another one"),
    Case("a label of ours", worker(labels={"distrib.dev/run": "x"}), "worker.labels['distrib.dev/run']", "another one"),
    Case(
        "the operator's label",
        worker(labels={"training.kubeflow.org/job-name": "x"}),
        "worker.labels['training.kubeflow.org/job-name']",
        "",
    ),
    Case("the Job's label", worker(labels={"job-name": "x"}), "worker.labels['job-name']", "another one"),
    Case("an annotation of ours", worker(annotations={"distrib.dev/about": ""}), "worker.annotations['distrib.dev/about']", "another one"),
    Case("the root", worker(volumes=[{"mount_path": "/", "claim": "a"}]), "worker.volumes[0].mount_path", "at a folder"),
    *(
        Case(f"our place, as {path}", worker(volumes=[{"mount_path": path, "claim": "a"}]), "worker.volumes[0].mount_path", "elsewhere")
        for path in ("/var/run/distrib/", "/var/run", "/var/run/distrib/x", "/dev", "/dev/termination-log")
    ),
    Case(
        "one place by two names",
        worker(volumes=[{"mount_path": "/data", "claim": "a"}, {"mount_path": "/x/../data/", "claim": "b"}]),
        "worker.volumes[1].mount_path",
        "elsewhere",
    ),
    Case(
        "the place of the shared memory",
        worker(volumes=[{"mount_path": "/dev/shm", "claim": "a"}], limits={"shared_memory": "1Gi"}),
        "worker.volumes[0].mount_path",
        "leave one of them out",
    ),
    cannot("no shared memory", worker(limits={"shared_memory": 0}), "worker.limits.shared_memory", "Leave it out"),
    cannot("no shared memory for anybody", {"worker": 1, "requests": {"shared_memory": 0}}, "requests.shared_memory", "Leave it out"),
    Case(
        "part of a huge page",
        worker(requests={"cpu": 1, "extended": {"hugepages-2Mi": "3Mi"}}),
        "worker.requests.extended['hugepages-2Mi']",
        "multiple",
    ),
    Case(
        "huge pages alone",
        {"worker": 1, "limits": {"extended": {"hugepages-2Mi": "4Mi"}}},
        "limits.extended['hugepages-2Mi']",
        "add either",
    ),
    Case(
        "an affinity that there is not",
        worker(affinity={"nodeAffinity": {"requiredDuringScheduling": {}}}),
        "worker.affinity.nodeAffinity.requiredDuringScheduling",
        "requiredDuringSchedulingIgnoredDuringExecution",
    ),
    Case("an affinity that is none", worker(affinity={"podAffinity": True}), "worker.affinity.podAffinity", "mapping"),
    Case("devices requested beyond their limit", worker(requests={"gpu": 2}, limits={"gpu": 1}), "worker.requests.gpu", "raise the limit"),
    cannot(
        "shared memory for the scheduler",
        policy(scheduling_policy={"min_resources": {"shared_memory": 1}}),
        "run_policy.scheduling_policy.min_resources.shared_memory",
        "Leave it out",
        options={"workload": "operator"},
    ),
    cannot(
        "elastic training that ends with the first loss",
        {"worker": {"replicas": 2, "restart_policy": "Never"}, "nnodes": "1:2"},
        "worker.restart_policy",
        "'ExitCode'",
        framework="pytorch",
    ),
)
#: What a patch takes away, or says in a place where nobody looks.
PATCHES = tuple(
    Case(name, {"worker": 2}, f"kubernetes.pod_patch.{field}", remedy, options={"workload": "job", **options})
    for name, options, field, remedy in (
        ("a part that pods do not have", {"pod_patch": {"status": {}}}, "status", "spec"),
        ("no mapping", {"pod_patch": {"spec": []}}, "spec", "mapping"),
        ("no container", patch(containers=[{"$patch": "replace"}]), "spec.containers", "leave it in"),
        ("no list", patch(containers={"name": "*"}), "spec.containers", "list"),
        ("an item without its name", patch(volumes=[{"emptyDir": {}}]), "spec.volumes[0]", "'name'"),
        ("an unknown directive", patch(**{"$patch": "erase"}), "spec['$patch']", "'delete'"),
        ("nothing at all", patch(**{"$patch": "delete"}), "spec.restartPolicy", "restart_policy="),
        ("another restart policy", patch(restartPolicy="Always"), "spec.restartPolicy", "restart_policy="),
        ("another host name", patch(hostname="a"), "spec.hostname", "leave it out"),
        ("another subdomain", patch(subdomain="a"), "spec.subdomain", "leave it out"),
        ("another command", patch_main(command=["sleep"]), "spec.containers['node'].command", "python"),
        ("arguments", patch_main(args=["--fast"]), "spec.containers['node'].args", "leave them out"),
        ("another place for the value", patch_main(terminationMessagePath="/x"), "spec.containers['node'].terminationMessagePath", ""),
        ("another role", patch_main(env=[{"name": "DISTRIB_ROLE", "value": "ps"}]), "spec.containers['node'].env['DISTRIB_ROLE']", "alone"),
        (
            "no call",
            patch_main(volumeMounts=[{"mountPath": "/var/run/distrib", "$patch": "delete"}]),
            "spec.containers['node'].volumeMounts",
            "",
        ),
        ("another call", patch(volumes=[{"name": "distrib", "emptyDir": {}}]), "spec.volumes", "another name"),
        ("no image any more", patch_main(image=None), "spec.containers['node'].image", "name one"),
        ("a container without an image", patch(containers=[{"name": "side"}]), "spec.containers['side'].image", "name one"),
        ("an initial container without one", patch(initContainers=[{"name": "i"}]), "spec.initContainers['i'].image", "name one"),
        (
            "other labels",
            {"pod_patch": {"metadata": {"labels": {"distrib.dev/run": "x"}}}},
            "metadata.labels['distrib.dev/run']",
            "another one",
        ),
        ("no labels", {"pod_patch": {"metadata": {"labels": None}}}, "metadata.labels['distrib.dev/run']", "another one"),
        ("labels in a list", {"pod_patch": {"metadata": {"labels": ["a"]}}}, "metadata.labels", "mapping"),
    )
)
#: The engine's options.
OPTIONS = tuple(
    Case(name, {"worker": 1}, f"kubernetes.{field}", remedy, options={field.partition(".")[0]: value})
    for name, field, value, remedy in (
        ("a namespace in capitals", "namespace", "Team", "lower-case"),
        ("a namespace with a dot", "namespace", "a.b", "63"),
        ("a workload that there is not", "workload", "deployment", "job"),
        ("a pull policy that there is not", "image_pull_policy", "Sometimes", "Always"),
        ("a security context that is none", "security_context", "restricted", "True, False"),
        ("a security context for nobody", "security_context.containers", {"containers": {}}, "container"),
        ("a queue without a name", "queue", "", "LocalQueue"),
        ("no interpreter", "python", " ", "write text"),
        ("a port that is none", "port", 65536, "65535"),
        ("one port for two", "port", 29400, "its own"),
        ("the port of TFJobs for two", "control_port", 2222, "another one"),
        ("time that runs backwards", "grace_period", -1, "from 0"),
        ("more time than there is", "grace_period", 1e300, "from 0"),
        ("patience without end", "patience", float("inf"), "seconds"),
        ("a storage that nobody else has", "storage", "runs", "absolute path"),
        ("an account in capitals", "service_account", "Trainer", "lower-case"),
        ("a scheduler with a space", "scheduler", "a b", "lower-case"),
    )
)


@pytest.mark.parametrize("case", [*OPERATOR, *SIZES, *JOBS, *PODS, *PATCHES, *OPTIONS], ids=lambda case: case.name)
def test_it_is_refused(case: Case) -> None:
    """
    The error names the field, the value and the remedy.
    """
    with pytest.raises(case.error) as caught:
        plan_of(Job(case.framework, **case.job), **case.options)
    message = str(caught.value)
    assert caught.value.field == case.field  # type: ignore[attr-defined]
    assert message.startswith(case.field)
    assert case.remedy in message
    if isinstance(caught.value, InvalidJobError) and "=" in message.partition(":")[0]:
        assert message.startswith(f"{case.field}={shown(caught.value.value)}: ")


def test_what_only_looks_like_it() -> None:
    """
    An empty folder has room for the place of the call, and whether a container that does not train is ready, is its own affair.
    """
    folder = {"mount_path": "/var/run", "empty_dir": True}
    proxy = {"name": "proxy", "image": "proxy:1", "readinessProbe": {"exec": {"command": ["true"]}}}
    plan_of(Job("tensorflow", **worker(volumes=[folder])), workload="operator", **patch(containers=[proxy]))
    with pytest.raises(InvalidJobError, match="is the run's own"):
        plan_of(Job("tensorflow", **worker(volumes=[{**folder, "read_only": True}])))


#: What a patch is made of, in its right places and in wrong ones.
_WORDS = st.sampled_from(
    (
        *("containers", "initContainers", "volumes", "env", "volumeMounts", "labels", "affinity", "securityContext"),
        *("name", "image", "mountPath", "restartPolicy", "$patch", "$retainKeys", "*", "tensorflow", "node", "distrib"),
        *("/var/run/distrib", "replace", "delete"),
    )
)
_ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("workload", ["operator", "job"])
@given(patch=st.fixed_dictionaries(dict.fromkeys(("metadata", "spec"), st.dictionaries(_WORDS, _ODD, max_size=4))))
def test_any_patch(workload: str, patch: dict[str, Any]) -> None:
    """
    However odd a patch is, it gives a plan with the container that calls the function, or an error that names its place in the patch.
    """
    job = Job("tensorflow", worker=1)
    try:
        (sight,) = sights(plan_of(job, workload=workload, pod_patch=patch))
        refused = ""
    except InvalidJobError as error:
        refused = str(error)
    if refused:
        assert refused.startswith("kubernetes.pod_patch")
        return
    (plain,) = sights(plan_of(job, workload=workload))
    (main,) = (each for each in sight.spec["containers"] if each["name"] == plain.main["name"])
    assert main["command"] == plain.main["command"]
    assert sight.template["metadata"]["labels"].items() >= plain.template["metadata"]["labels"].items()


class Ring(Backend):
    """
    A backend without an operator.
    """

    name = "ring"
    roles = (Role("peer", at_least=1),)

    def environment(self, replica: Any, cluster: Any) -> dict[str, str]:
        """Who comes next."""
        return {"RING_NEXT": cluster["peer"][(replica.index + 1) % cluster.world_size]}


def test_a_backend_without_an_operator() -> None:
    """
    It becomes Jobs, and nothing else but when it is asked for.
    """
    with backends.standing_in("ring", Ring()):
        job = Job("ring", peer=2)
        assert [each["kind"] for each in plan_of(job).rendered.objects] == ["Job", "Service"]
        for workload in WORKLOADS[1:]:
            assert plan_of(job, workload=workload).rendered.orders.coordinator == "peer-0"
        with pytest.raises(UnsupportedError, match=r"kubernetes\.workload='operator': there is no .* for ring\. Leave it out"):
            plan_of(job, workload="operator")


class Wordy(Ring):
    """
    A backend whose only role has a long name.
    """

    name = "wordy"
    roles = (Role("p" * 55, at_least=1),)


def test_a_role_with_a_long_name() -> None:
    """
    A role that leaves no name for the run is refused, as one of the framework's.
    """
    with backends.standing_in("wordy", Wordy()), pytest.raises(InvalidJobError, match=r"^p{55}=2: .* leave none for the run"):
        plan_of(Job("wordy", **{"p" * 55: 2}))


def test_a_manifest_without_an_operator() -> None:
    """
    What backends build their manifests with says so where there is none.
    """
    with pytest.raises(UnsupportedError, match="framework='jax': there is no Kubernetes operator for it"):
        operator_job(Job("jax", worker=1), None)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(("framework", "role"), [(framework, role) for framework, roles in ROLES.items() for role in roles])
@pytest.mark.parametrize("count", [1, 11])
def test_the_longest_name(workload: str, framework: str, role: str, count: int) -> None:
    """
    The longest name that is accepted makes names of 63 characters for Services, pods and hosts, and one letter more is refused.
    """
    count = 1 if role in ("chief", "master") else count
    groups = {role: count} if role in ("worker", "chief", "master") else {"worker": 1, role: count}
    random = "-xxxxx" if workload in ("jobset", "trainjob") else ""
    between = "-0" if random else ""
    ends = [f"-{each}{between}-{replicas - 1}{random}" for each, replicas in groups.items()]
    longest = 63 - len("-123456") - max(map(len, ends))
    plan = plan_of(Job(framework, **groups, name="x" * longest), workload=workload)
    hosts = [address.partition(".")[0].partition(":")[0] for of_role in plan.rendered.orders.cluster.values() for address in of_role]
    assert max(map(len, hosts)) + len("-123456") + len(random) == 63
    with pytest.raises(InvalidJobError, match=f"a name may have {longest} characters here"):
        plan_of(Job(framework, **groups, name="x" * (longest + 1)), workload=workload)


def test_the_longest_variable() -> None:
    """
    One that the kernel just takes is accepted: its name, the "=", the value and the byte behind it.
    """
    fits = "x" * (131_072 - len("A=") - 1)
    plan_of(Job("jax", worker=1, env={"A": fits}))
    with pytest.raises(InvalidJobError, match="131,073 bytes are more"):
        plan_of(Job("jax", worker=1, env={"A": f"{fits}x"}))


def test_a_function_with_a_long_name() -> None:
    """
    A run that is called after its function is never refused for that: the name is cut.
    """

    def function() -> None:
        """Never called."""

    for name in ("a" * 100, "_" * 100, "обучение", "1st"):
        function.__name__ = function.__qualname__ = name
        plan = make_plan(Job("tensorflow", worker=1, evaluator=1), Call(function), KubernetesOptions(image="train:1"))
        plan_of(Job("tensorflow", worker=1, evaluator=1, name=plan.name))
