"""
The Role that the documentation shows is what the engine asks for: nothing less, and nothing more.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

from distrib.engines.kubernetes import _follower
from distrib.engines.kubernetes._engine import KubernetesEngine

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "kubernetes.md"
#: Kinds that only some workloads are made of: for each of them the same is granted as for Jobs.
WORKLOADS = {
    ("batch", "jobs"),
    ("kubeflow.org", "tfjobs"),
    ("kubeflow.org", "pytorchjobs"),
    ("kubeflow.org", "jaxjobs"),
    ("jobset.x-k8s.io", "jobsets"),
    ("trainer.kubeflow.org", "trainjobs"),
}


def granted() -> set[tuple[str, str, str]]:
    """What the documented Role allows: verb, group, resource."""
    yaml = pytest.importorskip("yaml")
    (text,) = re.findall(
        r"```yaml\n(apiVersion: rbac\.authorization\.k8s\.io/v1\nkind: Role\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    role: dict[str, Any] = next(iter(yaml.safe_load_all(text)))
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_documented_role(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Submitting, following, logs, cancelling and taking up a run ask for what the Role grants, each of it at least once.
    """
    asked: set[tuple[str, str, str]] = set()
    for workload in ("job", "operator"):
        run = stage.submit(workload=workload)
        stage.start(run)
        stage.write("worker-0", b"hello")
        next(run.logs(follow=True))
        other = KubernetesEngine()
        found = other.get_run(run.id)
        found.status()
        run.cancel(at_once=True)
        for engine in (stage.engine, other):
            asked |= {key for client in engine._clients.values() for key in client.requests}
    # A pod that has yet to start when the run has failed.
    monkeypatch.setattr(_follower, "SETTLE_SECONDS", 0.0)
    run = stage.submit(grace_period=0)
    stage.create(run)
    stage.fail("worker-1")
    run.exception(10)
    # What is refused half-way is taken back.
    from standin import RefusedError

    from distrib.errors import SubmitError

    for plural in ("jobs", "services"):
        stage.standin.refusals["create", plural] = [RefusedError(403, "Forbidden", "no")]
        with pytest.raises(SubmitError):
            stage.submit()
    stage.standin.refusals["patch", "secrets"] = [RefusedError(403, "Forbidden", "no")]
    with pytest.raises(SubmitError):
        stage.submit()
    asked |= {key for client in stage.engine._clients.values() for key in client.requests}
    of_jobs = {("patch", "batch", "jobs")}
    assert of_jobs <= asked
    of_workloads = {verb for verb, group, resource in asked - of_jobs if (group, resource) in WORKLOADS}
    others = of_jobs | {key for key in asked if key[1:] not in WORKLOADS}
    runtimes = {(verb, "trainer.kubeflow.org", "trainingruntimes") for verb in ("create", "patch", "delete")}
    assert granted() == others | runtimes | {(verb, *kind) for verb in of_workloads for kind in WORKLOADS}
