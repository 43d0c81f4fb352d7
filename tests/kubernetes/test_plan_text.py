"""
Plans as they are printed: what kubectl takes, the same everywhere, and made without a cluster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from drawing import any_plans, plans
from hypothesis import given, settings
from reading import WORKLOADS, plan_of

from distrib import Job
from distrib._converter import job_from_data, job_to_data
from distrib.engine import Call
from distrib.engines.kubernetes import KubernetesOptions
from distrib.engines.kubernetes._plan import KubernetesPlan, make_plan
from distrib.errors import MissingDependencyError
from distrib.testing._calls import name as any_call

GOLDEN = Path(__file__).parents[1] / "data" / "manifests"
#: Text that one reader of YAML or another takes for something else.
ODD = (
    "1e-3",
    "y",
    "N",
    "0o17",
    "08",
    "1_000",
    "0x1f",
    "12e03",
    ".5",
    "+1",
    "null",
    "on",
    "~",
    "1:30",
    "2026-01-01",
    "-",
    "",
    " a ",
    "a: b",
    "{}",
)


def train(epochs: int = 3) -> None:
    """Never called: only planned."""


def golden(framework: str, options: dict[str, Any], **job: Any) -> KubernetesPlan[Any]:
    """
    A plan of a job as one would write it.
    """
    options = {"namespace": "team-a", "image": "registry.example/train:1", **options}
    return make_plan(Job(framework, **job), Call(train, kwargs={"epochs": 3}), KubernetesOptions(**options))


def goldens() -> dict[str, KubernetesPlan[Any]]:
    """
    Each kind of object, for a framework that it is used with.
    """
    gpu = {"requests": {"cpu": 4, "memory": "16Gi"}, "limits": {"gpu": 1, "shared_memory": "8Gi"}}
    claim = {"volumes": [{"mount_path": "/data", "claim": "datasets", "read_only": True}]}
    return {
        "tensorflow-operator": golden("tensorflow", {}, chief=1, worker={"replicas": 2, **gpu}, ps=2, evaluator=1),
        "tensorflow-job": golden("tensorflow", {"workload": "job"}, worker={"replicas": 2, **claim}, ps=1, env={"LEARNING_RATE": "1e-3"}),
        "tensorflow-jobset": golden(
            "tensorflow",
            {"workload": "jobset", "queue": "research"},
            worker={"replicas": 2, "restart_policy": "ExitCode"},
            evaluator=1,
            run_policy={"restart_scope": "Job", "backoff_limit": 3},
        ),
        "tensorflow-trainjob": golden("tensorflow", {"workload": "trainjob"}, worker=2, ps=1, run_policy={"active_deadline_seconds": 3600}),
        "pytorch-operator": golden("pytorch", {}, elastic={"min_nodes": 2, "max_nodes": 4, "nproc_per_node": 8}, limits={"gpu": 8}),
        "pytorch-trainjob": golden("pytorch", {"workload": "trainjob"}, master=1, worker=3),
        "jax-operator": golden("jax", {"storage": "s3://bucket/runs"}, worker=2, run_policy={"ttl_seconds_after_finished": 600}),
    }


@pytest.mark.parametrize("which", sorted(goldens()))
def test_golden(which: str, request: pytest.FixtureRequest) -> None:
    """
    What is printed is what somebody has read: ``pytest tests/kubernetes --remake`` writes the files anew.
    """
    path, printed = GOLDEN / f"{which}.yaml", str(goldens()[which])
    if request.config.getoption("--remake", default=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8")


def test_there_is_no_other_golden() -> None:
    """
    Every file belongs to a plan.
    """
    assert {path.stem for path in GOLDEN.iterdir()} == set(goldens())


def documents(plan: KubernetesPlan[Any]) -> list[dict[str, Any]]:
    """
    What is printed, read again.
    """
    return list(yaml.safe_load_all(str(plan)))


@settings(any_plans, max_examples=10)
@given(of_a_job=plans())
def test_what_is_printed_is_what_is_sent(of_a_job: list[KubernetesPlan[Any]]) -> None:
    """
    The YAML holds the run's Secret with the orders, which the pods wait for, and then the objects in the order in which they are
    created; equal jobs print the same, and nothing that is done to one plan's objects shows in another's.
    """
    for plan in of_a_job:
        secret, *objects = documents(plan)
        assert objects == json.loads(json.dumps(plan.rendered.objects))
        assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", plan.name)
        assert secret["stringData"] == {"orders.json": plan.rendered.orders.to_json().decode()}
        printed, data = str(plan), job_to_data(plan.job)
        empty(plan.rendered.objects)
        assert job_to_data(plan.job) == data
        equal = make_plan(job_from_data(data), plan.call, plan.options)
        assert str(equal) == printed


def empty(value: Any) -> None:
    """
    Take everything out of containers, the inner ones first.
    """
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            empty(part)
    if not isinstance(value, tuple):
        value.clear()


@pytest.mark.parametrize("workload", WORKLOADS)
def test_all_that_is_named_is_there(workload: str) -> None:
    """
    In one namespace, with the run's label on all: a Secret for the pods' volume, a Service or a runtime by the name that is asked for,
    before what asks for it. Nothing has an owner yet, which only the API server can name.
    """
    plan = plan_of(Job("tensorflow", worker=2, ps=1, name="digits"), workload=workload, namespace="team-a")
    found = documents(plan)
    names = {
        "operator": ["Secret digits", "TFJob digits"],
        "job": ["Secret digits", "Job digits-worker", "Service digits", "Job digits-ps"],
        "jobset": ["Secret digits", "JobSet digits"],
        "trainjob": ["Secret digits", "TrainingRuntime digits", "TrainJob digits"],
    }
    assert [f"{each['kind']} {each['metadata']['name']}" for each in found] == names[workload]
    for each in found:
        assert each["metadata"]["namespace"] == "team-a"
        assert each["metadata"]["labels"]["distrib.dev/run"] == "digits"
        assert "ownerReferences" not in each["metadata"]
    assert set(re.findall(r"secretName: (\S+)", str(plan))) == {"digits"}


@pytest.mark.parametrize("text", ODD)
def test_text_stays_text(text: str) -> None:
    """
    Numbers of YAML 1.1 and 1.2, and the short words of truth, are in quotation marks.
    """
    plan = plan_of(Job("tensorflow", worker={"replicas": 1, "env": {"A": text}, "labels": {"y": "1e-3"}}))
    line = next(line for line in str(plan).splitlines() if line.startswith("          - name: A") or line.strip() == "- name: A")
    after = str(plan).split(line + "\n")[1].splitlines()[0].strip()
    assert re.fullmatch(r"value: (?:'.*'|\".*\")", after)
    assert "'y': '1e-3'" in str(plan)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
def test_kubectl_reads_the_same(tmp_path: Path) -> None:
    """
    The program that users would feed it to sees the objects that we see.
    """
    env = {f"A{place}": text for place, text in enumerate((*ODD, "\x85\u2028é\U0001f600", "two\nlines \n", "\ttab\n", "$(A) $$", "'\""))}
    odd = plan_of(Job("tensorflow", worker={"replicas": 1, "env": env, "annotations": {"y": "\x16*", "n": "1e3"}}))
    for plan in (odd, *goldens().values()):
        path = tmp_path / "plan.yaml"
        path.write_text(str(plan), encoding="utf-8")
        command = ["kubectl", "label", "--local", "--overwrite", "-o", "json", "-f", str(path), f"distrib.dev/run={plan.name}"]
        told = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
        assert read_all(told) == documents(plan)


def test_a_pod_of_an_applied_plan_says_what_is_missing(tmp_path: Path) -> None:
    """
    The command, the variables and the Secret of a plan that somebody has applied by hand start our own process, which finds no call.
    """
    secret, job, _ = documents(plan_of(Job("jax", worker=1), workload="job", python=sys.executable))
    (tmp_path / "orders.json").write_text(secret["stringData"]["orders.json"], encoding="utf-8")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value", "0") for each in container["env"]}
    places = {"DISTRIB_MOUNT": str(tmp_path), "DISTRIB_TERMINATION_LOG": str(tmp_path / "message")}
    done = subprocess.run(container["command"], env={**os.environ, **variables, **places}, capture_output=True, text=True, check=False)
    assert done.returncode == 126
    assert "the run's Secret has no call.pickle" in done.stderr
    assert "Submit it with distrib." in json.loads((tmp_path / "message").read_text(encoding="utf-8"))["text"]


def read_all(text: str) -> list[Any]:
    """
    Documents of JSON, one behind the other.
    """
    found, decoder = [], json.JSONDecoder()
    while text:
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:].lstrip()
    return found


#: A machine that knows of no cluster, and where nobody is asked for one.
ALONE = """
import sys

FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "ssl.", "urllib.")

def watch(event, args):
    if event.startswith(FORBIDDEN) or (event == "open" and ("kube" in str(args[0]) and not str(args[0]).endswith((".py", ".pyc", ".so")))):
        raise SystemExit(f"{event}{args}")

from distrib import distributed

@distributed(framework="tensorflow", chief=1, worker=3, ps=2, env={"A": "1", "B": "2"}, limits={"extended": {"rdma/hca": 1}})
def train(): ...

sys.addaudithook(watch)
for workload in ("operator", "job", "jobset", "trainjob"):
    print(train.on("kubernetes", image="train:1", workload=workload, kubeconfig="/nowhere/kubeconfig").plan())
assert not {"kubernetes", "tensorflow", "socket", "urllib3", "cloudpickle"} & set(sys.modules), sorted(sys.modules)
"""


def test_it_takes_no_cluster_and_is_the_same_everywhere(tmp_path: Path) -> None:
    """
    A plan is made and printed without a network, a kubeconfig, a process, a cluster or its client, and is the same to the byte in
    another process, whatever order its sets have.
    """
    program = tmp_path / "program.py"
    program.write_text(ALONE, encoding="utf-8")
    printed = []
    for seed in ("1", "2"):
        nowhere = {"KUBECONFIG": "/nowhere/else", "HOME": "/nowhere"}
        # Python itself writes what it has compiled, of modules that were changed or are new.
        environ = {**os.environ, **nowhere, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, str(program)], env=environ, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert printed[0].count("kind: Secret") == 4


def test_printing_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A plan can be made without PyYAML, and printing it says what to install.
    """
    plan = plan_of(Job("jax", worker=1))
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingDependencyError, match="distrib\\[kubernetes\\]"):
        str(plan)


def test_two_thousand_replicas() -> None:
    """
    They are one plan, with all of their addresses; ``nox -s bench -- planning`` says how long it takes.
    """
    plan = plan_of(Job("tensorflow", chief=1, worker=1990, ps=9, name="many"))
    secret, job = documents(plan)
    assert job["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] == 1990
    assert json.loads(secret["stringData"]["orders.json"])["cluster"]["worker"][-1] == "many-worker-1989.default.svc:2222"


def test_any_call_is_shown_by_its_name() -> None:
    """
    The first line says what it is, and the second what is not there yet.
    """
    first, second, *_ = str(plan_of(Job("tensorflow", worker=1))).splitlines()
    assert first == f"# {any_call.__name__}: 1 replica of tensorflow as TFJob in the namespace default"
    assert second == "# Submitting it puts six more digits behind the name, and the call itself into the Secret."
