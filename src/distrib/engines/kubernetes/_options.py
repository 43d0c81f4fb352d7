"""
The Kubernetes engine's own options: what ``.on("kubernetes", ...)`` takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from ... import _fields
from ..._frozen import EMPTY
from ..._refusal import refuse

WORKLOADS = ("operator", "job", "jobset", "trainjob")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PORTS = 65535
_PATCHED = ("metadata", "spec")
_SECURED = ("pod", "container")


def _one_of(words: tuple[str, ...], value: str | None) -> str | None:
    if value is not None and value not in words:
        raise refuse("", value, f"no such word.{_fields.nearest(value, words)}")
    return value


def _workload(value: str | None) -> str | None:
    return _one_of(WORKLOADS, value)


def _pull_policy(value: str | None) -> str | None:
    return _one_of(_PULL_POLICIES, value)


def _namespace(value: str) -> str:
    found = _fields.name("subdomain", value)
    if "." in found or len(found) > 63:  # noqa: PLR2004  # a DNS label
        raise refuse("", value, "write the name of a namespace: at most 63 lower-case letters, digits and '-'.")
    return found


def _text(value: str | None) -> str | None:
    if value is None:
        return None
    found = _fields.text(value)
    if not found.strip():
        raise refuse("", value, "write text, or leave it out.")
    return found


def _python(value: str) -> str:
    return _text(value) or "python"


def _storage(value: str | None) -> str | None:
    found = _text(value)
    if found is not None and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]|/", found):
        raise refuse(
            "", value, "write a URL, such as 's3://bucket/runs', or the absolute path of a folder that all pods and you have mounted."
        )
    return found


def _seconds(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _fields.INT32:  # type: ignore[redundant-expr]
        raise refuse("", value, f"write seconds, from 0 to {_fields.INT32}.")
    return float(value)


def _port(value: int) -> int:
    found = _fields.number(value, 1)
    if found > _PORTS:
        raise refuse("", value, f"write the number of a port, from 1 to {_PORTS}.")
    return found


def _optional_port(value: int | None) -> int | None:
    return None if value is None else _port(value)


def _patch(value: Mapping[str, Any]) -> Mapping[str, Any]:
    patch = _fields.plain(value)
    for key in patch:
        if key not in _PATCHED:
            raise refuse(_fields.as_path(key), patch[key], f"a patch of pods has no such part.{_fields.nearest(key, _PATCHED)}")
        if not isinstance(patch[key], Mapping):
            raise refuse(_fields.as_path(key), patch[key], "write a mapping.")
    return patch


def _security(value: bool | Mapping[str, Any]) -> bool | Mapping[str, Any]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, Mapping):
        raise refuse("", value, "write True, False, or a mapping with 'pod' and 'container'.")
    contexts = _fields.plain(value)
    for key in contexts:
        if key not in _SECURED or not isinstance(contexts[key], Mapping):
            why = f"write a security context of Kubernetes for either.{_fields.nearest(key, _SECURED)}"
            raise refuse(_fields.as_path(key), contexts[key], why)
    return contexts


def _queue(value: str | None) -> str | None:
    found = _fields.label_value(value)
    if found == "":
        raise refuse("", value, "write the name of a LocalQueue, or leave it out.")
    return found


@attrs.frozen(kw_only=True, field_transformer=_fields.named_under("kubernetes."))
class KubernetesOptions:
    """
    How a job runs on Kubernetes.

    Args:
        namespace: Where.

        context: The context of the kubeconfig; None for the current one.

        kubeconfig: Its path; None for ``KUBECONFIG``, ``~/.kube/config`` or, inside of a pod, the pod's own account.

        image: The container image of all groups for which the job names none.

        workload: What the job becomes: ``"operator"`` (TFJob, PyTorchJob …), ``"job"`` (plain Jobs of Kubernetes),
            ``"jobset"`` or ``"trainjob"`` (Kubeflow Trainer). None for the operator's where the framework has one, else ``"job"``.

        storage: Where calls and values are kept that are too large for Kubernetes: a URL for ``fsspec``, or a folder that all
            pods and you have mounted at the same place.

        pod_patch: What is to be different in all pods: ``{"metadata": …, "spec": …}``, merged as Kubernetes merges a strategic
            patch. The container ``"*"`` is the one that trains.

        queue: The local queue that Kueue admits the run from.

        service_account: The account of all groups for which the job names none.

        security_context: True for what the "restricted" pod security standard asks for, with user and group 1000; False for what
            image and cluster say; or Kubernetes' own, as ``{"pod": …, "container": …}``.

        image_pull_policy: ``"Always"``, ``"IfNotPresent"`` or ``"Never"``; None for Kubernetes' default.

        cluster_domain: What the cluster's own host names end in, such as ``"cluster.local"``; None where short names do.

        python: The interpreter in the image.

        grace_period: Seconds between SIGTERM and SIGKILL; also how long the other replicas may still run when the run has succeeded.

        patience: Seconds that pods may take to be scheduled and to start, and replicas to find each other.

        echo: Whether to show what the replicas write, and what becomes of the run, while it runs.

        port: Where replicas find each other; None for the operator's, or 2222.

        control_port: Where the coordinator's pod tells the others when the run is over.

        scheduler: The scheduler of the pods; None for the cluster's default.

    .. doctest::

        >>> from distrib.engines.kubernetes import KubernetesOptions
        >>> KubernetesOptions(namespace="team-a", workload="jobs")
        Traceback (most recent call last):
        distrib.errors.InvalidJobError: kubernetes.workload='jobs': no such word. Did you mean 'jobset'? ...
    """

    namespace: str = attrs.field(default="default", converter=_namespace)
    context: str | None = attrs.field(default=None, converter=_text)
    kubeconfig: str | None = attrs.field(default=None, converter=_text)
    image: str | None = attrs.field(default=None, converter=_fields.image)
    workload: str | None = attrs.field(default=None, converter=_workload, metadata={"examples": WORKLOADS})
    storage: str | None = attrs.field(default=None, converter=_storage, metadata={"examples": ("/mnt/runs", "s3://bucket/runs")})
    pod_patch: Mapping[str, Any] = attrs.field(
        default=EMPTY, converter=_patch, metadata={"examples": ({"metadata": {"labels": {"team": "a"}}},)}
    )
    queue: str | None = attrs.field(default=None, converter=_queue)
    service_account: str | None = attrs.field(default=None, converter=_fields.subdomain)
    security_context: bool | Mapping[str, Any] = attrs.field(default=True, converter=_security)
    image_pull_policy: str | None = attrs.field(default=None, converter=_pull_policy, metadata={"examples": _PULL_POLICIES})
    cluster_domain: str | None = attrs.field(default=None, converter=_fields.subdomain)
    python: str = attrs.field(default="python", converter=_python)
    grace_period: float = attrs.field(default=10.0, converter=_seconds)
    patience: float = attrs.field(default=600.0, converter=_seconds)
    echo: bool = attrs.field(default=True, converter=_fields.flag)
    port: int | None = attrs.field(default=None, converter=_optional_port)
    control_port: int = attrs.field(default=29400, converter=_port)
    scheduler: str | None = attrs.field(default=None, converter=_fields.subdomain)

    def __attrs_post_init__(self) -> None:
        if self.port == self.control_port:
            raise refuse("kubernetes.port", self.port, "control_port is the same; each needs its own.")
