"""
What is wrong with Flyte's plug-ins, by the numbers of the list of their defects, and right with ours: the same is done with both.

What takes pods, replicas or an import to be seen is shown elsewhere:

- 11 a local run has one process and no cluster: ``test_compat_tasks.test_a_local_workflow_runs_the_replicas``
- 12 all replicas upload their outputs, and the last one wins: ``test_pods.test_only_the_coordinators_outputs_are_kept``
- 13 after an exception the others wait for the replica: ``test_pods.test_a_failure_of_any_replica_reaches_flyte``
- 14, 15 an end without outputs told where it is taken for an error: the same of 12, and all of ``test_local``
- 19 another config for one node changes those of all workflows: ``test_surface.test_a_node_has_settings_of_its_own``
- 21 a variable stays behind: ``test_compat_tasks.test_one_elastic_node_trains_here``
- 26 alone where no plug-in is enabled: ``test_pods.test_a_pod_that_is_alone_does_not_train``
- 27 functions of other modules: ``test_surface.test_functions_of_other_modules_are_tasks_of_the_one_that_decorates``

Not ours to mend are 22 to 24 (MPI), 25 (links to logs, by Flyte's console), 28 (a master alone, on some back ends) and 31 (documents).
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import attrs
import flytekitplugins.kfpytorch.task as their_pytorch
import flytekitplugins.kftensorflow.task as their_tensorflow
import pytest
from flytekit import PodTemplate, Resources, task, workflow
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.image_spec import ImageSpec
from flytekit.tools.translator import get_serializable

import distrib.compat.kfpytorch.task as our_pytorch
import distrib.compat.kftensorflow.task as our_tensorflow

IMAGE = ImageConfig(default_image=Image("default", "repo/img", "7"))
SETTINGS = SerializationSettings(project="p", domain="d", version="v", env={}, image_config=IMAGE)
THEIRS = SimpleNamespace(tf=their_tensorflow, torch=their_pytorch)
OURS = SimpleNamespace(tf=our_tensorflow, torch=our_pytorch)


def train(x: int) -> int:
    """
    Any function.
    """
    return x


def made(config: Any, **keywords: Any) -> Any:
    """
    The task of a config.
    """
    return task(task_config=config, **keywords)(train)


def custom(config: Any) -> dict[str, Any]:
    """
    What Flyte's back end is told of a config.
    """
    told: dict[str, Any] = made(config).get_custom(SETTINGS)
    return told


def registered(of: Any) -> Any:
    """
    What is registered of a task.
    """
    return get_serializable(OrderedDict(), SETTINGS, of).to_flyte_idl().template


def tf_job(by: SimpleNamespace, *, chief: int | None = 0, ps: int | None = 0, **others: Any) -> Any:
    """
    A TfJob of a worker, unless *others* say so.
    """
    groups = {"chief": by.tf.Chief(replicas=chief), "ps": by.tf.PS(replicas=ps), "worker": by.tf.Worker(replicas=1)}
    return by.tf.TfJob(**{**groups, **others})


def worker(by: SimpleNamespace, **fields: Any) -> dict[str, Any]:
    """
    What Flyte's back end is told of workers.
    """
    told: dict[str, Any] = custom(tf_job(by, worker=by.tf.Worker(**{"replicas": 1, **fields})))["workerReplicas"]
    return told


def of_async(by: SimpleNamespace) -> Any:
    """
    A task of an async function.
    """

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    return task(task_config=tf_job(by))(later)


def of_subclass(by: SimpleNamespace) -> str:
    """
    The type of a task with a config of a class of one's own.
    """

    class Mine(by.tf.TfJob):  # type: ignore[misc,name-defined]
        pass

    kind: str = made(Mine(worker=by.tf.Worker(replicas=2), chief=by.tf.Chief(replicas=0), ps=by.tf.PS(replicas=0))).task_type
    return kind


def of_shared_template(by: SimpleNamespace) -> int:
    """
    How many volumes a pod template has after two tasks have had it.
    """
    template = PodTemplate()
    for _ in range(2):
        made(by.torch.PyTorch(worker=by.torch.Worker(replicas=1)), pod_template=template)
    return len(template.pod_spec.volumes or ())


def of_override(by: SimpleNamespace) -> tuple[str, int]:
    """
    The type and the nodes of a task once a workflow has given its node another config.
    """
    of = made(by.torch.Elastic(nnodes=1))

    @workflow
    def flow(x: int) -> int:
        node: int = of(x=x).with_overrides(task_config=by.torch.Elastic(nnodes=4))
        return node

    flow.compile()
    return of.task_type, of.get_custom(SETTINGS)["elasticConfig"]["maxReplicas"]


def of_old_evaluators(by: SimpleNamespace) -> Any:
    """
    How many evaluators there are if the old argument alone says so.
    """
    return custom(tf_job(by, num_evaluator_replicas=1, evaluator=by.tf.Evaluator(replicas=None)))["evaluatorReplicas"]["replicas"]


def of_policy(by: SimpleNamespace, **fields: int) -> list[Any]:
    """
    What Flyte's back end is told of a run policy.
    """
    return [*custom(tf_job(by, run_policy=by.tf.RunPolicy(by.tf.CleanPodPolicy.ALL, **fields)))["runPolicy"].values()]


@attrs.frozen
class Defect:
    """
    What is done with both plug-ins, and what comes of it: a value, or a pattern of an error.
    """

    number: int
    what: str
    act: Callable[[SimpleNamespace], Any]
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.number} {self.what}"


def error(pattern: str) -> re.Pattern[str]:
    """
    That it is an error, and which.
    """
    return re.compile(pattern)


RUNNING = {"cleanPodPolicy": "CLEANPOD_POLICY_RUNNING", "ttlSecondsAfterFinished": 1}
SPEC = ImageSpec(name="workers", registry="repo", builder="noop", base_image="repo/workers:1")
DEFECTS = [
    Defect(
        1,
        "a run policy without a word about pods",
        lambda by: custom(tf_job(by, run_policy=by.tf.RunPolicy(ttl_seconds_after_finished=1)))["runPolicy"],
        error("AttributeError: 'NoneType'"),
        RUNNING,
    ),
    Defect(2, "the documented ON_FAILURE", lambda by: by.tf.RestartPolicy.ON_FAILURE.value, error("AttributeError"), 1),
    Defect(3, "two restart policies are equal", lambda by: by.tf.RestartPolicy.NEVER == by.tf.RestartPolicy.ALWAYS, True, False),
    Defect(3, "two clean pod policies are equal", lambda by: by.torch.CleanPodPolicy.ALL == by.torch.CleanPodPolicy.NONE, True, False),
    Defect(3, "the hash of a policy", lambda by: len({*by.torch.RestartPolicy}), error("TypeError: unhashable"), 3),
    Defect(3, "the look of a policy", lambda by: repr(by.tf.RestartPolicy.NEVER), "RestartPolicy()", "<RestartPolicy.NEVER: 0>"),
    Defect(
        4,
        "neither chief nor ps",
        lambda by: custom(by.tf.TfJob(worker=by.tf.Worker(replicas=2)))["workerReplicas"]["replicas"],
        error("ValueError: Must specify either `num_chief_replicas`"),
        2,
    ),
    Defect(
        5, "no workers", lambda by: worker(by, replicas=0).get("replicas", 0), 0, error("InvalidJobError: worker: the job has no replicas")
    ),
    Defect(5, "less than none", lambda by: worker(by, replicas=-3)["replicas"], -3, error(r"InvalidJobError: worker\.replicas=-3")),
    # Which tag it has is flytekit's business, and not the same in all versions.
    Defect(6, "an ImageSpec", lambda by: worker(by, image=SPEC)["image"], error("TypeError"), re.compile("repo/workers:[0-9A-Za-z_-]+$")),
    Defect(
        6,
        "a placeholder",
        lambda by: worker(by, image="{{.image.default.fqn}}:1")["image"],
        "{{.image.default.fqn}}:1",
        "repo/img:1",
    ),
    Defect(7, "empty resources", lambda by: worker(by).get("resources"), {}, None),
    Defect(
        8,
        "two amounts",
        lambda by: worker(by, requests=Resources(cpu=("1", "2"))),
        error("ValueError"),
        error(r"InvalidJobError: worker\.requests\.cpu=\('1', '2'\): one amount is wanted here"),
    ),
    Defect(
        8, "resources as a text", lambda by: worker(by, requests="4"), error("TypeError"), error("InvalidJobError: .*name each resource")
    ),
    Defect(
        8,
        "a restart policy as a text",
        lambda by: worker(by, restart_policy="OnFailure")["restartPolicy"],
        error("AttributeError"),
        "RESTART_POLICY_ON_FAILURE",
    ),
    Defect(9, "an evaluator without a number", of_old_evaluators, error("TypeError: '>' not supported"), 1),
    Defect(10, "an async function", of_async, error("AssertionError"), error("AssertionError: .*not compatible with async functions")),
    Defect(16, "a subclass", of_subclass, "python-task", "tensorflow"),
    Defect(
        17,
        "numbers as resources",
        lambda by: registered(made(tf_job(by), requests=Resources(cpu=0.5, gpu=1))).container.resources.requests[0].value,
        error("TypeError"),
        "0.5",
    ),
    Defect(18, "a pod template of two tasks", of_shared_template, error("ValueError"), 0),
    Defect(20, "one node, as a text", lambda by: made(by.torch.Elastic(nnodes="1")).task_type, "pytorch", "python-task"),
    Defect(20, "another number of nodes", of_override, ("python-task", 1), error("InvalidJobError: .*Make another task")),
    Defect(
        20,
        "as many processes as devices",
        lambda by: custom(by.torch.Elastic(nnodes=2, nproc_per_node="auto"))["elasticConfig"]["maxReplicas"],
        error("TypeError"),
        2,
    ),
    Defect(
        29,
        "five chiefs",
        lambda by: custom(tf_job(by, chief=5))["chiefReplicas"]["replicas"],
        5,
        error("InvalidJobError: chief=5: tensorflow takes at most 1"),
    ),
    *(
        Defect(
            30,
            f"a negative {field}",
            partial(of_policy, **{field: -5}),
            ["CLEANPOD_POLICY_ALL", -5],
            error(rf"InvalidJobError: run_policy\.{field}=-5"),
        )
        for field in ("ttl_seconds_after_finished", "active_deadline_seconds", "backoff_limit")
    ),
]


def outcome(defect: Defect, by: SimpleNamespace) -> Any:
    """
    What comes of it.
    """
    with warnings.catch_warnings():
        # Theirs of its own default; ours of the old arguments.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return defect.act(by)
        except Exception as raised:
            return f"{type(raised).__name__}: {raised}"


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_ours_is_right(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is a defect of the plug-in's is none of ours.
    """
    # Older versions of flytekit ask a registry of the internet.
    monkeypatch.setattr(ImageSpec, "exist", lambda _: True)
    for by, expected in ((THEIRS, defect.theirs), (OURS, defect.ours)):
        found = outcome(defect, by)
        same = expected.match(str(found)) if isinstance(expected, re.Pattern) else found == expected
        assert same, (by is OURS, found)
