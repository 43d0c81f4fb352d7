"""
The pods of a run: what the job says about them, and what ours have besides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...._cluster import RUN_VARIABLE
from ....manifests import escaped, pod_template
from .._bootstrap import CALL_VOLUME, INDEX_VARIABLE, MOUNT, ROLE_VARIABLE, command
from .._labels import ROLE_LABEL
from .._patch import patched

if TYPE_CHECKING:
    from ._base import Setting

#: The name of the port at which the coordinator's pod listens for the others.
CONTROL_PORT = "distrib"
#: What the pod's own process needs after it has stopped the function's.
_LAST_SECONDS = 5

_USER = 1000
_RESTRICTED: Mapping[str, Mapping[str, Any]] = {
    "pod": {
        "runAsNonRoot": True,
        # Most images name no user of their own, and would not be started at all.
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "container": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}


def template_of(setting: Setting, role: str) -> dict[str, Any]:
    """
    The pods of a role, for workloads that take them as they are.
    """
    container = setting.workload.container(setting.job.backend)
    template = pod_template(setting.job, role, container=container, ports=[{"name": "replicas", "containerPort": setting.port}])
    template["spec"]["restartPolicy"] = "Never"
    return dressed(setting, role, template)


def dressed(setting: Setting, role: str, template: dict[str, Any]) -> dict[str, Any]:
    """
    A template with all that a pod of ours has: its command, its orders, who it is, and the patch of the options.
    """
    options = setting.options
    container = setting.workload.container(setting.job.backend)
    metadata, spec = template.get("metadata", {}), template["spec"]
    metadata["labels"] = {**metadata.get("labels", {}), **setting.labels, ROLE_LABEL: role}
    spec["containers"] = [_dressed_container(setting, role, each) if each["name"] == container else each for each in spec["containers"]]
    spec.setdefault("volumes", []).append({"name": CALL_VOLUME, "secret": {"secretName": setting.name}})
    spec.update(
        automountServiceAccountToken=False,
        # The variables of a namespace with thousands of Services are more than a process takes.
        enableServiceLinks=False,
        terminationGracePeriodSeconds=math.ceil(options.grace_period) + _LAST_SECONDS,
    )
    if options.service_account is not None:
        spec.setdefault("serviceAccountName", options.service_account)
    if options.scheduler is not None:
        spec["schedulerName"] = options.scheduler
    if contexts := _security(options.security_context, "pod"):
        spec["securityContext"] = contexts
    return patched({"metadata": metadata, "spec": spec}, options.pod_patch, container)


def _dressed_container(setting: Setting, role: str, main: dict[str, Any]) -> dict[str, Any]:
    options = setting.options
    own: dict[str, Any] = {"name": main["name"], "image": main.get("image", options.image)}
    if options.image_pull_policy is not None:
        own["imagePullPolicy"] = options.image_pull_policy
    own["command"] = [escaped(word) for word in command(options.python)]
    own["env"] = [
        {"name": ROLE_VARIABLE, "value": role},
        {"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": setting.workload.index_field}}},
        {"name": RUN_VARIABLE, "value": f"{options.namespace}/{setting.name}"},
        *main.get("env", []),
    ]
    own["ports"] = [*main.get("ports", []), {"name": CONTROL_PORT, "containerPort": options.control_port}]
    if contexts := _security(options.security_context, "container"):
        own["securityContext"] = contexts
    own["terminationMessagePolicy"] = "FallbackToLogsOnError"
    own["volumeMounts"] = [*main.get("volumeMounts", []), {"name": CALL_VOLUME, "mountPath": MOUNT, "readOnly": True}]
    return {**own, **{field: value for field, value in main.items() if field not in own}}


def _security(chosen: bool | Mapping[str, Any], of: str) -> dict[str, Any]:
    contexts: Mapping[str, Any] = {} if chosen is False else _RESTRICTED if chosen is True else chosen
    fresh: dict[str, Any] = _fresh(contexts.get(of, {}))
    return fresh


def _fresh(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _fresh(item) for key, item in value.items()}
    return [_fresh(item) for item in value] if isinstance(value, (list, tuple)) else value
