"""
Tasks written with the names of Flyte's plug-ins.
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import flytekit
from flytekit import Artifact, task, workflow
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.file import FlyteFile

from distrib import replica
from distrib.compat.kfpytorch import Elastic, PyTorch, Worker
from distrib.compat.kftensorflow import PS, Chief, TensorflowFunctionTask, TfJob


@TensorflowFunctionTask(task_config=TfJob(chief=Chief(replicas=1), worker=Worker(replicas=1), ps=PS(replicas=1)), retries=2)
def direct(x: int) -> str:
    """
    The plug-in's class itself is the decorator.
    """
    if replica().role == "ps":
        time.sleep(3600)
    cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
    return json.dumps({"x": x, "name": replica().name, "cluster": {role: len(hosts) for role, hosts in cluster.items()}})


@workflow
def directly(x: int) -> str:
    """
    The same in a workflow.
    """
    return direct(x=x)


def ranked(way: str) -> str:
    """
    Do what *way* says for a rank, as in ``"1 raise"``; else tell what the process sees.
    """
    rank = os.environ["RANK"]
    what = dict(order.split() for order in way.split(",")).get(rank) if way else None
    if what == "recover":
        raise FlyteRecoverableException(f"rank {rank} may try again")
    if what == "raise":
        raise ValueError(f"rank {rank} is out of luck")
    if what == "wait":
        print("waiting", flush=True)
        time.sleep(3600)
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID")
    return json.dumps({name: os.environ.get(name) for name in names})


@task(task_config=Elastic(nnodes=1, nproc_per_node=2, start_method="fork", monitor_interval=1))
def forked(way: str) -> str:
    """
    One node, whose processes are copies of its own.
    """
    return ranked(way)


@task(task_config=Elastic(nnodes=2, nproc_per_node=2, start_method="fork", monitor_interval=1))
def noded(way: str) -> str:
    """
    Two nodes.
    """
    return ranked(way)


@task(task_config=PyTorch(worker=Worker(replicas=2)))
def paired(way: str) -> str:
    """
    A master and two workers.
    """
    return ranked(way)


@workflow
def forking(way: str) -> str:
    """
    The same in a workflow.
    """
    return forked(way=way)


#: What is noted of a file: the rank that has made it.
TOLD = Artifact(name="told", partition_keys=["rank"])


@task(task_config=Elastic(nnodes=1, nproc_per_node=2, monitor_interval=1), enable_deck=True)
def spawned(way: str) -> Annotated[FlyteFile, TOLD]:
    """
    One node, whose processes are fresh interpreters, each of which knows what flytekit keeps for the task.
    """
    context = flytekit.current_context()
    flytekit.Deck("ranks", f"rank {os.environ['RANK']}")
    before = context.checkpoint.read() if way == "again" else None
    context.checkpoint.write(b"%d" % (int(before or 0) + 1))
    path = Path(context.working_directory, "told.json")
    path.write_text(ranked(""))
    return TOLD.create_from(FlyteFile(str(path)), rank=os.environ["RANK"])
