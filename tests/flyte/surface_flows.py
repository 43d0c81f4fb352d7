"""
The same tasks, by flytekit's ``@task`` for one replica and by ours for several.
"""

import datetime as dt
import functools
from collections.abc import Callable

import flytekit
from flytekit import Documentation, LaunchPlan, PodTemplate, Resources, Secret, dynamic, map_task, task, workflow
from flytekit.deck import DeckField
from flytekit.extras.accelerators import T4
from kubernetes.client import V1Container, V1PodSpec

from distrib import Job, distributed, replica

QUIET = {"preload": False, "echo": False}
JOB = Job("tensorflow", worker=2, local=QUIET)

#: Every keyword that two tasks can be given at once.
SETTINGS = {
    "retries": 3,
    "timeout": dt.timedelta(hours=1),
    "interruptible": True,
    "deprecated": "use another",
    "cache": True,
    "cache_version": "1",
    "cache_serialize": True,
    "cache_ignore_input_vars": ("note",),
    "container_image": "repo/train:2",
    "environment": {"A": "1"},
    "requests": Resources(cpu="1", mem="2Gi"),
    "limits": Resources(cpu="2", mem="4Gi", gpu="1"),
    "secret_requests": [Secret(group="group", key="key")],
    "docs": Documentation(short_description="It trains."),
    "enable_deck": True,
    "deck_fields": (DeckField.INPUT,),
    "accelerator": T4,
    "shared_memory": "2Gi",
    "pod_template_name": "template",
}
POD = PodTemplate(
    primary_container_name="main",
    labels={"team": "vision"},
    pod_spec=V1PodSpec(containers=[V1Container(name="main")], node_selector={"disk": "ssd"}),
)


@task(**SETTINGS)
def plain(x: int, note: str = "n") -> int:
    """
    By flytekit alone.
    """
    return x * 2


@distributed(framework="tensorflow", worker=2, local=QUIET, flyte=SETTINGS)
def ours(x: int, note: str = "n") -> int:
    """
    By our decorator.
    """
    return x * replica().world_size


wider = ours.options(worker=8)


@workflow
def wide_flow(x: int) -> int:
    """
    Of a task with another job.
    """
    return wider(x=x)


@task(task_config=JOB, **SETTINGS)
def flytes(x: int, note: str = "n") -> int:
    """
    By flytekit's decorator, with a job.
    """
    return x * replica().world_size


@task(pod_template=POD)
def plain_pod(x: int) -> int:
    """
    With a pod template.
    """
    return x


@distributed(framework="tensorflow", worker=2, local=QUIET, flyte={"pod_template": POD})
def ours_pod(x: int) -> int:
    """
    With the same one.
    """
    return x


@dynamic
def plain_many(x: int) -> int:
    """
    Made when it runs.
    """
    return plain(x=x, note="many")


many = dynamic(task_config=JOB)


@many
def ours_many(x: int) -> int:
    """
    Made when it runs, by a task of ours.
    """
    return plain(x=x, note="many")


@workflow
def plain_flow(x: int) -> int:
    """
    A node with settings of its own.
    """
    return plain(x=x).with_overrides(
        node_name="node",
        retries=5,
        timeout=60,
        interruptible=False,
        name="called",
        container_image="repo/train:3",
        limits=Resources(cpu="4"),
        requests=Resources(cpu="3"),
        accelerator=T4,
        cache=True,
        cache_version="2",
    )


@workflow
def ours_flow(x: int) -> int:
    """
    The same of ours.
    """
    return ours(x=x).with_overrides(
        node_name="node",
        retries=5,
        timeout=60,
        interruptible=False,
        name="called",
        container_image="repo/train:3",
        limits=Resources(cpu="4"),
        requests=Resources(cpu="3"),
        accelerator=T4,
        cache=True,
        cache_version="2",
    )


@task
def mapped_plainly(x: int) -> int:
    """
    Has one input.
    """
    return x


@distributed(framework="tensorflow", worker=2, local=QUIET)
def mapped(x: int) -> int:
    """
    Has one input.
    """
    return x * replica().world_size


@workflow
def plain_map(xs: list[int]) -> list[int]:
    """
    Over several inputs.
    """
    return map_task(mapped_plainly, concurrency=2)(x=xs)


@workflow
def ours_map(xs: list[int]) -> list[int]:
    """
    The same of ours.
    """
    return map_task(mapped, concurrency=2)(x=xs)


plain_plan = LaunchPlan.get_or_create(plain_flow, "plain_plan", fixed_inputs={"x": 3})
ours_plan = LaunchPlan.get_or_create(ours_flow, "ours_plan", fixed_inputs={"x": 3})


def one_more(function: Callable[..., int]) -> Callable[..., int]:
    """
    A decorator as users write them.
    """

    @functools.wraps(function)
    def wrapper(*args: int, **kwargs: int) -> int:
        return function(*args, **kwargs) + 1

    return wrapper


@distributed(framework="tensorflow", worker=2, local=QUIET)
@one_more
def decorated(x: int) -> int:
    """
    The replicas call what the decorator has made.
    """
    return x * replica().world_size


@one_more
@distributed(framework="tensorflow", worker=2, local=QUIET)
def redecorated(x: int) -> int:
    """
    Whoever calls the task calls what the decorator has made.
    """
    return x * replica().world_size


@distributed(framework="tensorflow", worker=2, local=QUIET, flyte={"secret_requests": [Secret(group="group", key="key")]})
def secret() -> str:
    """
    The replicas see the secret.
    """
    return str(flytekit.current_context().secrets.get("group", "key"))
