"""
What is said beside the job, and twice: overrides of a node, the two forms of a group, and the configurations of Flyte's plug-ins.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from flytekit import Resources as Amounts
from judging import Judge, as_told_to, found, overrides, serialized
from test_judge import JOBS

from distrib import Job
from distrib._quantity import nano
from distrib.compat import kfpytorch, kftensorflow


@pytest.mark.parametrize("new", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("which", ["everything", "workers of PyTorch", "elastic, more"])
def test_either_form_of_a_group_says_all(judge: Judge, which: str, *, new: bool) -> None:
    """
    A Flyte that knows ``common`` and one that does not make the same of the task.
    """
    told = serialized(JOBS[which])
    assert judge.resource(as_told_to(told, new=new)) == judge.resource(told)


@pytest.fixture(name="judged")
def _judged(judge: Judge, tmp_path: Path) -> Any:
    """
    What Flyte makes of a job whose node has those overrides.
    """

    def ask(job: Job, **words: Any) -> dict[str, Any]:
        file = tmp_path / "overrides.json"
        file.write_text(overrides(job, **words))
        return judge.resource(serialized(job), f"-overrides={file}")

    return ask


JOB = Job("tensorflow", worker={"replicas": 2, "requests": {"cpu": 2}, "image": "w:1"}, ps=1, image="tf:1")


def test_overrides_of_a_node_reach_groups_that_say_nothing(judged: Any) -> None:
    """
    Image and resources of a node are those of groups without any of their own; shared memory is everybody's.
    """
    amounts = Amounts(cpu="3", mem="1Gi")
    before = found(judged(JOB))
    after = found(judged(JOB, requests=amounts, limits=amounts, container_image="o:1", shared_memory="2Gi"))
    assert (after["PS"].image, after["PS"].requests) == ("o:1", {"cpu": nano("3"), "memory": nano("1Gi")})
    assert (after["Worker"].image, after["Worker"].requests["cpu"]) == ("w:1", nano("2"))
    assert [each.shared_memory for each in after.values()] == [nano("2Gi")] * 2
    assert {kind: each.replicas for kind, each in after.items()} == {kind: each.replicas for kind, each in before.items()}


CONFIGS = {
    "TfJob": lambda: kftensorflow.TfJob(
        chief=kftensorflow.Chief(replicas=1),
        worker=kftensorflow.Worker(replicas=2, requests=Amounts(cpu="2", gpu="1"), restart_policy=kftensorflow.RestartPolicy.FAILURE),
        evaluator=kftensorflow.Evaluator(replicas=1, image="e:1"),
        run_policy=kftensorflow.RunPolicy(backoff_limit=3),
    ),
    "deprecated": lambda: kftensorflow.TfJob(num_workers=2, num_ps_replicas=1, per_replica_requests=Amounts(cpu="1")),
    "PyTorch": lambda: kfpytorch.PyTorch(kfpytorch.Master(limits=Amounts(mem="4Gi")), kfpytorch.Worker(replicas=3)),
    "Elastic": lambda: kfpytorch.Elastic(nnodes="1:3", nproc_per_node=2),
}


@pytest.mark.parametrize("which", CONFIGS)
def test_a_config_is_the_task_of_its_job(judge: Judge, which: str) -> None:
    """
    What is made of a configuration is what is made of the job that it describes; ``/dev/shm`` apart, which those of PyTorch enlarge.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config = CONFIGS[which]()
    shared = {} if isinstance(config, kftensorflow.TfJob) else {"shared_memory": True}
    assert judge.resource(serialized(config)) == judge.resource(serialized(config.to_job(), **shared))
