"""
What is rendered, shown to a real API server that only looks at it: it has all of its schemas and webhooks, and other tests have not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outside import Cluster

sys.path.append(str(Path(__file__).parents[1] / "kubernetes"))

from reading import WORKLOADS, plan_of
from test_manifests import everything
from test_plan_text import goldens

from distrib import Job

LOOK: dict[str, Any] = {"dry_run": "All", "field_validation": "Strict"}


def test_a_server_takes_all_of_it(cluster: Cluster) -> None:
    """
    Every object with every field of ours is one that the server knows, and its pods are let into a namespace of restricted ones.
    """
    plans = {**{f"everything as {workload}": everything(workload) for workload in WORKLOADS}, **goldens()}
    refused: list[str] = []
    with cluster.beside("restricted", **{"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        cluster.core.create_namespaced_service_account(namespace, {"metadata": {"name": "trainer"}})
        for which, plan in plans.items():
            for each in plan.rendered.objects:
                refused += [f"{which}: {said}" for said in shown(cluster, namespace, each)]
        loose = plan_of(Job("jax", worker=1), workload="job", security_context=False).rendered.owner
        assert "violates PodSecurity" in " ".join(shown(cluster, namespace, loose))
    assert not refused, "\n".join(refused)


def shown(cluster: Cluster, namespace: str, data: dict[str, Any]) -> Iterator[str]:
    """
    What the server has against an object, and against the pods that will be made from it.
    """
    from kubernetes.client.exceptions import ApiException

    data["metadata"]["namespace"] = namespace
    group, _, version = data["apiVersion"].rpartition("/")
    plural = f"{data['kind'].lower()}s"
    if (group, version, plural) in cluster.KINDS and not cluster.has(plural):
        return
    try:
        if data["kind"] == "Service":
            cluster.core.create_namespaced_service(namespace, data, **LOOK)
        else:
            cluster.custom.create_namespaced_custom_object(group, version, namespace, plural, data, **LOOK)
    except ApiException as error:
        # Its runtime was only looked at.
        if "must be created before the TrainJob" not in str(error.body):
            yield f"{data['kind']}: {error.body}"
    for template in templates(data):
        try:
            cluster.core.create_namespaced_pod(namespace, pod(template), **LOOK)
        except ApiException as error:  # noqa: PERF203  # all of them are wanted
            yield f"a pod of {data['kind']}: {error.body}"


def templates(value: Any) -> Iterator[dict[str, Any]]:
    """
    The templates of pods in an object.
    """
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for item in value.values():
            yield from templates(item)
    elif isinstance(value, list):
        for item in value:
            yield from templates(item)


def pod(template: dict[str, Any]) -> dict[str, Any]:
    """
    A pod without what only its namespace, or the cluster, can have: a priority class, and volumes of NFS, which the standard forbids.
    """
    spec = {name: value for name, value in template["spec"].items() if name != "priorityClassName"}
    forbidden = {each["name"] for each in spec["volumes"] if "nfs" in each}
    containers = [
        {**each, "volumeMounts": [mount for mount in each["volumeMounts"] if mount["name"] not in forbidden]} for each in spec["containers"]
    ]
    volumes = [each for each in spec["volumes"] if each["name"] not in forbidden]
    return {
        "metadata": {**template["metadata"], "generateName": "looked-at-"},
        "spec": {**spec, "containers": containers, "volumes": volumes},
    }
