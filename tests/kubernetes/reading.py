"""
Rendered objects, read back without the code that wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from distrib import Job
from distrib._model import ReplicaGroup, Resources, RestartPolicy
from distrib.engine import Call
from distrib.engines.kubernetes import KubernetesOptions
from distrib.engines.kubernetes._orders import Orders
from distrib.engines.kubernetes._plan import KubernetesPlan, make_plan
from distrib.testing import _calls

WORKLOADS = ("operator", "job", "jobset", "trainjob")
#: What our container has besides the job's own.
OURS = {"DISTRIB_ROLE", "DISTRIB_INDEX", "DISTRIB_RUN_ID"}
_DEVICE = "nvidia.com/gpu"
_SOURCES = {"claim": ("persistentVolumeClaim", "claimName"), "config_map": ("configMap", "name"), "secret": ("secret", "secretName")}


class Sight(NamedTuple):
    """
    A group, and what has been rendered of it.

    Args:
        plan: The plan.

        group: One of its groups.

        pods: The spec that says how many pods of the group there are, and what becomes of them.
    """

    plan: KubernetesPlan[Any]
    group: ReplicaGroup
    pods: dict[str, Any]

    @property
    def job(self) -> Job:
        return self.plan.job

    @property
    def options(self) -> KubernetesOptions:
        return self.plan.options

    @property
    def top(self) -> dict[str, Any]:
        """The object that owns the others."""
        return self.plan.rendered.owner

    @property
    def orders(self) -> Orders:
        """What the pods are told."""
        return self.plan.rendered.orders

    @property
    def template(self) -> dict[str, Any]:
        found: dict[str, Any] = self.pods["template"]
        return found

    @property
    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = self.template["spec"]
        return found

    @property
    def main(self) -> dict[str, Any]:
        """The container that trains: the only one, unless a patch adds others behind it."""
        found: dict[str, Any] = self.spec["containers"][0]
        return found

    @property
    def is_operators(self) -> bool:
        return "completionMode" not in self.pods


def plan_of(job: Job, **options: Any) -> KubernetesPlan[Any]:
    """
    The plan of a job with those options of the engine.
    """
    return make_plan(job, Call(_calls.name), KubernetesOptions(**{"image": "train:1", **options}))


def sights(plan: KubernetesPlan[Any]) -> list[Sight]:
    """
    All groups of a plan, in their order.
    """
    return [Sight(plan, group, _pods_of(plan, group.role)) for group in plan.job.groups]


def _pods_of(plan: KubernetesPlan[Any], role: str) -> dict[str, Any]:
    objects: dict[str, list[dict[str, Any]]] = {}
    for each in plan.rendered.objects:
        objects.setdefault(each["kind"], []).append(each)
    found: dict[str, Any]
    if "Job" in objects:
        (found,) = (each["spec"] for each in objects["Job"] if each["metadata"]["name"] == f"{plan.name}-{role}")
    elif sets := objects.get("JobSet") or objects.get("TrainingRuntime"):
        spec = sets[0]["spec"]
        spec = spec["template"]["spec"] if "template" in spec else spec
        (found,) = (each["template"]["spec"] for each in spec["replicatedJobs"] if each["name"] == role)
    else:
        specs = next(value for key, value in plan.rendered.owner["spec"].items() if key.endswith("ReplicaSpecs"))
        (found,) = (value for key, value in specs.items() if key.lower() == role)
    return found


def amounts(resources: Resources | None) -> dict[str, str]:
    """
    Resources by Kubernetes' names.
    """
    if resources is None:
        return {}
    named = {"cpu": resources.cpu, "memory": resources.memory, _DEVICE: resources.gpu, "ephemeral-storage": resources.ephemeral_storage}
    return {**{name: str(value) for name, value in named.items() if value is not None}, **resources.extended}


def plain(value: Any) -> Any:
    """
    Mappings and sequences as dictionaries and lists.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_env(sight: Sight) -> dict[str, str]:
    """
    The variables as the kubelet hands them on.
    """
    given = {each["name"]: each["value"] for each in sight.main["env"] if each["name"] not in OURS}
    return {name: expanded(value) for name, value in given.items()}


def expanded(text: str) -> str:
    """
    Text as the kubelet reads it, where no variable is called anything that stands in it.

    >>> expanded("$$(A) $5 $$")
    '$(A) $5 $'
    """
    read, at = "", 0
    while at < len(text):
        if text[at] == "$" and text[at + 1 : at + 2] == "$":
            read, at = f"{read}$", at + 2
            continue
        assert text[at : at + 2] != "$(" or ")" not in text[at:], f"{text!r} refers to a variable"
        read, at = read + text[at], at + 1
    return read


def read_mounts(sight: Sight) -> list[dict[str, Any]]:
    """
    The volumes of the job, each as its fields; not the Secret of ours, nor shared memory.
    """
    volumes = {each["name"]: {key: value for key, value in each.items() if key != "name"} for each in sight.spec["volumes"]}
    mounts = [each for each in sight.main["volumeMounts"] if each["name"].startswith("volume-")]
    return [{**_read_source(volumes[each["name"]]), **_read_mount(each)} for each in mounts]


def _read_mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    named = {"mount_path": mount["mountPath"], "sub_path": mount.get("subPath"), "read_only": mount.get("readOnly", False)}
    return {name: value for name, value in named.items() if value not in (None, False)}


def _read_source(source: Mapping[str, Any]) -> dict[str, Any]:
    for field, (kind, key) in _SOURCES.items():
        if kind in source:
            return {field: source[kind][key]}
    if "nfs" in source:
        return {"nfs": f"{source['nfs']['server']}:{source['nfs']['path']}"}
    limit = source["emptyDir"].get("sizeLimit")
    return {"empty_dir": True, **({} if limit is None else {"size_limit": limit})}


def read_shared_memory(sight: Sight) -> str | None:
    """
    The size of ``/dev/shm``.
    """
    names = [each["name"] for each in sight.main["volumeMounts"] if each["mountPath"] == "/dev/shm"]
    found = [
        each["emptyDir"] for each in sight.spec["volumes"] if each["name"] in names and each.get("emptyDir", {}).get("medium") == "Memory"
    ]
    return found[0]["sizeLimit"] if found else None


def read_restarts(sight: Sight) -> RestartPolicy:
    """
    When a pod of a group is started again.
    """
    if sight.is_operators:
        return RestartPolicy(sight.pods["restartPolicy"])
    assert sight.spec["restartPolicy"] == "Never"
    if "podFailurePolicy" in sight.pods:
        ((rule,),) = sight.pods["podFailurePolicy"].values()
        assert rule["action"] == "FailJob"
        assert rule["onExitCodes"] == {"containerName": sight.main["name"], "operator": "In", "values": list(range(1, 128))}
        return RestartPolicy.EXIT_CODE
    return RestartPolicy.ON_FAILURE if sight.pods["backoffLimit"] else RestartPolicy.NEVER
