"""
The cluster as somebody beside distrib sees it, by the official client alone.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from distrib import Run, distributed

#: What all objects of a run have.
LABEL = "distrib.dev/run"


@attrs.frozen(kw_only=True)
class Cluster:
    """
    The cluster as somebody beside distrib sees it.
    """

    namespace: str
    image: str
    pod_patch: dict[str, Any]
    storage: str | None
    folder: Path

    #: What a run of ours may consist of: group, version, plural.
    KINDS = (
        ("kubeflow.org", "v1", "tfjobs"),
        ("kubeflow.org", "v1", "pytorchjobs"),
        ("kubeflow.org", "v1", "jaxjobs"),
        ("trainer.kubeflow.org", "v1alpha1", "trainjobs"),
        ("trainer.kubeflow.org", "v1alpha1", "trainingruntimes"),
        ("jobset.x-k8s.io", "v1alpha2", "jobsets"),
        ("batch", "v1", "jobs"),
    )

    @property
    def options(self) -> dict[str, Any]:
        """
        What every run of these tests says to the engine.
        """
        given: dict[str, Any] = {"namespace": self.namespace, "image": self.image, "echo": False}
        return {**given, **({"pod_patch": self.pod_patch} if self.pod_patch else {})}

    @property
    def core(self) -> Any:
        """
        The official client's pods, services and secrets.
        """
        from kubernetes import client

        return client.CoreV1Api()

    @property
    def custom(self) -> Any:
        """
        The official client's everything else.
        """
        from kubernetes import client

        return client.CustomObjectsApi()

    def task(self, function: Callable[..., Any], framework: str = "tensorflow", /, options: Any = None, **job: Any) -> Any:
        """
        The function as a task of this cluster; *options* are more of the engine's.
        """
        return distributed(framework, **job)(function).on("kubernetes", **{**self.options, **(options or {})})

    def has(self, plural: str) -> bool:
        """
        Whether the cluster knows that kind.
        """
        from kubernetes.client.exceptions import ApiException

        group, version, _ = next(kind for kind in self.KINDS if kind[2] == plural)
        try:
            self.custom.list_namespaced_custom_object(group, version, self.namespace, plural, limit=1)
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        return True

    def top(self, plural: str) -> list[dict[str, Any]]:
        """
        The objects of that kind in the namespace.
        """
        group, version, _ = next(kind for kind in self.KINDS if kind[2] == plural)
        found: list[dict[str, Any]] = self.custom.list_namespaced_custom_object(group, version, self.namespace, plural)["items"]
        return found

    def left(self, name: str) -> list[str]:
        """
        What there is of a run, by the name that its objects begin with: also what controllers have made for it, such as the operator's
        Services, which have no label of ours.
        """
        from kubernetes.client.exceptions import ApiException

        def names(items: list[str], kind: str) -> list[str]:
            return [f"{kind}/{item}" for item in items if item == name or item.startswith(f"{name}-")]

        core, found = self.core, []
        for listed in (
            core.list_namespaced_pod,
            core.list_namespaced_service,
            core.list_namespaced_secret,
            core.list_namespaced_config_map,
        ):
            kind = listed.__name__.rpartition("_")[2]
            found += names([item.metadata.name for item in listed(self.namespace).items], kind)
        for group, version, plural in self.KINDS:
            try:
                items = self.custom.list_namespaced_custom_object(group, version, self.namespace, plural)["items"]
            except ApiException as error:
                if error.status != 404:
                    raise
                continue
            found += names([item["metadata"]["name"] for item in items], plural)
        return found

    def pods(self, name: str) -> dict[str, Any]:
        """
        Replica -> its pod, the newest one.
        """
        items = self.core.list_namespaced_pod(self.namespace, label_selector=f"{LABEL}={name}").items
        return {_replica(pod): pod for pod in sorted(items, key=lambda pod: str(pod.metadata.creation_timestamp))}

    def await_pods(self, name: str, *replicas: str, seconds: float = 60) -> dict[str, Any]:
        """
        The pods of those replicas, once they run.
        """
        return until(lambda: _running(self.pods(name), replicas), f"{', '.join(replicas)} of {name} run", seconds)

    def await_all(self, name: str, replicas: int, seconds: float = 60) -> dict[str, Any]:
        """
        The pods of a run, once there are as many, whatever they do.
        """

        def look() -> dict[str, Any] | None:
            pods = self.pods(name)
            return pods if len(pods) == replicas else None

        return until(look, f"{name} has {replicas} pods", seconds)  # type: ignore[no-any-return]

    @contextmanager
    def beside(self, word: str, **labels: str) -> Iterator[str]:
        """
        A namespace for one test alone, where we may make one.
        """
        from kubernetes.client.exceptions import ApiException

        name = f"{self.namespace}-{word}-{secrets.token_hex(2)}"
        try:
            self.core.create_namespace({"metadata": {"name": name, "labels": labels}})
        except ApiException as error:
            if error.status == 403:
                pytest.skip("nobody lets us make a namespace")
            raise
        try:
            until(lambda: self.core.list_namespaced_service_account(name).items or None, "the namespace's service account")
            yield name
        finally:
            self.core.delete_namespace(name)

    @contextmanager
    def acting_as(self, account: str, rules: list[dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
        """
        The options of somebody who may do only what those rules say.
        """
        from kubernetes import client

        self.allow(account, rules or [])
        answer = self.core.create_namespaced_service_account_token(account, self.namespace, {"spec": {"expirationSeconds": 3600}})
        token = answer.status.token
        known = client.Configuration.get_default_copy()
        authority = base64.b64encode(Path(known.ssl_ca_cert).read_bytes()).decode()
        server = {"server": known.host, "certificate-authority-data": authority}
        file = self.folder / f"{account}.kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": self.namespace}}],
                    "clusters": [{"name": "it", "cluster": server}],
                    "users": [{"name": "it", "user": {"token": token}}],
                }
            )
        )
        yield {"kubeconfig": str(file)}

    def allow(self, account: str, rules: list[dict[str, Any]]) -> None:
        """
        Make a service account that may do what those rules say.
        """
        from kubernetes import client

        rights, where = client.RbacAuthorizationV1Api(), self.namespace
        self.core.create_namespaced_service_account(where, {"metadata": {"name": account}})
        rights.create_namespaced_role(where, {"metadata": {"name": account}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": account, "namespace": where}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        rights.create_namespaced_role_binding(where, {"metadata": {"name": account}, "subjects": [subject], "roleRef": role})

    def gone(self, name: str, seconds: float = 30) -> bool:
        """
        Nothing of a run is left, or will be in a moment: the cluster's garbage collector takes what its owner has left.
        """
        until(lambda: not self.left(name) or None, f"{name} is gone", seconds, lambda: self.left(name))
        return True


def name_of(run: Run[Any]) -> str:
    """
    The name that a run's objects have in its namespace.
    """
    return run.id.rpartition("/")[2]


def has_ended(pod: Any) -> bool:
    """
    Whether nothing of a pod runs, or will.
    """
    containers = pod.status.container_statuses or []
    return pod.status.phase in ("Succeeded", "Failed") or (bool(containers) and all(each.state.terminated for each in containers))


def _replica(pod: Any) -> str:
    labels, annotations = pod.metadata.labels, pod.metadata.annotations or {}
    index = labels.get("training.kubeflow.org/replica-index") or annotations.get("batch.kubernetes.io/job-completion-index")
    return f"{labels['distrib.dev/role']}-{index}"


def _running(pods: dict[str, Any], replicas: tuple[str, ...]) -> dict[str, Any] | None:
    ready = all(name in pods and pods[name].status.phase == "Running" for name in replicas)
    return pods if ready else None


def until(look: Callable[[], Any], what: str, seconds: float = 60, seen: Callable[[], Any] = lambda: "") -> Any:
    """
    What *look* gives, once that is not None.
    """
    end = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < end, f"not within {seconds:g} s: {what} {seen()}"
        time.sleep(0.1)
    return found
