"""
The page that says what Flyte honours of every field, held against what it is told.
"""

import re
from pathlib import Path

import attrs
import pytest
from flytekit import task
from test_surface import template

from distrib import Job, ReplicaGroup, Resources, RunPolicy, SchedulingPolicy, Toleration, UnsupportedError, Volume
from distrib.pytorch import Elastic

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "flyte-fields.md"
#: The heading of a table, and what it is about.
TABLES = {"The job": Job, "A replica group": ReplicaGroup, "Resources": Resources, "The run policy": RunPolicy, "Elastic training": Elastic}


def rows():
    """
    What the page says: (heading, field) -> what becomes of it.
    """
    found = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        row = re.match(r"\| `(\w+)` \| ([\w ]+) \|", line)
        if row:
            found[heading, row[1]] = row[2]
    return found


BASE = {"framework": "tensorflow", "chief": 1, "worker": 2, "ps": 1}
ELASTIC = {"min_nodes": 1, "max_nodes": 2, "nproc_per_node": 1}


def of_job(**changes):
    """
    A job with other fields.
    """
    return Job(**{**BASE, **changes})


def of_group(**changes):
    """
    A job of which one group has other fields.
    """
    return of_job(worker={"replicas": 2, **changes})


def of_resources(**changes):
    """
    A job whose replicas ask for something.
    """
    return of_job(requests=changes)


def of_policy(**changes):
    """
    A job with another run policy.
    """
    return of_job(run_policy=changes)


def of_elastic(**changes):
    """
    An elastic job with other options.
    """
    return Job("pytorch", elastic={**ELASTIC, **changes})


#: (heading, field) -> a job in which it is not what it is by default.
CHANGED = {
    ("The job", "framework"): lambda: Job("pytorch", worker=2),
    ("The job", "groups"): lambda: of_job(worker=3),
    ("The job", "options"): lambda: Job("pytorch", elastic=ELASTIC),
    ("The job", "run_policy"): lambda: of_policy(backoff_limit=3),
    ("The job", "image"): lambda: of_job(image="repo/train:1"),
    ("The job", "env"): lambda: of_job(env={"A": "1"}),
    ("The job", "requests"): lambda: of_job(requests={"cpu": 1}),
    ("The job", "limits"): lambda: of_job(limits={"cpu": 1}),
    ("The job", "name"): lambda: of_job(name="own-name"),
    ("The job", "engine"): lambda: of_job(engine="local"),
    ("A replica group", "role"): lambda: Job("tensorflow", worker=2, ps=1, evaluator=1),
    ("A replica group", "replicas"): lambda: of_group(replicas=5),
    ("A replica group", "image"): lambda: of_group(image="repo/train:1"),
    ("A replica group", "requests"): lambda: of_group(requests={"cpu": 1}),
    ("A replica group", "limits"): lambda: of_group(limits={"cpu": 1}),
    ("A replica group", "restart_policy"): lambda: of_group(restart_policy="OnFailure"),
    ("A replica group", "env"): lambda: of_group(env={"A": "1"}),
    ("A replica group", "node_selector"): lambda: of_group(node_selector={"a": "b"}),
    ("A replica group", "tolerations"): lambda: of_group(tolerations=[Toleration(key="a", value="b")]),
    ("A replica group", "affinity"): lambda: of_group(affinity={"nodeAffinity": {}}),
    ("A replica group", "volumes"): lambda: of_group(volumes=[Volume(mount_path="/data", claim="data")]),
    ("A replica group", "service_account"): lambda: of_group(service_account="a"),
    ("A replica group", "pull_secrets"): lambda: of_group(pull_secrets=["a"]),
    ("A replica group", "priority_class"): lambda: of_group(priority_class="high"),
    ("A replica group", "labels"): lambda: of_group(labels={"a": "b"}),
    ("A replica group", "annotations"): lambda: of_group(annotations={"a": "b"}),
    ("Resources", "cpu"): lambda: of_resources(cpu=1),
    ("Resources", "memory"): lambda: of_resources(memory="1Gi"),
    ("Resources", "gpu"): lambda: of_resources(gpu=1),
    ("Resources", "ephemeral_storage"): lambda: of_resources(ephemeral_storage="1Gi"),
    ("Resources", "shared_memory"): lambda: of_resources(shared_memory="1Gi"),
    ("Resources", "extended"): lambda: of_resources(extended={"example.com/a": 1}),
    ("The run policy", "clean_pod_policy"): lambda: of_policy(clean_pod_policy="All"),
    ("The run policy", "ttl_seconds_after_finished"): lambda: of_policy(ttl_seconds_after_finished=5),
    ("The run policy", "active_deadline_seconds"): lambda: of_policy(active_deadline_seconds=5),
    ("The run policy", "backoff_limit"): lambda: of_policy(backoff_limit=5),
    ("The run policy", "success_policy"): lambda: of_policy(success_policy="AllWorkers"),
    ("The run policy", "restart_scope"): lambda: of_policy(restart_scope="Job"),
    ("The run policy", "suspend"): lambda: of_policy(suspend=True),
    ("The run policy", "scheduling_policy"): lambda: of_policy(scheduling_policy=SchedulingPolicy(queue="a")),
    ("Elastic training", "min_nodes"): lambda: of_elastic(min_nodes=2),
    ("Elastic training", "max_nodes"): lambda: of_elastic(max_nodes=3),
    ("Elastic training", "nproc_per_node"): lambda: of_elastic(nproc_per_node=2),
    ("Elastic training", "max_restarts"): lambda: of_elastic(max_restarts=7),
    ("Elastic training", "rdzv_backend"): lambda: of_elastic(rdzv_backend="other"),
    ("Elastic training", "rdzv_endpoint"): lambda: of_elastic(rdzv_endpoint="example.com:29400"),
    ("Elastic training", "rdzv_configs"): lambda: of_elastic(rdzv_configs={"timeout": 5}),
    ("Elastic training", "monitor_interval"): lambda: of_elastic(monitor_interval=2),
    ("Elastic training", "start_method"): lambda: of_elastic(start_method="spawn"),
}


def told(job):
    """
    What Flyte is told of a function with a job.
    """

    def train(x: int) -> int:
        return x

    return template(task(task_config=job)(train))


def test_every_field_is_on_the_page():
    """
    Every field of the model has a row, and every row is tried here.
    """
    fields = {(heading, field.name) for heading, model in TABLES.items() for field in attrs.fields(model)}
    assert set(rows()) == fields
    assert fields - set(CHANGED) == {("The job", "engine_options")}  # test_options.py


@pytest.mark.parametrize(("heading", "field"), CHANGED)
def test_what_the_page_says_is_so(heading, field):
    """
    What is said to be sent changes the template, what is said to be refused is, and what is not sent changes nothing.
    """
    job = CHANGED[heading, field]()
    before = of_elastic() if heading == "Elastic training" else of_job()
    said = rows()[heading, field]
    if said == "refused":
        with pytest.raises(UnsupportedError, match=rf"^\S*\b{field}\b"):
            told(job)
    elif said == "sent":
        assert told(job) != told(before)
    else:
        assert said in ("not sent", "in the pod")
        assert job != before
        assert told(job) == told(before)


@pytest.mark.parametrize(
    "job",
    [
        of_group(restart_policy="ExitCode"),
        of_policy(ttl_seconds_after_finished=0),
        of_policy(backoff_limit=0),
        of_resources(cpu=0),
        of_group(limits={"shared_memory": "1Gi"}),
        Job("tensorflow", chief=1, ps=1),
        Job("jax", worker=2),
    ],
    ids=repr,
)
def test_values_that_the_page_excepts_are_refused(job):
    """
    Of a field that is sent, the values that the page says are refused.
    """
    with pytest.raises(UnsupportedError):
        told(job)
