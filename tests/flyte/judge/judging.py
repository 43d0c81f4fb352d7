"""
Flyte's propeller and its Kubeflow plug-ins, as one program, and what they should make of a job: what our own manifest says of it.
"""

from __future__ import annotations

import json
import subprocess
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from flyteidl.admin.task_pb2 import TaskSpec
from flytekit import task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.context_manager import FlyteContextManager, FlyteEntities
from flytekit.tools.translator import get_serializable
from google.protobuf.json_format import MessageToJson

from distrib import Job
from distrib._quantity import nano

__all__ = ["DEFAULT_IMAGE", "PLATFORM", "Group", "Judge", "as_told_to", "elasticity", "expected", "found", "overrides", "serialized"]

#: What a group has said before there was ``common``.
OLD_FIELDS = ("replicas", "image", "resources", "restartPolicy")

DEFAULT_IMAGE = "registry.example/default:1"
SETTINGS = SerializationSettings(
    project="p",
    domain="d",
    version="v",
    image_config=ImageConfig(default_image=Image("default", *DEFAULT_IMAGE.rsplit(":", 1))),
)
#: What the platform gives where nobody says anything.
PLATFORM = {"cpu": "123m", "memory": "45Mi"}


def train(x: int) -> int:
    """
    Any function of a module: flytekit looks for its name.
    """
    return x


def serialized(config: Any, **keywords: Any) -> bytes:
    """
    The task of a job, or of whatever stands for one, as Flyte is given it.
    """
    made = _made_of(config, keywords)
    message: bytes = get_serializable(OrderedDict(), SETTINGS, made).to_flyte_idl().SerializeToString()
    return message


def _made_of(config: Any, keywords: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        # increase_shared_mem, which is on by itself in the plug-in for PyTorch.
        warnings.simplefilter("ignore", UserWarning)
        made = task(task_config=config, **keywords)(train)
    FlyteEntities.entities.remove(made)
    return made


def overrides(config: Any, **words: Any) -> str:
    """
    What Flyte is told of a node in a workflow whose task has these ``with_overrides``.
    """
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.with_compilation_state(context.new_compilation_state())) as inside:
        node = _made_of(config, {}).compile(inside, x=1).ref.node.with_overrides(**words)
        told: str = MessageToJson(get_serializable(OrderedDict(), SETTINGS, node).to_flyte_idl().task_node.overrides)
    return told


def as_told_to(message: bytes, *, new: bool) -> bytes:
    """
    The task without the form of its groups that a new Flyte, or an old one, does not look at.
    """
    spec = TaskSpec.FromString(message)
    for key, value in spec.template.custom.fields.items():
        if key.endswith("Replicas"):
            for name in OLD_FIELDS if new else ("common",):
                value.struct_value.fields.pop(name, None)
    rest: bytes = spec.SerializeToString()
    return rest


@attrs.frozen
class Judge:
    """
    The program.
    """

    program: Path

    def resource(self, message: bytes, *options: str) -> dict[str, Any]:
        """
        What Flyte creates on Kubernetes for a serialized task.
        """
        defaults = [f"-default-{name}={value}" for name, value in PLATFORM.items()]
        done = subprocess.run(
            [self.program, *defaults, *options, "-o", "json", "-"], input=message, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    def refusal(self, message: bytes) -> str:
        """
        Why Flyte creates nothing for it.
        """
        done = subprocess.run([self.program, "-"], input=message, capture_output=True, check=False, timeout=60)
        assert done.returncode == 1
        return done.stderr.decode()


@attrs.frozen
class Group:
    """
    What is the same of replicas, whoever starts them; amounts in billionths.
    """

    replicas: int
    restart_policy: str
    image: str
    environment: Mapping[str, str]
    requests: Mapping[str, int]
    limits: Mapping[str, int]
    shared_memory: int | None


def found(resource: Mapping[str, Any]) -> dict[str, Group]:
    """
    The groups of what Flyte creates.
    """
    specs = _specs(resource)
    return {kind: _group(spec, _counted(_container(spec)["resources"])) for kind, spec in specs.items()}


def expected(job: Job) -> dict[str, Group]:
    """
    The groups of our manifest, as Flyte has to spell them.
    """
    specs = _specs(job.backend.manifest(job))
    if set(specs) == {"Chief"}:
        specs = {"Worker": specs["Chief"]}
    if job.framework == "pytorch" and "Master" not in specs and "elasticPolicy" not in job.backend.manifest(job)["spec"]:
        # The coordinator is worker 0 here, and a master there.
        workers = specs["Worker"]["replicas"]
        specs["Master"] = {**specs["Worker"], "replicas": 1}
        specs["Worker"] = {**specs["Worker"], "replicas": workers - 1}
    return {kind: _group(spec, _filled(_container(spec).get("resources", {}))) for kind, spec in specs.items() if spec["replicas"]}


def elasticity(resource: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    How many nodes and processes there may be, and how they meet. What is left open by ours stands for the operator's default.
    """
    policy = resource["spec"].get("elasticPolicy")
    if policy is None:
        return None
    names = ("minReplicas", "maxReplicas", "maxRestarts", "rdzvBackend")
    processes = policy.get("nProcPerNode", resource["spec"].get("nprocPerNode"))
    return {**{name: policy[name] for name in names}, "processes": str(processes)}


def _specs(resource: Mapping[str, Any]) -> dict[str, Any]:
    return dict(next(value for key, value in resource["spec"].items() if key.endswith("ReplicaSpecs")))


def _container(spec: Mapping[str, Any]) -> dict[str, Any]:
    containers = spec["template"]["spec"]["containers"]
    return dict(next(each for each in containers if each["name"] in ("tensorflow", "pytorch")))


def _group(spec: Mapping[str, Any], resources: Mapping[str, Mapping[str, int]]) -> Group:
    container = _container(spec)
    return Group(
        spec["replicas"],
        # Of elastic jobs those that are lost are replaced here, and Flyte has no word for it.
        spec["restartPolicy"].replace("ExitCode", "Never"),
        container.get("image", DEFAULT_IMAGE),
        # Flyte's own variables are in all of its pods.
        {each["name"]: each.get("value", "") for each in container.get("env", ()) if not each["name"].startswith(("FLYTE_", "_F_"))},
        resources["requests"],
        resources["limits"],
        _shared_memory(spec["template"]["spec"], container),
    )


def _shared_memory(pod: Mapping[str, Any], container: Mapping[str, Any]) -> int | None:
    mounted = [each["name"] for each in container.get("volumeMounts", ()) if each["mountPath"] == "/dev/shm"]  # the device
    return next((nano(each["emptyDir"]["sizeLimit"]) for each in pod.get("volumes", ()) if each["name"] in mounted), None)


def _filled(resources: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """
    Resources as Flyte completes them: what is asked for is the limit too, the limit is asked for, the platform has the rest.
    """
    given = {kind: resources.get(kind, {}) for kind in ("requests", "limits")}
    names = {*given["requests"], *given["limits"], *PLATFORM}
    requests = {name: given["requests"].get(name, given["limits"].get(name, PLATFORM.get(name, "0"))) for name in names}
    return _counted({"requests": requests, "limits": {name: given["limits"].get(name, requests[name]) for name in names}})


def _counted(resources: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, int]]:
    # Asking for no devices is asking for nothing.
    return {kind: {name: nano(value) for name, value in resources[kind].items() if nano(value)} for kind in ("requests", "limits")}
