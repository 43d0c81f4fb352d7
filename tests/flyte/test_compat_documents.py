"""
What the plug-ins' documentation shows: with the import changed, and nothing else, it works.
"""

import importlib
import inspect
from collections import OrderedDict

import flytekitplugins.kfpytorch.task as their_pytorch
import flytekitplugins.kftensorflow.task as their_tensorflow
import pytest
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.context_manager import FlyteEntities
from flytekit.tools.translator import get_serializable
from google.protobuf.json_format import MessageToDict

import distrib.compat.kfpytorch.task as our_pytorch
import distrib.compat.kftensorflow.task as our_tensorflow

SETTINGS = SerializationSettings(
    project="p", domain="d", version="v", env={}, image_config=ImageConfig(default_image=Image("default", "img", "tag"))
)

TENSORFLOW = '''
from flytekitplugins.kftensorflow.task import (
    Chief,
    Evaluator,
    PS,
    RunPolicy,
    TensorflowFunctionTask,
    TfJob,
    Worker,
    RestartPolicy,
    CleanPodPolicy,
)
from flytekit import Resources
from typing import Tuple

tensorflow_job_config = TfJob(
    chief=Chief(
        replicas=1,
        image="your-custom-tensorflow-image:latest",
        requests=Resources(cpu="1", mem="2Gi"),
        restart_policy=RestartPolicy.ON_FAILURE,
    ),
    worker=Worker(
        replicas=2,
        image="your-custom-tensorflow-image:latest",
        requests=Resources(cpu="2", mem="4Gi"),
        restart_policy=RestartPolicy.ALWAYS,
    ),
    ps=PS(
        replicas=1,
        image="your-custom-tensorflow-image:latest",
        requests=Resources(cpu="0.5", mem="1Gi"),
        restart_policy=RestartPolicy.ALWAYS,
    ),
    evaluator=Evaluator(
        replicas=0, # No evaluators for this example
    ),
    run_policy=RunPolicy(
        clean_pod_policy=CleanPodPolicy.ALL,
        ttl_seconds_after_finished=300,
        backoff_limit=3,
    ),
)

@TensorflowFunctionTask(task_config=tensorflow_job_config)
def documented(epochs: int, learning_rate: float) -> Tuple[float, float]:
    """
    This function represents your distributed TensorFlow training logic.
    The actual training code would run within the Kubeflow TFJob pods.
    """
    import os
    import tensorflow as tf

    # Example: Accessing TF_CONFIG for distributed setup
    tf_config = os.environ.get("TF_CONFIG")
    if tf_config:
        print(f"TF_CONFIG: {tf_config}")
    else:
        print("TF_CONFIG not found, running in non-distributed mode or misconfigured.")

    # Your TensorFlow model definition and training loop here
    # This is a placeholder for actual TensorFlow code
    print(f"Running TensorFlow training for {epochs} epochs with learning rate {learning_rate}")

    # Simulate training results
    final_loss = 0.123
    accuracy = 0.987
    return final_loss, accuracy
'''

PYTORCH = """
from flytekit import task
from flytekitplugins.kfpytorch.task import PyTorch, Worker, Master, RestartPolicy, CleanPodPolicy, RunPolicy

@task(
    task_config=PyTorch(
        worker=Worker(replicas=2, restart_policy=RestartPolicy.ON_FAILURE),
        master=Master(restart_policy=RestartPolicy.ON_FAILURE),
        run_policy=RunPolicy(clean_pod_policy=CleanPodPolicy.ALL, ttl_seconds_after_finished=300)
    ),
    container_image="your_pytorch_image:latest",
    requests="cpu=2,mem=4Gi",
    limits="cpu=4,mem=8Gi",
    shared_memory="2Gi" # Preferred way to increase shared memory
)
def documented(epochs: int) -> float:
    # Your distributed PyTorch training code here
    # This function will be executed by each replica (master and workers)
    # Use torch.distributed for communication
    import torch.distributed as dist
    if dist.is_initialized():
        print(f"Rank {dist.get_rank()} / {dist.get_world_size()} running...")
    else:
        print("Distributed not initialized, running in single process mode.")
    return 0.95 # Example accuracy
"""

ELASTIC = """
from flytekit import task
from flytekitplugins.kfpytorch.task import Elastic, RunPolicy, CleanPodPolicy

@task(
    task_config=Elastic(
        nnodes="1:2", # Elastic training across 1 to 2 nodes
        nproc_per_node=4, # 4 processes per node
        start_method="spawn",
        rdzv_configs={"timeout": 1800, "join_timeout": 1200},
        run_policy=RunPolicy(clean_pod_policy=CleanPodPolicy.ALL)
    ),
    container_image="your_pytorch_elastic_image:latest",
    requests="cpu=2,mem=4Gi",
    limits="cpu=4,mem=8Gi",
    shared_memory="2Gi"
)
def documented(data_path: str) -> float:
    # Your elastic PyTorch training code here
    # This function will be executed by each worker process
    import os
    import torch.distributed as dist
    if not dist.is_initialized():
        # Initialize distributed process group
        rank = int(os.environ["RANK"])
        world_size = int(os.environ["WORLD_SIZE"])
        master_addr = os.environ["MASTER_ADDR"]
        master_port = os.environ["MASTER_PORT"]
        dist.init_process_group(backend="nccl", rank=rank, world_size=world_size,
                                init_method=f"tcp://{master_addr}:{master_port}")

    print(f"Elastic worker: Rank {dist.get_rank()} / {dist.get_world_size()} on node {os.environ.get('GROUP_RANK')}")
    # Perform training...
    return 0.98 # Example accuracy
"""

#: For one small machine without GPUs.
SMALLER = {"nccl": "gloo", 'nnodes="1:2"': "nnodes=1", "nproc_per_node=4": "nproc_per_node=2", '"spawn"': '"fork"'}


@pytest.fixture(name="load")
def _load(tmp_path, monkeypatch):
    """
    The documented task, from a module of that text, some of it replaced.
    """
    monkeypatch.syspath_prepend(tmp_path)
    before = list(FlyteEntities.entities)

    def load(text, replaced=()):
        for old, new in dict(replaced).items():
            assert old in text
            text = text.replace(old, new)
        name = f"documented_{len(list(tmp_path.iterdir()))}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(text)
        return importlib.import_module(name).documented

    yield load
    FlyteEntities.entities[:] = before


def moved(text):
    """
    The same with the import changed.
    """
    return text.replace("flytekitplugins.", "distrib.compat.")


def template(made):
    """
    What Flyte is told of a task.
    """
    return MessageToDict(get_serializable(OrderedDict(), SETTINGS, made).to_flyte_idl())["template"]


def amounts(entries):
    """
    Resources on the wire, by their names.
    """
    return {each["name"]: each["value"] for each in entries}


@pytest.mark.parametrize("text", [TENSORFLOW, PYTORCH], ids=["TensorFlow", "PyTorch"])
def test_the_plug_in_fails_over_its_own_documentation(load, text):
    """
    It has no ``ON_FAILURE``; with ``FAILURE`` its class for TensorFlow is no decorator, and texts are no resources.
    """
    with pytest.raises(AttributeError, match="ON_FAILURE"):
        load(text)
    with pytest.raises((TypeError, AttributeError)):
        template(load(text, {"ON_FAILURE": "FAILURE"}))


def test_tensorflow_s_documented_task_is_registered(load):
    """
    Each group has its replicas, its image, its resources and its policy, and the run has all of its own.
    """
    told = template(load(moved(TENSORFLOW)))
    custom, image = told["custom"], "your-custom-tensorflow-image:latest"
    assert (told["type"], told["taskTypeVersion"]) == ("tensorflow", 1)
    found = {
        role: (custom[f"{role}Replicas"]["replicas"], custom[f"{role}Replicas"].get("restartPolicy")) for role in ("chief", "worker", "ps")
    }
    on_failure, always = "RESTART_POLICY_ON_FAILURE", "RESTART_POLICY_ALWAYS"
    assert found == {"chief": (1, on_failure), "worker": (2, always), "ps": (1, always)}
    assert {custom[f"{role}Replicas"]["image"] for role in found} == {image}
    assert amounts(custom["psReplicas"]["resources"]["requests"]) == {"CPU": "500m", "MEMORY": "1Gi"}
    assert custom["runPolicy"] == {"cleanPodPolicy": "CLEANPOD_POLICY_ALL", "ttlSecondsAfterFinished": 300, "backoffLimit": 3}
    assert "evaluatorReplicas" not in custom


@pytest.mark.parametrize("text", [PYTORCH, ELASTIC], ids=["PyTorch", "Elastic"])
def test_pytorch_s_documented_tasks_are_registered(load, text):
    """
    With resources that are texts, and shared memory by Flyte's own means.
    """
    told = template(load(moved(text)))
    resources = told["container"]["resources"]
    assert (amounts(resources["requests"]), amounts(resources["limits"])) == ({"CPU": "2", "MEMORY": "4Gi"}, {"CPU": "4", "MEMORY": "8Gi"})
    assert told["extendedResources"]["sharedMemory"]["sizeLimit"] == "2Gi"
    custom = told["custom"]
    assert custom["runPolicy"]["cleanPodPolicy"] == "CLEANPOD_POLICY_ALL"
    assert custom["workerReplicas"]["replicas"] == 2
    if text is ELASTIC:
        assert custom["elasticConfig"] == {"rdzvBackend": "c10d", "minReplicas": 1, "maxReplicas": 2, "nprocPerNode": 4}
    else:
        assert custom["masterReplicas"]["restartPolicy"] == "RESTART_POLICY_ON_FAILURE"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "replaced", "inputs", "value", "said"),
    [
        pytest.param(
            TENSORFLOW,
            {},
            {"epochs": 2, "learning_rate": 0.1},
            (0.123, 0.987),
            '"type":"chief"',
            marks=pytest.mark.tensorflow,
            id="TensorFlow",
        ),
        pytest.param(ELASTIC, SMALLER, {"data_path": "here"}, 0.98, "Elastic worker: Rank 1 / 2 on node 0", id="Elastic"),
    ],
)
def test_what_is_documented_runs_here(load, capfd, text, replaced, inputs, value, said):
    """
    A call runs all of the replicas, and gives what the coordinator has returned.
    """
    result = load(moved(text), replaced)(**inputs)
    assert (tuple(result) if isinstance(value, tuple) else result) == value
    assert said in capfd.readouterr().out


TASKS = [
    (their_tensorflow, our_tensorflow, "TensorflowFunctionTask"),
    (their_pytorch, our_pytorch, "PyTorchFunctionTask"),
    (their_pytorch, our_pytorch, "PytorchElasticFunctionTask"),
]


def parameters(function):
    """
    What it is called with; what takes all other keywords has a name of its own.
    """
    return [each.name if each.kind is not each.VAR_KEYWORD else "**" for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("theirs", "ours", "name"), TASKS)
def test_methods_of_tasks_take_what_the_plug_in_s_do(theirs, ours, name):
    """
    The constructor and every public method, in the same order.
    """
    left, right = getattr(theirs, name), getattr(ours, name)
    public = [each for each in dir(left) if not each.startswith("_") and inspect.isfunction(inspect.getattr_static(left, each))]
    assert len(public) > 20
    for each in ("__init__", *public):
        assert parameters(getattr(right, each)) == parameters(getattr(left, each)), each
