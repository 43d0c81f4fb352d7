"""
What Flyte's Kubeflow plug-in is told: Flyte's own messages read it back, and its Python plug-ins say the same where they are right.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from flyteidl.core import tasks_pb2
from flyteidl.plugins.kubeflow import common_pb2, pytorch_pb2, tensorflow_pb2
from flytekit import Resources, task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st
from sayable import told

from distrib import Job, ReplicaGroup, RunPolicy
from distrib import _flyte_wire as wire
from distrib._model import Resources as Amounts
from distrib._model import RestartPolicy
from distrib.errors import UnsupportedError
from distrib.testing.strategies import jobs

SETTINGS = SerializationSettings(project="p", domain="d", version="v", image_config=ImageConfig(default_image=Image("default", "img", "1")))
MESSAGES = {"tensorflow": tensorflow_pb2.DistributedTensorflowTrainingTask, "pytorch": pytorch_pb2.DistributedPyTorchTrainingTask}


def custom(job: Job) -> dict[str, Any]:
    """
    The part of the template that is the type's own.
    """
    return dict(job.backend.flyte_task(job).custom)


def message(job: Job) -> Any:
    """
    What the plug-in reads; a field that it does not know is an error here.
    """
    return ParseDict(custom(job), MESSAGES[job.framework]())


def amounts(entries: Any) -> dict[str, str]:
    """
    Our fields of a list of resources.
    """
    theirs = {name: field for field, name in wire.RESOURCES.items()}
    return {theirs[tasks_pb2.Resources.ResourceName.Name(entry.name)]: entry.value for entry in entries}


def wanted(resources: Amounts | None) -> dict[str, str]:
    """
    What of the resources of a group is on the wire.
    """
    return {} if resources is None else {name: str(value) for name in wire.RESOURCES if (value := getattr(resources, name)) is not None}


def specs(job: Job) -> list[tuple[str, Any]]:
    """
    The replica specs, each with the role that it is of: a lone chief is sent as a worker, and worker 0 as the master where there is none.
    """
    read, roles = message(job), {group.role for group in job.groups}
    sent = [(role, getattr(read, f"{role}_replicas")) for role in ("chief", "worker", "ps", "evaluator", "master") if _has(read, role)]
    return [(role if role in roles else job.groups[0].role, spec) for role, spec in sent]


def _has(read: Any, role: str) -> bool:
    field = f"{role}_replicas"
    return field in read.DESCRIPTOR.fields_by_name and read.HasField(field)


@pytest.mark.parametrize("framework", MESSAGES)
class TestMessages:
    def test_reading_gives_back_the_job(self, framework: str) -> None:
        """
        Groups, images, resources, policies and elasticity are read back as they are in the job.
        """

        @given(told(framework))
        def holds(job: Job) -> None:
            sent = job.backend.flyte_task(job)
            if sent.type == "python-task":
                assert job.world_size == 1
                return
            assert (sent.type, sent.version) == (framework, 1)
            read = message(job)
            found = specs(job)
            assert sum(spec.common.replicas for _, spec in found) == job.world_size
            assert {role for role, _ in found} == {group.role for group in job.groups}
            for role, spec in found:
                _check_group(job, role, spec)
            _check_policy(job.run_policy, read.run_policy)
            if framework == "pytorch":
                _check_elasticity(job, read)

        holds()

    def test_it_is_what_the_messages_themselves_give(self, framework: str) -> None:
        """
        Written by Flyte's own library, it is the same JSON: nothing is there that the wire leaves out, numbers of resources are texts.
        """

        @given(told(framework))
        def holds(job: Job) -> None:
            sent = custom(job)
            again = MessageToDict(message(job)) if sent else {}
            assert json.dumps(again, sort_keys=True) == json.dumps(sent, sort_keys=True)

        holds()

    def test_any_other_job_is_refused(self, framework: str) -> None:
        """
        With the field's name first, whatever it is.
        """

        @given(jobs(framework))
        def holds(job: Job) -> None:
            try:
                job.backend.flyte_task(job)
            except UnsupportedError as error:
                named = bool(error.field) and str(error).startswith(str(error.field))
                assert named, error  # noqa: PT017  # one of two ways out

        holds()

    def test_old_and_new_back_ends_read_the_same(self, framework: str) -> None:
        """
        What is under ``common`` is in the fields from before too.
        """
        job = Job(framework, worker={"replicas": 2, "image": "i", "requests": {"cpu": 1}, "restart_policy": "OnFailure"})
        for spec in custom(job).values():
            if "common" in spec:
                assert spec["common"] == {key: value for key, value in spec.items() if key != "common"}

    @pytest.mark.parametrize(
        ("keywords", "field"),
        [
            ({"worker": {"restart_policy": "ExitCode"}}, "worker.restart_policy"),
            ({"worker": {"node_selector": {"a": "b"}}}, "worker.node_selector"),
            ({"worker": {"env": {"A": "b"}}}, "worker.env"),
            ({"worker": {"labels": {"a": "b"}}}, "worker.labels"),
            ({"worker": {"volumes": [{"mount_path": "/d", "claim": "c"}]}}, "worker.volumes"),
            ({"worker": {"service_account": "a"}}, "worker.service_account"),
            ({"worker": 1, "requests": {"extended": {"a/b": 1}}}, "worker.requests.extended"),
            ({"worker": 1, "requests": {"cpu": 0}}, "worker.requests.cpu"),
            ({"worker": 1, "run_policy": {"backoff_limit": 0}}, "run_policy.backoff_limit"),
            ({"worker": 1, "run_policy": {"ttl_seconds_after_finished": 0}}, "run_policy.ttl_seconds_after_finished"),
            ({"worker": 1, "run_policy": {"success_policy": "AllWorkers"}}, "run_policy.success_policy"),
            ({"worker": 1, "run_policy": {"restart_scope": "Job"}}, "run_policy.restart_scope"),
            ({"worker": 1, "run_policy": {"suspend": True}}, "run_policy.suspend"),
            ({"worker": 1, "run_policy": {"scheduling_policy": {"min_available": 1}}}, "run_policy.scheduling_policy"),
        ],
    )
    def test_what_cannot_be_said_is_refused(self, framework: str, keywords: dict[str, Any], field: str) -> None:
        """
        The field is named, with what to write instead: nothing is left out in silence.
        """
        job = Job(framework, **keywords)
        with pytest.raises(UnsupportedError, match=r"Write|Leave") as caught:
            job.backend.flyte_task(job)
        assert caught.value.field == field


def _check_group(job: Job, role: str, spec: Any) -> None:
    for read in (spec, spec.common):
        assert read.image == (job.group(role).image or "")
        assert amounts(read.resources.requests) == wanted(job.resources_requests(role))
        assert amounts(read.resources.limits) == wanted(job.resources_limits(role))
        policy = common_pb2.RestartPolicy.Name(read.restart_policy)
        assert policy.removeprefix("RESTART_POLICY_").replace("_", "") == job.restart_policy(role).value.upper()


def _check_elasticity(job: Job, read: Any) -> None:
    elastic = job.options and job.options.elasticity
    assert read.HasField("elastic_config") == bool(elastic)
    assert read.HasField("master_replicas") != bool(elastic)
    if elastic:
        config, processes = read.elastic_config, job.options.processes
        assert (config.min_replicas, config.max_replicas) == (elastic.min_nodes, elastic.nodes)
        assert config.nproc_per_node == (processes if isinstance(processes, int) else 1)
        assert (config.max_restarts, config.rdzv_backend) == (elastic.max_restarts, elastic.rdzv_backend)


def _check_policy(policy: RunPolicy, read: Any) -> None:
    assert common_pb2.CleanPodPolicy.Name(read.clean_pod_policy) == f"CLEANPOD_POLICY_{policy.clean_pod_policy.value.upper()}"
    for name in ("ttl_seconds_after_finished", "active_deadline_seconds", "backoff_limit"):
        assert getattr(read, name) == (getattr(policy, name) or 0)


class TestTopologies:
    def test_a_lone_chief_is_sent_as_a_worker(self) -> None:
        """
        Flyte's plug-in refuses a job without workers; one replica is alone whatever it is called.
        """
        read = message(Job("tensorflow", chief={"replicas": 1, "requests": {"cpu": 3}}))
        assert not read.HasField("chief_replicas")
        assert (read.worker_replicas.replicas, amounts(read.worker_replicas.resources.requests)) == (1, {"cpu": "3"})

    def test_a_chief_beside_others_needs_a_worker(self) -> None:
        """
        It cannot be sent as a worker then: the others would not find a chief.
        """
        job = Job("tensorflow", chief=1, ps=1)
        with pytest.raises(UnsupportedError, match="Write worker=1 in place of the chief"):
            job.backend.flyte_task(job)

    def test_worker_0_becomes_the_master(self) -> None:
        """
        Flyte's PyTorch plug-in always makes one, which is the coordinator as worker 0 is.
        """
        read = message(Job("pytorch", worker=3))
        assert (read.master_replicas.replicas, read.worker_replicas.replicas) == (1, 2)

    def test_elastic_nodes_are_workers(self) -> None:
        """
        The range of nodes and what torchrun needs are in the elastic config.
        """
        read = message(Job("pytorch", elastic={"min_nodes": 1, "max_nodes": 3, "nproc_per_node": 2, "max_restarts": 4}))
        config = read.elastic_config
        assert (config.min_replicas, config.max_replicas, config.nproc_per_node, config.max_restarts) == (1, 3, 2, 4)
        assert config.rdzv_backend == "c10d"
        assert read.worker_replicas.replicas == 3
        assert not read.HasField("master_replicas")

    def test_one_elastic_node_is_an_ordinary_task(self) -> None:
        """
        No plug-in is needed for it.
        """
        job = Job("pytorch", elastic={"max_nodes": 1, "nproc_per_node": 2})
        assert (job.backend.flyte_task(job).type, custom(job)) == ("python-task", {})


class TestPlugins:
    def test_tensorflow_means_the_same(self) -> None:
        """
        Flyte's own TensorFlow plug-in says the same of a job that it can say without one of its defects.
        """
        from flytekitplugins.kftensorflow import PS, Chief, CleanPodPolicy, Evaluator, RestartPolicy, RunPolicy, TfJob, Worker

        config = TfJob(
            chief=Chief(replicas=1, image="c", requests=Resources(cpu="1"), limits=Resources(cpu="2")),
            worker=Worker(replicas=2, requests=Resources(mem="1Gi", gpu="1"), restart_policy=RestartPolicy.FAILURE),
            ps=PS(replicas=1, requests=Resources(cpu="1"), restart_policy=RestartPolicy.ALWAYS),
            evaluator=Evaluator(replicas=1, limits=Resources(mem="2Gi")),
            run_policy=RunPolicy(
                clean_pod_policy=CleanPodPolicy.RUNNING, ttl_seconds_after_finished=5, active_deadline_seconds=9, backoff_limit=2
            ),
        )
        job = Job(
            "tensorflow",
            chief={"image": "c", "requests": {"cpu": 1}, "limits": {"cpu": 2}},
            worker={"replicas": 2, "requests": {"memory": "1Gi", "gpu": 1}, "restart_policy": "OnFailure"},
            ps={"replicas": 1, "requests": {"cpu": 1}, "restart_policy": "Always"},
            evaluator={"replicas": 1, "limits": {"memory": "2Gi"}},
            run_policy={"ttl_seconds_after_finished": 5, "active_deadline_seconds": 9, "backoff_limit": 2},
        )
        assert _by_the_plugin(config, "tensorflow") == _without_common(message(job))

    def test_pytorch_means_the_same(self) -> None:
        """
        So does its PyTorch plug-in.
        """
        from flytekitplugins.kfpytorch import CleanPodPolicy, Master, PyTorch, RunPolicy, Worker

        config = PyTorch(
            master=Master(requests=Resources(cpu="1")),
            worker=Worker(replicas=2, requests=Resources(mem="1Gi")),
            run_policy=RunPolicy(clean_pod_policy=CleanPodPolicy.ALL, backoff_limit=3),
            increase_shared_mem=False,
        )
        job = Job(
            "pytorch",
            master={"replicas": 1, "requests": {"cpu": 1}},
            worker={"replicas": 2, "requests": {"memory": "1Gi"}},
            run_policy={"clean_pod_policy": "All", "backoff_limit": 3},
        )
        assert _by_the_plugin(config, "pytorch") == _without_common(message(job))


def _template(config: Any) -> dict[str, Any]:
    made: dict[str, Any] = task(task_config=config)(_train).get_custom(SETTINGS)
    return made


def _train() -> None:
    """
    Any function of a module: flytekit looks for its name.
    """


def _by_the_plugin(config: Any, framework: str) -> Any:
    read = ParseDict(_template(config), MESSAGES[framework]())
    for name in ("chief", "worker", "ps", "evaluator", "master"):
        if _has(read, name):
            _tidy(getattr(read, f"{name}_replicas"))
    return read


def _tidy(spec: Any) -> None:
    # Empty resources are one of its defects.
    if spec.HasField("resources") and not spec.resources.requests and not spec.resources.limits:
        spec.ClearField("resources")


def _without_common(read: Any) -> Any:
    for name in ("chief", "worker", "ps", "evaluator", "master"):
        if _has(read, name):
            getattr(read, f"{name}_replicas").ClearField("common")
    return read


def test_every_field_of_a_group_is_sent_or_refused() -> None:
    """
    A field that is new in the model is refused until it is sent.
    """
    known = {field.name for field in attrs.fields(ReplicaGroup)}
    assert set(wire.GROUP_FIELDS) < known
    assert set(wire._REMEDIES) < known - set(wire.GROUP_FIELDS)
    assert {*wire.RUN_POLICY_FIELDS, *wire._RUN_POLICY_REMEDIES} == {field.name for field in attrs.fields(RunPolicy)}
    assert set(wire._RESTART) == set(RestartPolicy) - {RestartPolicy.EXIT_CODE}


@given(st.sampled_from(sorted(MESSAGES)))
def test_a_task_is_nobody_elses(framework: str) -> None:
    """
    Changing what was rendered changes nothing of what is rendered next.
    """
    job = Job(framework, worker={"replicas": 2, "requests": {"cpu": 1}})
    first = custom(job)
    spec = next(value for value in first.values() if "common" in value)
    spec["resources"]["requests"].clear()
    assert spec["common"]["resources"]["requests"]
    assert custom(job) != first


def test_variables_arrive_as_they_are_written() -> None:
    """
    Kubernetes replaces ``$(NAME)`` in variables of pods; those of the job are escaped, Flyte's own keyword is handed on.
    """
    task_ = task(task_config=Job("tensorflow", worker=1, env={"COST": "$(HOME) $5"}), environment={"PATHS": "$(HOME)"})(_train)
    assert task_.environment == {"COST": "$$(HOME) $$5", "PATHS": "$(HOME)"}
