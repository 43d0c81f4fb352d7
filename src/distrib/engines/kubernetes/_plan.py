"""
From a job to the objects it becomes: pure, and printable before anything is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ..._converter import job_to_data
from ..._refusal import refuse
from ...engine import Call, Plan
from ...errors import MissingDependencyError
from ...manifests import restart_policy
from .._rules import deciders
from ._bootstrap import ORDERS_KEY
from ._checks import check, check_cluster, check_objects
from ._labels import RUN_LABEL
from ._options import KubernetesOptions
from ._orders import Orders
from .workloads import Setting, Workload, workload_of

if TYPE_CHECKING:
    from ..._job import Job

R_co = TypeVar("R_co", covariant=True)

#: What is put behind the name of a plan for each of its runs: a hyphen and six digits.
SUFFIX = 7
#: The most that the annotation takes; all annotations of an object may have 256 KiB.
_LONGEST_ABOUT = 128 * 1024
#: What the kubelet keeps of the termination messages of all containers of a pod.
_MESSAGES = 12 * 1024
_MESSAGE = 4096
_TEXT = "tag:yaml.org,2002:str"
#: Text that some readers of YAML take for something else, kubectl among them: numbers such as 1e-3, and y for true.
_AMBIGUOUS = re.compile(r"[-+]?\.?[0-9][-+.:_0-9a-fA-FxXoOtTzZ ]*|[yYnN]")


@attrs.frozen(kw_only=True)
class Rendered:
    """
    A plan under the name of a run.

    Args:
        name: The run's name.

        workload: What the job has become.

        objects: The objects, in the order in which they are to be created. The Secret is none of them.

        owner: That of them which owns the others.

        orders: What the pods are told.
    """

    name: str
    workload: Workload
    objects: tuple[dict[str, Any], ...]
    owner: dict[str, Any]
    orders: Orders


@attrs.frozen(kw_only=True, slots=False, repr=False)
class KubernetesPlan(Plan[R_co]):
    """
    The objects of a job on Kubernetes.

    Args:
        job: What is to run.

        call: The function and its arguments.

        options: The Kubernetes engine's options.

        name: What runs of it are called, but for the six digits behind it.
    """

    job: Job
    call: Call[R_co]
    options: KubernetesOptions
    name: str

    @cached_property
    def rendered(self) -> Rendered:
        """
        The plan under its own name.
        """
        return render(self, self.name)

    def __str__(self) -> str:
        count = self.job.world_size
        words = f"{count} {'replica' if count == 1 else 'replicas'} of {self.job.framework}"
        rendered = self.rendered
        head = [
            f"# {self.call.name}: {words} as {rendered.owner['kind']} in the namespace {self.options.namespace}",
            "# Submitting it puts six more digits behind the name, and the call itself into the Secret.",
        ]
        orders = secret(rendered.name, self.options.namespace, {})
        orders["stringData"] = {ORDERS_KEY: rendered.orders.to_json().decode()}
        return "\n".join(head) + "\n" + as_yaml([orders, *rendered.objects])


def make_plan(job: Job, call: Call[R_co], options: KubernetesOptions) -> KubernetesPlan[R_co]:
    """
    Render *job* and *call* for Kubernetes.

    Raises:
        UnsupportedError: The workload cannot honour a field of the job.

        InvalidJobError: Kubernetes would accept the job and never finish it, or not accept it.
    """
    workload = workload_of(job, options)
    check(job, options, workload)
    plan = KubernetesPlan(job=job, call=call, options=options, name=_name(job, call, workload))
    rendered = render(plan, f"{plan.name}-{'x' * (SUFFIX - 1)}")
    check_objects(rendered.objects)
    check_cluster(job, rendered.orders)
    return plan


def render(plan: KubernetesPlan[Any], name: str) -> Rendered:
    """
    The objects of one run, which is called *name*.
    """
    setting = Setting(job=plan.job, options=plan.options, name=name, about=_about(plan))
    objects = setting.workload.objects(setting)
    return Rendered(
        name=name,
        workload=setting.workload,
        objects=objects,
        owner=setting.workload.owner(objects),
        orders=_orders(setting, objects),
    )


def secret(name: str, namespace: str, data: Mapping[str, str]) -> dict[str, Any]:
    """
    The Secret of a run.

    Args:
        name: The run's name.

        namespace: Where it runs.

        data: Key -> what it holds, in base64.
    """
    metadata = {"name": name, "namespace": namespace, "labels": {RUN_LABEL: name}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", **({"data": dict(data)} if data else {})}


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """
    Objects as ``kubectl apply`` takes them.

    Raises:
        MissingDependencyError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        message = "Showing objects of Kubernetes needs the package 'yaml'. Install it with: python -m pip install 'distrib[kubernetes]'"
        raise MissingDependencyError(message, name="yaml") from error

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # in C where the package has it: ten times faster
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style=_style(text)))
    text: str = yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=140)
    return text


def _style(text: str) -> str | None:
    # Lines as lines: the command of a pod is a program.
    return "|" if "\n" in text else "'" if _AMBIGUOUS.fullmatch(text) else None


def _name(job: Job, call: Call[Any], workload: Workload) -> str:
    longest = workload.longest_name(job) - SUFFIX
    if longest < 1:
        group = max(job.groups, key=lambda group: len(f"{group.role}{group.replicas}"))
        why = "the names of its pods leave none for the run, in 63 characters; the backend has to give the role a shorter one."
        raise refuse(group.role, group.replicas, why)
    if job.name is not None:
        if len(job.name) > longest:
            why = (
                f"with what Kubernetes puts behind it, a name may have {longest} characters here, not {len(job.name)}; write a shorter one."
            )
            raise refuse("name", job.name, why)
        return job.name
    return _label(call.name)[:longest].strip("-") or _label(job.framework)[:longest].strip("-")


def _label(text: str) -> str:
    """
    A text as a name for objects, as far as it goes.

    >>> _label("train_MNIST"), _label("<lambda>"), _label("2nd_try")
    ('train-mnist', 'lambda', 'nd-try')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789").rstrip("-")


def _about(plan: KubernetesPlan[Any]) -> str:
    """
    What another machine has to know to take up the run.
    """
    workload = workload_of(plan.job, plan.options)
    about = {
        "function": plan.call.name,
        "framework": plan.job.framework,
        "workload": workload.name,
        "roles": {group.role: group.replicas for group in plan.job.groups},
        "storage": plan.options.storage,
        "job": job_to_data(plan.job),
    }
    text = json.dumps(about, separators=(",", ":"))
    if len(text) > _LONGEST_ABOUT:
        text = json.dumps({**about, "job": None}, separators=(",", ":"))
    return text


def _orders(setting: Setting, objects: tuple[dict[str, Any], ...]) -> Orders:
    job, options = setting.job, setting.options
    storage = None if options.storage is None else f"{options.storage.rstrip('/')}/{options.namespace}/{setting.name}"
    return Orders(
        run=setting.name,
        namespace=options.namespace,
        workload=setting.workload.name,
        cluster={role: tuple(addresses) for role, addresses in setting.cluster.items()},
        coordinator=setting.coordinator.name,
        services=tuple(role.name for role in job.backend.roles if role.service and role.name in setting.cluster),
        restarts={group.role: restart_policy(job, group.role).value for group in job.groups},
        deciders=deciders(job, setting.cluster.replicas, setting.coordinator),
        needed=job.backend.needed(job),
        grace_period=options.grace_period,
        storage=storage,
        control_port=options.control_port,
        peers_timeout=options.patience,
        message_limit=min(_MESSAGE, _MESSAGES // (1 + _containers(objects))),
    )


def _containers(value: Any) -> int:
    """
    The most containers that a pod in *value* has, init containers included.
    """
    if isinstance(value, dict):
        own = sum(len(found) for name in ("containers", "initContainers") if isinstance(found := value.get(name), list))
        return max([own, *map(_containers, value.values())])
    return max(map(_containers, value), default=0) if isinstance(value, (list, tuple)) else 0
