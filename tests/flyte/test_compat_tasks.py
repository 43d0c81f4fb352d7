"""
Tasks of the plug-ins' configurations: what was broken with the plug-ins works with ours.
"""

import base64
import copy
import dataclasses
import json
import os
import signal
import time
import warnings
from collections import OrderedDict
from pathlib import Path

import compat_flows
import flytekitplugins.kfpytorch as their_pytorch
import flytekitplugins.kftensorflow as their_tensorflow
import pytest
from flyteidl.core import artifact_id_pb2, errors_pb2
from flytekit import PodTemplate, PythonFunctionTask, task, workflow
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.constants import CopyFileDetection
from flytekit.core.base_task import DYNAMIC_PARTITIONS
from flytekit.exceptions.user import FlyteRecoverableException, FlyteUserRuntimeException
from flytekit.image_spec import ImageSpec
from flytekit.image_spec.image_spec import ImageBuildEngine, ImageSpecBuilder
from flytekit.tools.translator import get_serializable
from google.protobuf.json_format import MessageToDict
from kubernetes.client import V1Container, V1PodSpec
from pods import Attempt

import distrib
import distrib.compat.kfpytorch as our_pytorch
import distrib.compat.kftensorflow as our_tensorflow

SETTINGS = SerializationSettings(
    project="p", domain="d", version="v", env={}, image_config=ImageConfig(default_image=Image("default", "repo/img", "7"))
)


def template(made):
    """
    What Flyte is told of a task.
    """
    return MessageToDict(get_serializable(OrderedDict(), SETTINGS, made).to_flyte_idl())["template"]


def train(x: int) -> int:
    """
    Any function.
    """
    return x


def made_of(config, **keywords):
    """
    A task of a configuration. The plug-in warns of its own default.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return task(task_config=config, **keywords)(train)


# On this machine


@pytest.mark.parametrize(("plugin", "cluster"), [(their_tensorflow, None), (our_tensorflow, {"chief": 1, "worker": 2})])
def test_a_local_workflow_runs_the_replicas(plugin, cluster):
    """
    Also of a function within a function. The plug-in calls it once, without a cluster.
    """

    @task(task_config=plugin.TfJob(chief=plugin.Chief(replicas=1), worker=plugin.Worker(replicas=2), ps=plugin.PS(replicas=0)))
    def look(x: int) -> str:
        seen = json.loads(os.environ.get("TF_CONFIG", "null"))
        return json.dumps({"x": x, "cluster": seen and {role: len(hosts) for role, hosts in seen["cluster"].items()}})

    @workflow
    def flow(x: int) -> str:
        return look(x=x)

    assert json.loads(flow(x=3)) == {"x": 3, "cluster": cluster}
    assert json.loads(look(x=4)) == {"x": 4, "cluster": cluster}


def test_the_class_of_tasks_is_a_decorator():
    """
    With ``task_config=`` and flytekit's own keywords; the task is flytekit's, of the plug-in's type.
    """
    made = compat_flows.direct
    assert isinstance(made, our_tensorflow.TensorflowFunctionTask)
    assert isinstance(made, PythonFunctionTask)
    assert (made.task_type, made.metadata.retries) == ("tensorflow", 2)
    expected = {"name": "chief-0", "cluster": {"chief": 1, "worker": 1, "ps": 1}}
    assert json.loads(made(x=1)) == {"x": 1, **expected}
    assert json.loads(compat_flows.directly(x=2)) == {"x": 2, **expected}


@pytest.mark.slow
def test_one_elastic_node_trains_here(monkeypatch):
    """
    PyTorch's launcher starts the processes, with one thread each; the value is that of rank 0; nothing of it stays behind.
    """
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = json.loads(compat_flows.forking(way=""))
    assert (seen["RANK"], seen["WORLD_SIZE"], seen["LOCAL_WORLD_SIZE"], seen["OMP_NUM_THREADS"]) == ("0", "2", "2", "1")
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert json.loads(compat_flows.forking(way=""))["OMP_NUM_THREADS"] == "3"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "world", "processes"), [("noded", "4", "2"), ("paired", "3", "1")])
def test_every_node_trains_here(name, world, processes):
    """
    Several elastic nodes, and a master with workers, whose ranks the value of rank 0 knows of. The plug-in runs one of them.
    """
    seen = json.loads(getattr(compat_flows, name)(way=""))
    assert (seen["RANK"], seen["WORLD_SIZE"], seen["LOCAL_WORLD_SIZE"]) == ("0", world, processes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "error", "message"),
    [
        ("1 recover", FlyteRecoverableException, "rank 1 may try again"),
        ("0 raise", FlyteUserRuntimeException, "rank 0 is out of luck"),
    ],
)
def test_a_failure_here_is_flytekit_s(way, error, message):
    """
    What may be tried again says so, whichever process has raised it; anything else is the user's error.
    """
    with pytest.raises(error, match=message):
        compat_flows.forked(way=way)


# In a pod


@pytest.fixture(name="pod")
def _pod(tmp_path):
    """
    Start the only pod of a task.
    """
    attempts = []

    def start(made, way, **environment):
        attempt = Attempt(tmp_path, made, way=way)
        attempts.append(attempt)
        attempt.start("pod", **environment)
        return attempt

    yield start
    for attempt in attempts:
        attempt.__exit__()


@pytest.mark.slow
def test_fresh_interpreters_know_the_task(pod):
    """
    In a pod the processes of the default start method have the checkpoint, the place for data, decks, and what is noted of the
    value; those of rank 0 count.
    """
    attempt = pod(compat_flows.spawned, "")
    assert attempt.wait("pod") == 0, attempt.log()
    assert attempt.left() == ["deck.html", "outputs.pb"]
    file = attempt.value()
    assert str(file).startswith(str(attempt.folder / "raw"))
    seen = json.loads(Path(file).read_text())
    assert (seen["RANK"], seen["OMP_NUM_THREADS"]) == ("0", "1")
    assert (attempt.folder / "checkpoint").exists()
    deck = (attempt.outputs / "deck.html").read_text()
    assert "rank 0" in deck
    assert "rank 1" not in deck
    partitions = artifact_id_pb2.ArtifactID.FromString(base64.b64decode(attempt.metadata()[DYNAMIC_PARTITIONS])).partitions
    assert partitions.value["rank"].static_value == "0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind", "message"),
    [
        ("1 recover", errors_pb2.ContainerError.RECOVERABLE, "rank 1 may try again"),
        ("1 raise", errors_pb2.ContainerError.NON_RECOVERABLE, "ValueError: rank 1 is out of luck"),
    ],
)
def test_a_failure_in_a_pod_reaches_flyte(pod, way, kind, message):
    """
    Flyte reads whether to try again, and the traceback of the process.
    """
    attempt = pod(compat_flows.forked, way)
    assert attempt.wait("pod") == 0, attempt.log()
    assert attempt.left() == ["error.pb"]
    assert attempt.error().kind == kind
    assert message in attempt.error().message


@pytest.mark.slow
def test_a_pod_that_is_told_to_stop_leaves_nothing(pod):
    """
    Neither outputs nor an error: Flyte starts the task again, and other nodes go on.
    """
    attempt = pod(compat_flows.forked, "0 wait,1 wait")
    limit = time.monotonic() + 240
    while attempt.log().count("waiting") < 2 and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(attempt.pods["pod"].pid, signal.SIGTERM)
    assert attempt.wait("pod") == 0, attempt.log()
    assert attempt.left() == []


# What Flyte is told


def pod_template():
    """
    Pods with a container beside that of the task.
    """
    containers = [V1Container(name="train"), V1Container(name="side", image="side:1")]
    return PodTemplate(primary_container_name="train", pod_spec=V1PodSpec(containers=containers))


@pytest.mark.parametrize("config", ["PyTorch", "Elastic"])
def test_the_user_s_pod_template_stays_as_it_is(config):
    """
    Two tasks may share it, and it may have several containers. The plug-in writes a volume into it, and refuses a second container.
    """

    def made_by(plugin):
        fields = {"worker": plugin.Worker(replicas=1)} if config == "PyTorch" else {"nnodes": 2}
        return getattr(plugin, config)(**fields)

    with pytest.raises(ValueError, match="pod template with multiple containers"):
        made_of(made_by(their_pytorch), pod_template=pod_template())
    shared = pod_template()
    before = copy.deepcopy(shared)
    first, second = (task(task_config=made_by(our_pytorch), pod_template=shared)(train) for _ in range(2))
    assert shared == before
    for made in (first, second):
        assert template(made)["extendedResources"]["sharedMemory"]["mountPath"] == "/dev/shm"


@pytest.mark.parametrize(
    ("fields", "keywords", "size"),
    [
        ({}, {}, {}),
        ({}, {"shared_memory": True}, {}),
        ({}, {"shared_memory": "2Gi"}, {"sizeLimit": "2Gi"}),
        ({"increase_shared_mem": False}, {"shared_memory": "2Gi"}, {"sizeLimit": "2Gi"}),
        ({"increase_shared_mem": False}, {}, None),
    ],
)
def test_shared_memory(fields, keywords, size):
    """
    It is enlarged without a limit unless the task says otherwise, by Flyte's own means.
    """
    made = task(task_config=our_pytorch.Elastic(nnodes=1, nproc_per_node=2, **fields), **keywords)(train)
    told = template(made)
    expected = {} if size is None else {"sharedMemory": {"mountPath": "/dev/shm", "mountName": "flyte-shared-memory", **size}}
    assert told.get("extendedResources", {}) == expected
    assert "k8sPod" not in told


def test_one_elastic_node_is_a_plain_task():
    """
    It needs no operator, however one node is written.
    """
    for nodes in (1, "1", "1:1"):
        told = template(task(task_config=our_pytorch.Elastic(nnodes=nodes, nproc_per_node=2))(train))
        assert (told["type"], told.get("custom", {})) == ("python-task", {})


class Recorder(ImageSpecBuilder):
    """
    Builds nothing, and knows what it was to build.
    """

    asked: list[str] = []

    def build_image(self, image_spec):
        self.asked.append(image_spec.name)

    def should_build(self, image_spec):
        return True


def test_images_of_groups_are_built_and_filled_in():
    """
    As those of tasks are: an ``ImageSpec`` when the task is registered, and a placeholder. The plug-in fails over the first.
    """
    ImageBuildEngine.register("recorder", Recorder())
    spec = ImageSpec(name="workers", registry="repo", builder="recorder", tag_format="{spec_hash}-x")
    theirs = their_tensorflow.TfJob(
        worker=their_tensorflow.Worker(replicas=1, image=spec), ps=their_tensorflow.PS(replicas=0), chief=their_tensorflow.Chief(replicas=0)
    )
    with pytest.raises(TypeError):
        task(task_config=theirs)(train).get_custom(SETTINGS)
    ours = our_tensorflow.TfJob(
        worker=our_tensorflow.Worker(replicas=1, image=spec),
        ps=our_tensorflow.PS(replicas=1, image="{{.image.default.fqn}}:{{.image.default.version}}"),
    )
    made = task(task_config=ours)(train)
    assert Recorder.asked == []
    custom = made.get_custom(SETTINGS)
    assert Recorder.asked == ["workers"]
    assert custom["workerReplicas"]["image"] == custom["workerReplicas"]["common"]["image"] == spec.image_name()
    assert custom["psReplicas"]["image"] == "repo/img:7"


@pytest.mark.parametrize("mode", [None, CopyFileDetection.ALL])
def test_an_image_of_a_group_holds_what_one_of_a_task_does(tmp_path, mode):
    """
    The sources too, where code is not sent by itself: a change of them is another image.
    """
    ImageBuildEngine.register("recorder", Recorder())
    settings = dataclasses.replace(SETTINGS, source_root=str(tmp_path))
    tags = []
    for source in ("x = 1", "x = 2"):
        (tmp_path / "code.py").write_text(source)
        plain, ours = (ImageSpec(name="workers", registry="repo", builder="recorder", source_copy_mode=mode) for _ in range(2))
        made = task(task_config=our_tensorflow.TfJob(worker=our_tensorflow.Worker(replicas=1, image=ours)))(train)
        tags.append(made.get_custom(settings)["workerReplicas"]["image"])
        assert tags[-1] == task(container_image=plain)(train).get_container(settings).image
    # Only what is loaded is in it unless it is told otherwise, and this is not.
    assert (tags[0] != tags[1]) == (mode is CopyFileDetection.ALL)


def test_an_image_of_a_plug_in_s_config_is_built_too():
    """
    A task made by ``distributed.from_flyte``, which knows images by their names, has it built when it is registered.
    """
    ImageBuildEngine.register("recorder", Recorder())
    spec = ImageSpec(name="workers-of-theirs", registry="repo", builder="recorder")
    config = their_tensorflow.TfJob(
        worker=their_tensorflow.Worker(replicas=1, image=spec), ps=their_tensorflow.PS(replicas=0), chief=their_tensorflow.Chief(replicas=0)
    )
    custom = distrib.distributed.from_flyte(config)(train).get_custom(SETTINGS)
    assert Recorder.asked.count("workers-of-theirs") == 1
    assert custom["workerReplicas"]["image"] == spec.image_name()


def test_a_pod_does_not_need_what_its_image_was_made_of():
    """
    There a task is made again, where the file of the image's requirements need not be.
    """
    spec = ImageSpec(name="workers", registry="repo", requirements="/nowhere/requirements.txt")
    config = our_tensorflow.TfJob(worker=our_tensorflow.Worker(replicas=2, image=spec))
    assert task(task_config=config)(train).job.world_size == 2


# The surface


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (their_tensorflow.task.TensorflowFunctionTask, our_tensorflow.TensorflowFunctionTask),
        (their_pytorch.task.PyTorchFunctionTask, our_pytorch.PyTorchFunctionTask),
        (their_pytorch.task.PytorchElasticFunctionTask, our_pytorch.PytorchElasticFunctionTask),
    ],
)
def test_the_classes_of_tasks_have_the_plug_in_s_names(theirs, ours):
    """
    Every public name of the plug-in's class, and what its elastic tasks know of their nodes.
    """
    assert {name for name in dir(theirs) if not name.startswith("_")} <= set(dir(ours))
    assert ours.__name__ == theirs.__name__
    if "Elastic" in theirs.__name__:
        made = task(task_config=our_pytorch.Elastic(nnodes="1:3"))(train)
        assert (made.min_nodes, made.max_nodes, made.rdzv_backend) == (1, 3, "c10d")


@pytest.mark.parametrize("name", ["kftensorflow", "kfpytorch"])
def test_every_name_that_the_plug_in_exports_can_be_imported(name):
    """
    Changing the import is all.
    """
    theirs, ours = {"kftensorflow": (their_tensorflow, our_tensorflow), "kfpytorch": (their_pytorch, our_pytorch)}[name]
    exported = {key for key, value in vars(theirs).items() if isinstance(value, type)}
    assert exported
    assert all(hasattr(ours, each) for each in exported)


# Both in one code base


def their_configs():
    """
    One of each class of the plug-ins' own.
    """
    return [
        their_tensorflow.TfJob(
            worker=their_tensorflow.Worker(replicas=2), chief=their_tensorflow.Chief(replicas=1), ps=their_tensorflow.PS(replicas=0)
        ),
        their_pytorch.PyTorch(worker=their_pytorch.Worker(replicas=1)),
        their_pytorch.Elastic(nnodes=1, nproc_per_node=2, start_method="fork", monitor_interval=1),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("config", their_configs(), ids=lambda config: type(config).__name__)
def test_the_plug_in_s_own_config_makes_a_distributed_function(config):
    """
    ``distributed.from_flyte`` runs the replicas here, and is the same task of Flyte's as one of our own names.
    """

    @distrib.distributed.from_flyte(config, local={"preload": False, "echo": False})
    def count() -> int:
        return distrib.replica().world_size

    assert count() == count.job.world_size
    ours = getattr(our_tensorflow if count.job.framework == "tensorflow" else our_pytorch, type(config).__name__)
    assert vars(ours()).keys() >= vars(config).keys()
    assert template(count)["type"] == ("python-task" if isinstance(config, their_pytorch.Elastic) else count.job.framework)
