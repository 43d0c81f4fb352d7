"""
A run on a cluster that only stands in for one: tests say what its pods do.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import attrs
from scenes import Pod, raised, returned
from standin import StandIn, eventually

from distrib import Job
from distrib.engine import Call
from distrib.engines.kubernetes._engine import KubernetesEngine
from distrib.engines.kubernetes._run import KubernetesRun
from distrib.testing import _calls

SECRETS = "/api/v1/namespaces/here/secrets"
SERVICES = "/api/v1/namespaces/here/services"
PODS = "/api/v1/namespaces/here/pods"
EVENTS = "/api/v1/namespaces/here/events"
JOBS = "/apis/batch/v1/namespaces/here/jobs"
TF_JOBS = "/apis/kubeflow.org/v1/namespaces/here/tfjobs"


def ours() -> list[str]:
    """The threads that follow runs."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("distrib ")]


class Stage:
    """An engine, and what tests do in place of controllers and kubelets."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin
        self.engine = KubernetesEngine()
        self.pods: dict[str, Pod] = {}
        self.runs: list[KubernetesRun[Any]] = []

    def job(self, workers: int = 2, *, policy: dict[str, Any] | None = None, **options: Any) -> Job:
        """A job of some workers; *options* are the engine's."""
        given = {"namespace": "here", "image": "train:1", "workload": "job", "echo": False, "grace_period": 1, **options}
        return Job("tensorflow", worker=workers, run_policy=policy or {}, engine_options={"kubernetes": given})

    def elastic(self, nodes: str, **options: Any) -> Job:
        """A job that goes on with fewer nodes than it may have."""
        return attrs.evolve(Job("pytorch", nnodes=nodes), engine_options=self.job(**options).engine_options)

    def submit(self, workers: int = 2, *, policy: dict[str, Any] | None = None, **options: Any) -> KubernetesRun[Any]:
        """Submit it."""
        return self.submit_job(self.job(workers, policy=policy, **options))

    def submit_job(self, job: Job) -> KubernetesRun[Any]:
        """Submit any."""
        run = self.engine.submit(self.engine.plan(job, Call(_calls.name)))
        self.runs.append(run)
        return run

    def name(self, run: KubernetesRun[Any]) -> str:
        """The name of a run."""
        return run.id.rpartition("/")[2]

    def create(self, run: KubernetesRun[Any], workers: int = 2) -> None:
        """Do what the Job's controller does."""
        name = self.name(run)
        (owner,) = (
            data
            for (where, _), data in self.standin.objects.items()
            if where in (JOBS, TF_JOBS) and data["metadata"]["labels"]["distrib.dev/run"] == name
        )
        for index in range(workers):
            pod = self.pods[f"worker-{index}"] = Pod(f"worker-{index}", uid=f"{name}-{index}", run=name)
            pod.data["metadata"]["ownerReferences"] = [{"uid": owner["metadata"]["uid"]}]
            self.standin.put(PODS, pod.pending())

    def start(self, run: KubernetesRun[Any], workers: int = 2) -> None:
        """Have all pods run."""
        self.create(run, workers)
        for pod in self.pods.values():
            self.standin.put(PODS, pod.running())

    def give(self, name: str, value: object = None) -> None:
        """Have a replica return."""
        self._end(name, 0, returned(name, value))

    def fail(self, name: str, error: Exception | None = None) -> None:
        """Have a replica raise."""
        self._end(name, 1, raised(name, error))

    def _end(self, name: str, code: int, message: str) -> None:
        pod = self.pods[name]
        self.standin.finish(pod.data["metadata"]["name"])
        self.standin.put(PODS, pod.ended(code, message))

    def succeed(self, run: KubernetesRun[Any], workers: int = 2) -> None:
        """Have the whole run succeed, each replica with its index."""
        self.start(run, workers)
        for index in reversed(range(workers)):
            self.give(f"worker-{index}", index)

    def write(self, name: str, *lines: bytes) -> None:
        """Have a replica write."""
        self.standin.write(self.pods[name].data["metadata"]["name"], *lines)

    def left(self) -> list[str]:
        """What there is of all runs."""
        return [f"{where.rpartition('/')[2]}/{name}" for where, name in self.standin.objects]

    def about(self, collection: str) -> dict[str, Any]:
        """The annotation of the only workload."""
        (data,) = (data for (where, _), data in self.standin.objects.items() if where == collection)
        return dict(json.loads(data["metadata"]["annotations"]["distrib.dev/about"]))

    def followed(self) -> None:
        """Wait until all three kinds are watched."""
        eventually(lambda: sum(count for (verb, _), count in self.standin.asked().items() if verb == "watch") >= 3)
