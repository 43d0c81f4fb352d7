"""
Every kind of job through Flyte's own back end: it makes of the task what our manifest of the job says.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from judging import PLATFORM, Judge, elasticity, expected, found, serialized
from sayable import told

from distrib import Job
from distrib.errors import UnsupportedError

CHOICE: dict[str, Any] = {
    "chief": {"replicas": 1, "image": "chief:1", "requests": {"cpu": 2}},
    "worker": {"replicas": 2, "requests": {"cpu": "1500m", "memory": "2Gi", "gpu": 1}, "restart_policy": "OnFailure"},
    "ps": {"replicas": 2, "limits": {"memory": "1Gi"}, "restart_policy": "Always"},
    "evaluator": 1,
}
POLICY = {"clean_pod_policy": "All", "ttl_seconds_after_finished": 60, "active_deadline_seconds": 3600, "backoff_limit": 4}
#: Elastic jobs have no time to live: the operator would not heed it.
BOUNDS = {"active_deadline_seconds": 3600, "backoff_limit": 4}
JOBS = {
    "a worker": Job("tensorflow", worker=1),
    "a lone chief": Job("tensorflow", chief={"replicas": 1, "image": "c:1", "requests": {"cpu": 3}}),
    "workers": Job("tensorflow", worker=3),
    "chief and workers": Job("tensorflow", chief=1, worker=2),
    "parameter servers": Job("tensorflow", worker=2, ps=2),
    "all roles": Job("tensorflow", chief=1, worker=2, ps=1, evaluator=1),
    "everything": Job("tensorflow", **CHOICE, image="job:1", requests={"memory": "512Mi"}, env={"A": "b"}, run_policy=POLICY),
    "resources of the job": Job("tensorflow", chief=1, worker=2, requests={"cpu": 4, "memory": "8Gi"}, limits={"cpu": 6, "gpu": 2}),
    "a part for a group": Job("tensorflow", worker={"replicas": 1, "requests": {"cpu": 8}}, ps=1, requests={"cpu": 1, "memory": "64Gi"}),
    "storage": Job("tensorflow", worker={"replicas": 1, "requests": {"ephemeral_storage": "10Gi"}}, ps=1, requests={"cpu": 1}),
    "shared memory": Job("tensorflow", worker=2, requests={"memory": "4Gi", "shared_memory": "1Gi"}),
    "clean None": Job("tensorflow", worker=1, ps=1, run_policy={"clean_pod_policy": "None"}),
    "variables": Job("tensorflow", worker=1, env={"A": "b c", "DOLLAR": "$(HOME) $$ $5", "BRACES": "{{ .input }}"}),
    "a master": Job("pytorch", master=1),
    "master and workers": Job("pytorch", master={"replicas": 1, "requests": {"cpu": 1}}, worker={"replicas": 3, "image": "w:1"}),
    "one worker": Job("pytorch", worker=1),
    "workers of PyTorch": Job("pytorch", worker={"replicas": 3, "requests": {"gpu": 8}}, image="torch:1", run_policy=POLICY),
    "processes": Job("pytorch", worker=2, nproc_per_node=4),
    "elastic": Job("pytorch", elastic={"min_nodes": 2, "nproc_per_node": 2}),
    "elastic, more": Job("pytorch", elastic={"min_nodes": 1, "max_nodes": 3, "max_restarts": 4}, requests={"cpu": 2}, run_policy=BOUNDS),
    "elastic nodes": Job("pytorch", worker={"replicas": 2, "image": "w:1", "restart_policy": "OnFailure"}, nnodes="1:2"),
}


def policy_of(resource: dict[str, Any]) -> dict[str, Any]:
    """
    What is done with a run.
    """
    return dict(resource["spec"]["runPolicy"])


def wanted_policy(job: Job) -> dict[str, Any]:
    """
    That of our manifest. Flyte hands the backoff limit on as it is, and the operator then fails with the last restart, not after it.
    """
    policy = policy_of(job.backend.manifest(job))
    return policy if job.run_policy.backoff_limit is None else {**policy, "backoffLimit": job.run_policy.backoff_limit}


def check(judge: Judge, job: Job) -> dict[str, Any]:
    """
    Fail unless Flyte makes of the job what our manifest says.
    """
    made, manifest = judge.resource(serialized(job)), job.backend.manifest(job)
    assert (made["apiVersion"], made["kind"]) == (manifest["apiVersion"], manifest["kind"])
    assert found(made) == expected(job)
    assert policy_of(made) == wanted_policy(job)
    assert elasticity(made) == elasticity(manifest)
    return made


@pytest.mark.parametrize("which", JOBS)
def test_flyte_makes_what_the_manifest_says(judge: Judge, which: str) -> None:
    """
    The same resource with the same groups: replicas, images, variables, resources and policies, and the same elasticity.
    """
    check(judge, JOBS[which])


@pytest.mark.parametrize("framework", ["tensorflow", "pytorch"])
def test_any_job_that_flyte_can_be_told_of(judge: Judge, framework: str) -> None:
    """
    The same of every job within the bounds; what Flyte could not make of one is refused before.
    """

    @settings(max_examples=60)
    @given(told(framework))
    def holds(job: Job) -> None:
        try:
            job.backend.manifest(job)
        except UnsupportedError:
            return
        if job.backend.flyte_task(job).type == framework:
            check(judge, job)

    holds()


def test_one_elastic_node_is_a_plain_pod(judge: Judge) -> None:
    """
    Flyte starts it itself, without an operator.
    """
    job = Job("pytorch", elastic={"max_nodes": 1, "nproc_per_node": 2}, image="torch:1", requests={"cpu": 2})
    made = judge.resource(serialized(job))
    (container,) = made["spec"]["containers"]
    assert (made["kind"].title(), container["image"], container["resources"]["requests"]["cpu"]) == ("Pod", "torch:1", "2")


def test_the_task_s_own_resources_are_in_every_group(judge: Judge) -> None:
    """
    Those of flytekit's own keywords fill what a group leaves open. With Flyte's plug-in, the platform's do.
    """
    from flytekit import Resources as Amounts
    from flytekitplugins import kftensorflow as theirs

    from distrib.compat import kftensorflow as ours

    memory = {}
    for plugin in (theirs, ours):
        config = plugin.TfJob(
            worker=plugin.Worker(replicas=1, requests=Amounts(cpu="8")), ps=plugin.PS(replicas=0), chief=plugin.Chief(replicas=0)
        )
        made = judge.resource(serialized(config, requests=Amounts(mem="64Gi")))
        memory[plugin] = made["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"]
    assert memory == {theirs: PLATFORM["memory"], ours: "64Gi"}


@pytest.mark.parametrize("policy", [None, {"clean_pod_policy": "ALL", "backoff_limit": 3, "active_deadline_seconds": 60}])
def test_tensorflow_s_plug_in_and_its_replacement_come_to_the_same(judge: Judge, policy: dict[str, Any] | None) -> None:
    """
    The TFJob is the same, but that ours says what becomes of the pods where nobody has.
    """
    from flytekit import Resources as Amounts
    from flytekitplugins import kftensorflow as theirs

    from distrib.compat import kftensorflow as ours

    def made(plugin: Any) -> dict[str, Any]:
        words = {} if policy is None else {**policy, "clean_pod_policy": plugin.CleanPodPolicy[policy["clean_pod_policy"]]}
        config = plugin.TfJob(
            chief=plugin.Chief(replicas=1, requests=Amounts(cpu="1", mem="1Gi")),
            worker=plugin.Worker(replicas=2, image="w:1", restart_policy=plugin.RestartPolicy.FAILURE),
            ps=plugin.PS(replicas=1, limits=Amounts(cpu="2", mem="2Gi"), restart_policy=plugin.RestartPolicy.ALWAYS),
            evaluator=plugin.Evaluator(replicas=1, requests=Amounts(cpu="1", mem="3Gi", gpu="1")),
            run_policy=None if policy is None else plugin.RunPolicy(**words),
        )
        return judge.resource(serialized(config))["spec"]  # type: ignore[no-any-return]

    expected_ = made(theirs)
    assert expected_["runPolicy"] == ({} if policy is None else {**policy_words(policy), "cleanPodPolicy": "All"})
    if policy is None:
        expected_["runPolicy"] = {"cleanPodPolicy": "Running"}
    assert made(ours) == expected_


def policy_words(policy: dict[str, Any]) -> dict[str, Any]:
    """
    The numbers of a run policy, as Kubernetes calls them.
    """
    return {"backoffLimit": policy["backoff_limit"], "activeDeadlineSeconds": policy["active_deadline_seconds"]}


def test_pytorch_s_plug_in_and_its_replacement_come_to_the_same(judge: Judge) -> None:
    """
    The PyTorchJob is the same, but for how ``/dev/shm`` is enlarged: theirs adds a volume to the pod template, ours asks Flyte for it.
    """
    from flytekit import Resources as Amounts
    from flytekitplugins import kfpytorch as theirs

    from distrib.compat import kfpytorch as ours

    def made(plugin: Any) -> dict[str, Any]:
        config = plugin.PyTorch(
            master=plugin.Master(requests=Amounts(cpu="1", mem="1Gi")),
            worker=plugin.Worker(replicas=2, image="w:1", requests=Amounts(cpu="2", mem="2Gi")),
            run_policy=plugin.RunPolicy(clean_pod_policy=plugin.CleanPodPolicy.RUNNING),
            increase_shared_mem=False,
        )
        return judge.resource(serialized(config, shared_memory="1Gi"))["spec"]  # type: ignore[no-any-return]

    assert made(ours) == made(theirs)


def test_more_shared_memory_is_the_same_volume_for_all(judge: Judge) -> None:
    """
    ``increase_shared_mem``, on by itself, enlarges ``/dev/shm`` of every replica, without a limit; the user's pod template stays as it is.
    """
    from distrib.compat.kfpytorch import PyTorch, Worker

    template = pod_template()
    made = judge.resource(serialized(PyTorch(worker=Worker(replicas=1)), pod_template=template))
    for spec in made["spec"]["pytorchReplicaSpecs"].values():
        pod = spec["template"]["spec"]
        container = next(each for each in pod["containers"] if each["name"] == "pytorch")
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == "/dev/shm"  # the device
        assert [each["emptyDir"] for each in pod["volumes"] if each["name"] == mount["name"]] == [{"medium": "Memory", "sizeLimit": "0"}]
    assert template == pod_template()


def pod_template() -> Any:
    """
    Pods with a container beside that of the task.
    """
    from flytekit import PodTemplate
    from kubernetes.client import V1Container, V1PodSpec

    containers = [V1Container(name="side", image="side:1"), V1Container(name="train")]
    return PodTemplate(primary_container_name="train", labels={"of": "pods"}, pod_spec=V1PodSpec(containers=containers))


def test_a_pod_template_is_that_of_all_groups(judge: Judge) -> None:
    """
    The primary container is the operator's, with the image and the resources of its group; others stay; labels are the pods'.
    """
    job = Job("tensorflow", worker={"replicas": 2, "requests": {"cpu": 2}}, ps={"replicas": 1, "image": "ps:1"}, image="tf:1")
    made = judge.resource(serialized(job, pod_template=pod_template(), labels={"of": "the-job"}))
    assert made["metadata"]["labels"]["of"] == "the-job"
    images = {}
    for kind, spec in made["spec"]["tfReplicaSpecs"].items():
        assert spec["template"]["metadata"]["labels"]["of"] == "pods"
        images[kind] = {each["name"]: each["image"] for each in spec["template"]["spec"]["containers"]}
    assert images == {"Worker": {"side": "side:1", "tensorflow": "tf:1"}, "PS": {"side": "side:1", "tensorflow": "ps:1"}}
    assert found(made)["Worker"].requests == expected(job)["Worker"].requests


def test_what_flyte_refuses_is_refused_before(judge: Judge) -> None:
    """
    A job without workers: Flyte's plug-in for Python takes it, and the task fails on the cluster.
    """
    from flytekitplugins.kftensorflow import PS, Chief, TfJob, Worker

    config = TfJob(chief=Chief(replicas=1), ps=PS(replicas=1), worker=Worker(replicas=0))
    assert "number of workers must be greater than 0" in judge.refusal(serialized(config))
    with pytest.raises(UnsupportedError, match="worker: Flyte's TensorFlow plug-in needs at least one"):
        serialized(Job("tensorflow", chief=1, ps=1))
