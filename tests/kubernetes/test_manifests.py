"""
Every field of the model reaches its place in the objects, whatever the job becomes, or is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from drawing import any_plans, plans
from hypothesis import given
from reading import (
    WORKLOADS,
    Sight,
    amounts,
    plain,
    plan_of,
    read_env,
    read_mounts,
    read_restarts,
    read_shared_memory,
    sights,
)

from distrib import Job, ReplicaGroup, Resources, RunPolicy
from distrib._model import CleanPodPolicy, RestartPolicy, RestartScope, SuccessPolicy
from distrib.backends.pytorch import PyTorchOptions
from distrib.engines.kubernetes import KubernetesOptions
from distrib.engines.kubernetes._plan import KubernetesPlan
from distrib.errors import InvalidJobError

DEVICES = {"cpu", "memory", "ephemeral-storage"}


def _equal(found: Any, wanted: Any) -> None:
    assert found == wanted


def _replicas(sight: Sight) -> None:
    count = sight.group.replicas
    if sight.is_operators:
        assert sight.pods["replicas"] == count
    else:
        assert (sight.pods["completions"], sight.pods["parallelism"], sight.pods["completionMode"]) == (count, count, "Indexed")


def _requests(sight: Sight) -> None:
    _equal(sight.main.get("resources", {}).get("requests", {}), amounts(sight.job.resources_requests(sight.group.role)))


def _limits(sight: Sight) -> None:
    """Devices that are requested are limits too: Kubernetes takes them in no other way."""
    devices = {key: value for key, value in amounts(sight.job.resources_requests(sight.group.role)).items() if key not in DEVICES}
    _equal(sight.main.get("resources", {}).get("limits", {}), {**devices, **amounts(sight.job.resources_limits(sight.group.role))})
    both = (sight.job.resources_limits(sight.group.role), sight.job.resources_requests(sight.group.role))
    _equal(read_shared_memory(sight), next((one.shared_memory for one in both if one is not None and one.shared_memory), None))


def _restarts(sight: Sight) -> None:
    needed = sight.job.backend.needed(sight.job)
    elastic = needed is not None and needed < sight.job.world_size
    policy = sight.job.restart_policy(sight.group.role)
    if elastic and sight.group.restart_policy is None:
        policy = RestartPolicy.EXIT_CODE
    if sight.job.run_policy.restart_scope is RestartScope.JOB and not sight.is_operators:
        # The JobSet starts all of it again.
        _equal(sight.pods["backoffLimit"], 0)
    elif not (policy is RestartPolicy.ON_FAILURE and sight.job.run_policy.backoff_limit == 0):
        _equal(read_restarts(sight), policy)


def _tolerations(sight: Sight) -> None:
    names = {"key": "key", "value": "value", "toleration_seconds": "tolerationSeconds"}
    for found, one in zip(sight.spec.get("tolerations", []), sight.group.tolerations, strict=True):
        wanted = {wire: getattr(one, field) for field, wire in names.items() if getattr(one, field) is not None}
        wanted["operator"] = one.operator.value
        _equal(found, {**wanted, **({} if one.effect is None else {"effect": one.effect.value})})


def _volumes(sight: Sight) -> None:
    wanted = [
        {field.name: value for field in attrs.fields(type(one)) if (value := getattr(one, field.name)) not in (None, False)}
        for one in sight.group.volumes
    ]
    _equal(read_mounts(sight), wanted)


def _labels(sight: Sight) -> None:
    found = sight.template["metadata"]["labels"]
    run = found["distrib.dev/run"]
    _equal(found, {**sight.group.labels, "distrib.dev/run": run, "distrib.dev/role": sight.group.role})


#: Each field of a group, and how it is looked up.
OF_A_GROUP: Mapping[str, Callable[[Sight], None]] = {
    "role": lambda sight: _equal(sight.main["env"][0], {"name": "DISTRIB_ROLE", "value": sight.group.role}),
    "replicas": _replicas,
    "image": lambda sight: _equal(sight.main["image"], sight.group.image or sight.job.image or sight.options.image),
    "requests": _requests,
    "limits": _limits,
    "restart_policy": _restarts,
    "env": lambda sight: _equal(read_env(sight), {**sight.job.env, **sight.group.env}),
    "node_selector": lambda sight: _equal(sight.spec.get("nodeSelector", {}), dict(sight.group.node_selector)),
    "tolerations": _tolerations,
    "affinity": lambda sight: _equal(sight.spec.get("affinity", {}), plain(sight.group.affinity)),
    "volumes": _volumes,
    "service_account": lambda sight: _equal(
        sight.spec.get("serviceAccountName"), sight.group.service_account or sight.options.service_account
    ),
    "pull_secrets": lambda sight: _equal(
        [each["name"] for each in sight.spec.get("imagePullSecrets", [])], list(dict.fromkeys(sight.group.pull_secrets))
    ),
    "priority_class": lambda sight: _equal(sight.spec.get("priorityClassName"), sight.group.priority_class),
    "labels": _labels,
    "annotations": lambda sight: _equal(sight.template["metadata"].get("annotations", {}), dict(sight.group.annotations)),
}


def _clean(sight: Sight) -> None:
    policy = sight.job.run_policy.clean_pod_policy
    if sight.is_operators:
        _equal(sight.top["spec"]["runPolicy"]["cleanPodPolicy"], policy.value)
        return
    assert policy is not CleanPodPolicy.ALL, "Jobs keep the pods that have ended"
    assert sight.top["kind"] == "Job" or policy is CleanPodPolicy.RUNNING, "a JobSet deletes those that still run"


def _of_the_policy(sight: Sight, ours: str, wire: str, of_jobs: str | None) -> None:
    """A field of the run policy that Kubernetes has too."""
    value = getattr(sight.job.run_policy, ours)
    spec = sight.top["spec"]
    if sight.is_operators:
        _equal(spec["runPolicy"].get(wire), value)
    elif sight.top["kind"] != "TrainJob" or of_jobs in ("activeDeadlineSeconds", "suspend"):
        _equal(spec.get(of_jobs), value)
    else:
        assert value is None, "the Trainer does nothing about it"


def _deadline(sight: Sight) -> None:
    """On the pods too: the operator itself does not look at the clock (kubeflow/trainer#3358)."""
    seconds = sight.job.run_policy.active_deadline_seconds
    _equal(sight.spec.get("activeDeadlineSeconds"), seconds)
    if sight.is_operators:
        _equal(sight.top["spec"]["runPolicy"].get("activeDeadlineSeconds"), seconds)
    else:
        _equal(sight.pods.get("activeDeadlineSeconds"), seconds)


def _backoff(sight: Sight) -> None:
    """The operator fails with the restart that reaches its limit, Jobs with the one after it."""
    limit, policy = sight.job.run_policy.backoff_limit, sight.job.run_policy
    if sight.is_operators:
        _equal(sight.top["spec"]["runPolicy"].get("backoffLimit"), limit if not limit else min(limit + 1, 2**31 - 1))
    elif policy.restart_scope is RestartScope.JOB:
        spec = sight.top["spec"] if sight.top["kind"] == "JobSet" else None
        if spec is not None:
            _equal(spec["failurePolicy"]["maxRestarts"], 2**31 - 1 if limit is None else limit)
    elif sight.job.restart_policy(sight.group.role) is RestartPolicy.ON_FAILURE:
        _equal(sight.pods["backoffLimit"], 2**31 - 1 if limit is None else limit)


def _success(sight: Sight) -> None:
    """Who decides is in the orders, since only the pods themselves know who has returned; a TFJob has it too."""
    counts = {group.role: group.replicas for group in sight.job.groups}
    role = next(role for role in ("chief", "master", "worker") if role in counts)
    first = sight.job.run_policy.success_policy is SuccessPolicy.DEFAULT and sight.job.backend.needed(sight.job) is None
    _equal(sight.orders.deciders, tuple(f"{role}-{index}" for index in range(1 if first else counts[role])))
    if sight.top["kind"] == "TFJob":
        _equal(sight.top["spec"].get("successPolicy"), None if first or role == "chief" else "AllWorkers")


def _scope(sight: Sight) -> None:
    if sight.job.run_policy.restart_scope is RestartScope.JOB:
        assert sight.top["kind"] in ("JobSet", "TrainJob")


def _suspend(sight: Sight) -> None:
    value = sight.job.run_policy.suspend
    spec = sight.top["spec"]
    _equal((spec["runPolicy"] if sight.is_operators else spec).get("suspend", False), value)


def _scheduling(sight: Sight) -> None:
    policy = sight.job.run_policy.scheduling_policy
    found = sight.top["spec"].get("runPolicy", {}).get("schedulingPolicy")
    if policy is None:
        assert found is None
        return
    wanted = {
        "minAvailable": policy.min_available,
        "queue": policy.queue,
        "minResources": amounts(policy.min_resources) or None,
        "priorityClass": policy.priority_class,
        "scheduleTimeoutSeconds": policy.schedule_timeout_seconds,
    }
    _equal(found or {}, {key: value for key, value in wanted.items() if value is not None})


#: Each field of the run policy.
OF_A_POLICY: Mapping[str, Callable[[Sight], None]] = {
    "clean_pod_policy": _clean,
    "ttl_seconds_after_finished": lambda sight: _of_the_policy(
        sight, "ttl_seconds_after_finished", "ttlSecondsAfterFinished", "ttlSecondsAfterFinished"
    ),
    "active_deadline_seconds": _deadline,
    "backoff_limit": _backoff,
    "success_policy": _success,
    "restart_scope": _scope,
    "suspend": _suspend,
    "scheduling_policy": _scheduling,
}


def _of_pytorch(sight: Sight) -> None:
    """Processes and elastic training are the function's own matter in the pod, but the operator wants to know of them too."""
    if sight.top["kind"] != "PyTorchJob":
        return
    options = sight.job.options or PyTorchOptions()
    _equal(sight.top["spec"]["nprocPerNode"], str(options.processes))
    elastic, policy = options.elasticity, sight.top["spec"].get("elasticPolicy")
    if elastic is None:
        assert policy is None
        return
    wanted = (elastic.min_nodes, sight.group.replicas, elastic.rdzv_backend, elastic.max_restarts)
    _equal(tuple(policy[name] for name in ("minReplicas", "maxReplicas", "rdzvBackend", "maxRestarts")), wanted)
    _equal(f"{policy['rdzvHost']}:{policy['rdzvPort']}" if "rdzvHost" in policy else None, elastic.rdzv_endpoint)
    _equal([each["key"] for each in policy["rdzvConf"]], list(elastic.rdzv_configs))


def _ports(sight: Sight) -> None:
    of_the_operator = sight.job.backend.operator
    port = sight.options.port or (2222 if of_the_operator is None else of_the_operator.port)
    found = [each["containerPort"] for each in sight.main["ports"]]
    _equal(found, [port, sight.options.control_port])
    _equal({address.rpartition(":")[2] for address in sight.orders.cluster[sight.group.role]}, {str(port)})
    _equal(sight.orders.control_port, sight.options.control_port)


def _security(sight: Sight) -> None:
    chosen = sight.options.security_context
    pod, container = sight.spec.get("securityContext"), sight.main.get("securityContext")
    if chosen is True:
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        assert pod["runAsNonRoot"] is True
        assert pod["runAsUser"] != 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}
    else:
        given = {} if chosen is False else plain(chosen)
        _equal((pod or {}, container or {}), (given.get("pod", {}), given.get("container", {})))


def _queue(sight: Sight) -> None:
    _equal(sight.top["metadata"]["labels"].get("kueue.x-k8s.io/queue-name"), sight.options.queue)


def _grace(sight: Sight) -> None:
    """The pod's first process needs some of it for itself."""
    _equal(sight.spec["terminationGracePeriodSeconds"], math.ceil(sight.options.grace_period) + 5)
    _equal(sight.orders.grace_period, sight.options.grace_period)


def _storage(sight: Sight) -> None:
    """A folder of the run's own."""
    chosen = sight.options.storage
    _equal(sight.orders.storage, chosen and f"{chosen.rstrip('/')}/{sight.options.namespace}/{sight.plan.name}")


def _domain(sight: Sight) -> None:
    for address in sight.orders.cluster[sight.group.role]:
        end = "" if sight.options.cluster_domain is None else f".{sight.options.cluster_domain}"
        assert address.rpartition(":")[0].endswith(end)


#: Those of the engine's options that are rendered, and how: some of them are for the pods' orders.
OF_THE_OPTIONS: Mapping[str, Callable[[Sight], None]] = {
    "namespace": lambda sight: _equal(sight.top["metadata"]["namespace"], sight.options.namespace),
    "image": OF_A_GROUP["image"],
    "queue": _queue,
    "service_account": OF_A_GROUP["service_account"],
    "security_context": _security,
    "image_pull_policy": lambda sight: _equal(sight.main.get("imagePullPolicy"), sight.options.image_pull_policy),
    "python": lambda sight: _equal(sight.main["command"][0].replace("$$", "$"), sight.options.python.replace("$$", "$")),
    "grace_period": _grace,
    "patience": lambda sight: _equal(sight.orders.peers_timeout, sight.options.patience),
    "storage": _storage,
    "cluster_domain": _domain,
    "port": _ports,
    "control_port": _ports,
    "scheduler": lambda sight: _equal(sight.spec.get("schedulerName"), sight.options.scheduler),
}
#: Those that are for whoever submits and follows, or have tests of their own here.
NOT_RENDERED = {"context", "kubeconfig", "echo", "workload", "pod_patch"}
#: What a job has besides its groups and its run policy: the parts of a group take it up, and PyTorch alone has options.
OF_A_JOB = {"framework", "groups", "options", "run_policy", "image", "env", "requests", "limits", "name", "engine", "engine_options"}


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (ReplicaGroup, set(OF_A_GROUP)),
        (RunPolicy, set(OF_A_POLICY)),
        (KubernetesOptions, set(OF_THE_OPTIONS) | NOT_RENDERED),
        (Job, OF_A_JOB),
        (Resources, {"cpu", "memory", "gpu", "ephemeral_storage", "shared_memory", "extended"}),
    ],
)
def test_every_field_is_looked_at(kind: type, known: set[str]) -> None:
    """
    A field that is added to the model needs its line here.
    """
    assert {field.name for field in attrs.fields(kind)} == known


def check(plan: KubernetesPlan[Any]) -> None:
    """
    Look at all of a plan.
    """
    for sight in sights(plan):
        for look in (*OF_A_GROUP.values(), *OF_A_POLICY.values(), *OF_THE_OPTIONS.values(), _of_pytorch):
            look(sight)
        assert sight.spec["automountServiceAccountToken"] is False


@any_plans
@given(of_a_job=plans())
def test_what_is_accepted_is_rendered_and_what_is_refused_is_named(of_a_job: list[KubernetesPlan[Any]]) -> None:
    """
    Of any job and any options, all fields are where Kubernetes looks for them, whatever the job becomes; once the fields that were
    refused by their names are left out.
    """
    for plan in of_a_job:
        check(plan)


EVERYTHING: dict[str, Any] = {
    "image": "train:1",
    "env": {"A": "of the job", "COSTS": "$5 $(HOME) $$"},
    "requests": {"cpu": "500m", "memory": "1Gi", "gpu": 1},
    "limits": {"memory": "2Gi", "ephemeral_storage": "1Gi", "shared_memory": "512Mi", "extended": {"rdma/hca": 1}},
    "name": "everything",
}
GROUP: dict[str, Any] = {
    "replicas": 3,
    "image": "train:2",
    "requests": {"cpu": 2},
    "env": {"B": "of the group"},
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 30}, {"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "volumes": [
        {"mount_path": "/data", "claim": "datasets", "read_only": True},
        {"mount_path": "/nfs", "nfs": "server:/exported"},
        {"mount_path": "/tmp/scratch", "empty_dir": True, "size_limit": "1Gi"},
        {"mount_path": "/etc/settings", "config_map": "settings", "sub_path": "train.yaml"},
        {"mount_path": "/etc/key", "secret": "key"},
    ],
    "service_account": "trainer",
    "pull_secrets": ["registry"],
    "priority_class": "high",
    "labels": {"team": "a"},
    "annotations": {"note": "b"},
}
POLICIES: Mapping[str, dict[str, Any]] = {
    "operator": {
        "clean_pod_policy": "All",
        "ttl_seconds_after_finished": 60,
        "active_deadline_seconds": 3600,
        "backoff_limit": 4,
        "success_policy": "AllWorkers",
        "suspend": True,
        "scheduling_policy": {"min_available": 2, "queue": "q", "min_resources": {"cpu": 3}, "priority_class": "p"},
    },
    "job": {
        "clean_pod_policy": "None",
        "ttl_seconds_after_finished": 60,
        "active_deadline_seconds": 3600,
        "backoff_limit": 4,
        "suspend": True,
    },
    "jobset": {"restart_scope": "Job", "backoff_limit": 2, "ttl_seconds_after_finished": 60, "active_deadline_seconds": 5, "suspend": True},
    "trainjob": {"restart_scope": "Job", "backoff_limit": 2, "active_deadline_seconds": 5, "suspend": True},
}


def everything(workload: str, restart_policy: str = "OnFailure") -> KubernetesPlan[Any]:
    """
    One job with every field set.
    """
    policy = dict(POLICIES[workload])
    if restart_policy == "ExitCode" and workload == "operator":
        del policy["backoff_limit"]
    options = {"scheduler": "volcano", "port": 4000, "image_pull_policy": "Always", "queue": None if workload == "job" else "q"}
    group = {**GROUP, "restart_policy": restart_policy}
    job = Job("tensorflow", worker=group, ps={"replicas": 1, "restart_policy": "Never"}, run_policy=policy, **EVERYTHING)
    return plan_of(job, workload=workload, **options)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("restart_policy", ["Never", "OnFailure", "ExitCode"])
def test_everything_at_once(workload: str, restart_policy: str) -> None:
    """
    It is accepted by each workload, and all of it rendered.
    """
    check(everything(workload, restart_policy))


def test_shared_memory_is_no_amount_of_the_scheduler() -> None:
    """
    ``/dev/shm`` is a volume in memory, and in no list of resources.
    """
    (sight,) = sights(plan_of(Job("tensorflow", worker={"replicas": 1, "requests": {"shared_memory": "1Gi"}})))
    assert read_shared_memory(sight) == "1Gi"
    assert "resources" not in sight.main


class TestPatch:
    """
    A patch is merged as the API server does it with a strategic one.
    """

    def patched(self, patch: dict[str, Any], workload: str = "operator") -> Sight:
        job = Job("tensorflow", worker={"replicas": 1, "env": {"A": "1", "B": "2"}, "labels": {"team": "a"}})
        return sights(plan_of(job, workload=workload, pod_patch=patch))[0]

    @pytest.mark.parametrize("workload", WORKLOADS)
    def test_the_container_that_trains(self, workload: str) -> None:
        """
        ``"*"`` is the container that trains, whatever the workload calls it; its other fields stay.
        """
        env = [{"name": "A", "value": "patched"}, {"name": "C", "value": "new"}]
        sight = self.patched({"spec": {"containers": [{"name": "*", "env": env, "tty": True}]}}, workload)
        assert read_env(sight) == {"A": "patched", "B": "2", "C": "new"}
        assert sight.main["tty"] is True
        assert sight.main["image"] == "train:1"

    def test_another_container(self) -> None:
        """
        Another name is another container, behind it.
        """
        sight = self.patched({"spec": {"containers": [{"name": "sidecar", "image": "s:1"}]}})
        assert [each["name"] for each in sight.spec["containers"]] == ["tensorflow", "sidecar"]

    def test_what_is_taken_away(self) -> None:
        """
        None takes a field away, ``$patch: delete`` an item, ``$patch: replace`` all others.
        """
        env = [{"name": "B", "$patch": "delete"}]
        spec = {"automountServiceAccountToken": None, "securityContext": {"$patch": "replace"}, "containers": [{"name": "*", "env": env}]}
        sight = self.patched({"metadata": {"labels": {"team": None}}, "spec": spec})
        assert read_env(sight) == {"A": "1"}
        assert "automountServiceAccountToken" not in sight.spec
        assert sight.spec["securityContext"] == {}
        assert "team" not in sight.template["metadata"]["labels"]

    def test_lists_without_a_key_are_replaced(self) -> None:
        """
        Tolerations have nothing that they are told apart by.
        """
        sight = self.patched({"spec": {"tolerations": [{"operator": "Exists"}]}})
        assert sight.spec["tolerations"] == [{"operator": "Exists"}]

    def test_an_item_without_its_key(self) -> None:
        """
        An item that cannot be told from the others is refused, with its place.
        """
        with pytest.raises(InvalidJobError, match=r"kubernetes\.pod_patch\.spec\.volumes\[0\]"):
            self.patched({"spec": {"volumes": [{"emptyDir": {}}]}})
