"""
Who submits: a pod of the cluster with its own account, that may do what the documentation's Role says and nothing else.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from outside import Cluster, until

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "kubernetes.md"

PROGRAM = """
import json, os, time
import distrib

def here(seconds):
    print("hello", flush=True)
    time.sleep(seconds)  # the operator deletes pods, and their logs, as soon as the coordinator has ended
    return distrib.replica().name

found, options = [], json.loads(os.environ["OPTIONS"])
for workload in json.loads(os.environ["WORKLOADS"]):
    task = distrib.distributed("tensorflow", worker=2)(here).on("kubernetes", workload=workload, **options)
    run = task.submit(2)
    lines = [line for line in run.logs("worker-1", follow=True) if not line.startswith("distrib: ")]
    again = distrib.get_run(run.id)
    found.append([workload, list(run.results(120)), lines, again.result(60), run.id in [each.id for each in distrib.runs("kubernetes")]])
    long = task.submit(600)
    long.cancel(at_once=True)
    found[-1].append(long.status().state.value)
print("FOUND", json.dumps(found))
"""


def documented() -> list[dict[str, Any]]:
    """
    The rules of the Role that the documentation shows.
    """
    (text,) = re.findall(r"```yaml\n(.*?kind: Role\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    rules: list[dict[str, Any]] = yaml.safe_load(text)["rules"]
    return rules


def test_a_pod_submits_with_the_documented_role(cluster: Cluster) -> None:
    """
    With the pod's own account, and that Role alone, runs of every workload are submitted, followed, taken up and cancelled.
    """
    cluster.allow("submitter", documented())
    kinds = {"operator": "tfjobs", "job": "jobs", "jobset": "jobsets", "trainjob": "trainjobs"}
    workloads = [workload for workload, plural in kinds.items() if cluster.has(plural)]
    words = {"OPTIONS": cluster.options, "WORKLOADS": workloads}
    variables = [{"name": name, "value": json.dumps(value)} for name, value in words.items()]
    container = {"name": "main", "image": cluster.image, "command": ["python", "-c", PROGRAM], "env": variables}
    spec = {"serviceAccountName": "submitter", "restartPolicy": "Never", "containers": [container]}
    where, core = cluster.namespace, cluster.core
    core.create_namespaced_pod(where, {"metadata": {"name": "submitter"}, "spec": spec})

    def phase() -> str | None:
        seen = core.read_namespaced_pod("submitter", where).status.phase
        return seen if seen in ("Succeeded", "Failed") else None

    until(phase, "the submitting pod has ended", 180, lambda: core.read_namespaced_pod("submitter", where).status)
    log = core.read_namespaced_pod_log("submitter", where)
    assert "FOUND" in log, log
    found = json.loads(log.rpartition("FOUND ")[2].splitlines()[0])
    assert found == [[workload, ["worker-0", "worker-1"], ["hello"], "worker-0", True, "Cancelled"] for workload in workloads]
