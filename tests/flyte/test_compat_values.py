"""
The plugins' own classes are the oracles: what is written with them is written with ours, and means the same.
"""

import copy
import dataclasses
import pickle
import warnings
from typing import Any

import flytekitplugins.kfpytorch.task as their_pytorch
import flytekitplugins.kftensorflow.task as their_tensorflow
import pytest
from flyteidl.plugins.kubeflow import pytorch_pb2, tensorflow_pb2
from flytekit import Resources, task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

import distrib
import distrib.compat.kfpytorch.task as our_pytorch
import distrib.compat.kftensorflow.task as our_tensorflow
from distrib.compat._convert import job_of
from distrib.errors import InvalidJobError

PLUGINS = {"tensorflow": (their_tensorflow, our_tensorflow), "pytorch": (their_pytorch, our_pytorch)}
VALUES = [
    *(("tensorflow", name) for name in ("TfJob", "Chief", "PS", "Worker", "Evaluator", "RunPolicy")),
    *(("pytorch", name) for name in ("PyTorch", "Elastic", "Master", "Worker", "RunPolicy")),
]
SETTINGS = SerializationSettings(
    project="p", domain="d", version="v", env={}, image_config=ImageConfig(default_image=Image("default", "img", "tag"))
)


def their_custom(config: Any) -> dict[str, Any]:
    """
    What the plugin makes of its own config for the wire.
    """
    with warnings.catch_warnings():
        # increase_shared_mem, which is on by itself.
        warnings.simplefilter("ignore", UserWarning)

        @task(task_config=config)
        def train(x: int) -> int:
            return x

    return train.get_custom(SETTINGS)


# Names, fields and defaults


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_public_class_of_the_plugin_is_there(plugin: str) -> None:
    """
    Every class that the plugin's package or its module ``task`` defines has its name in ours too, in the package and in ``task``.
    """
    theirs, ours = PLUGINS[plugin]
    names = {name for name, value in vars(theirs).items() if isinstance(value, type) and value.__module__ == theirs.__name__}
    names -= {"TensorflowFunctionTask", "PyTorchFunctionTask", "PytorchElasticFunctionTask"}
    package = __import__(ours.__package__, fromlist=["task"])
    assert names <= set(ours.__all__)
    assert set(ours.__all__) == set(package.__all__)
    assert all(getattr(package, name) is getattr(ours, name) for name in names)
    for name in names:
        assert getattr(getattr(ours, name), "_fields", None) == getattr(getattr(theirs, name), "_fields", None)  # of named tuples


@pytest.mark.parametrize(("plugin", "name"), VALUES)
def test_fields_come_in_the_plugin_s_order_with_its_defaults(plugin: str, name: str) -> None:
    """
    Positional arguments mean the same, and what is left out is the same; fields of our own come last.
    """
    theirs, ours = (getattr(module, name) for module in PLUGINS[plugin])
    their_fields = dataclasses.fields(theirs)
    our_fields = dataclasses.fields(ours)[: len(their_fields)]
    assert [each.name for each in our_fields] == [each.name for each in their_fields]
    left, right = theirs(), ours()
    for each in their_fields:
        expected, found = getattr(left, each.name), getattr(right, each.name)
        assert found == expected or type(found).__name__ == type(expected).__name__


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("name", ["RestartPolicy", "CleanPodPolicy"])
def test_words_have_the_plugin_s_values(plugin: str, name: str) -> None:
    """
    Each member is there, with the number that Flyte's protocol has for it.
    """
    theirs, ours = (getattr(module, name) for module in PLUGINS[plugin])
    assert {member.name: member.value for member in theirs} == {member.name: member.value for member in ours}


# replace() gives the new object every field of the old one.
@pytest.mark.filterwarnings("ignore:.*increase_shared_mem:DeprecationWarning")
@pytest.mark.parametrize(("plugin", "name"), VALUES)
def test_values_behave_as_the_dataclasses_that_they_replace(plugin: str, name: str) -> None:
    """
    They are equal if their fields are, can be copied, pickled, replaced, changed and turned into dictionaries.
    """
    kind = getattr(PLUGINS[plugin][1], name)
    value = kind()
    field, changed = dataclasses.fields(kind)[0].name, 2 if name == "Elastic" else None
    assert value == kind() == copy.deepcopy(value) == pickle.loads(pickle.dumps(value))
    other = dataclasses.replace(value, **{field: changed})
    setattr(value, field, changed)
    assert value == other
    assert dataclasses.asdict(value)[field] == changed


# Meaning


images = st.sampled_from([None, "repo/image:1"])
amounts = st.fixed_dictionaries(
    {}, optional={"cpu": st.sampled_from(["1", "500m", "2.5"]), "mem": st.sampled_from(["512Mi", "2Gi", "1024Mi"])}
)
more = st.fixed_dictionaries(
    {}, optional={"cpu": st.sampled_from(["3", "4000m"]), "mem": st.just("8Gi"), "gpu": st.sampled_from(["1", "2"])}
)
restarts = st.sampled_from([None, "ALWAYS", "FAILURE", "NEVER"])
run_policies = st.none() | st.fixed_dictionaries(
    # Without one, the plugin for TensorFlow raises.
    {"clean_pod_policy": st.sampled_from(["ALL", "RUNNING", "NONE"])},
    optional={
        "ttl_seconds_after_finished": st.integers(1, 10**6),
        "active_deadline_seconds": st.integers(1, 10**6),
        "backoff_limit": st.integers(1, 100),
    },
)


def groups(**replicas: Any) -> st.SearchStrategy[dict[str, Any]]:
    """
    What a group is written with, in plain words.
    """
    return st.fixed_dictionaries(
        {
            "image": images,
            "requests": st.none() | amounts,
            "limits": st.none() | more,
            "restart_policy": restarts,
            **replicas,
        }
    )


tensorflow_jobs = st.fixed_dictionaries(
    {
        "chief": groups(replicas=st.integers(0, 1)),
        "ps": groups(replicas=st.integers(0, 3)),
        "worker": groups(replicas=st.integers(1, 5)),
        "evaluator": groups(replicas=st.integers(0, 2)),
        "run_policy": run_policies,
    }
)
pytorch_jobs = st.fixed_dictionaries({"master": groups(), "worker": groups(replicas=st.integers(0, 5)), "run_policy": run_policies})
CLASSES = {"chief": "Chief", "ps": "PS", "worker": "Worker", "evaluator": "Evaluator", "master": "Master"}


def written_with(module: Any, kind: str, plain: dict[str, Any]) -> Any:
    """
    A config of one of the two modules.
    """
    fields: dict[str, Any] = {}
    for name, value in plain.items():
        if name == "run_policy":
            clean = {} if value is None else {"clean_pod_policy": module.CleanPodPolicy[value["clean_pod_policy"]]}
            fields[name] = None if value is None else module.RunPolicy(**{**value, **clean})
            continue
        restart = value["restart_policy"]
        group = {
            **value,
            "requests": None if value["requests"] is None else Resources(**value["requests"]),
            "limits": None if value["limits"] is None else Resources(**value["limits"]),
            "restart_policy": None if restart is None else module.RestartPolicy[restart],
        }
        fields[name] = getattr(module, CLASSES[name])(**group)
    return getattr(module, kind)(**fields)


def on_the_wire(spec: Any) -> tuple[Any, ...]:
    """
    What a group of the plugin's message says.
    """
    words = {"CPU": "cpu", "MEMORY": "memory", "GPU": "gpu"}
    name_of = type(spec.resources).ResourceName.Name
    resources = (
        distrib.Resources(**{words[name_of(entry.name)]: entry.value for entry in entries})
        for entries in (spec.resources.requests, spec.resources.limits)
    )
    return (spec.replicas, spec.image, *resources, spec.restart_policy)


def assert_same_message(job: distrib.Job, message: Any, roles: list[str]) -> None:
    """
    What Flyte is told of the job is what the message says of these roles, and its run policy where it has one.
    """
    told = ParseDict(dict(job.backend.flyte_task(job).custom), type(message)())
    for role in roles:
        assert on_the_wire(getattr(told, f"{role}_replicas")) == on_the_wire(getattr(message, f"{role}_replicas"))
    if message.HasField("run_policy"):
        assert told.run_policy == message.run_policy
    if job.options is not None:
        assert told.elastic_config == message.elastic_config


@given(plain=tensorflow_jobs)
def test_a_tensorflow_job_means_what_the_plugin_sends(plain: dict[str, Any]) -> None:
    """
    Counts, images, resources and policies of each group are those of the plugin's message, read from its config and from ours.
    """
    theirs = written_with(their_tensorflow, "TfJob", plain)
    job = written_with(our_tensorflow, "TfJob", plain).to_job()
    assert job_of(theirs) == job
    message = ParseDict(their_custom(theirs), tensorflow_pb2.DistributedTensorflowTrainingTask())
    roles = [role for role in ("chief", "worker", "ps", "evaluator") if getattr(message, f"{role}_replicas").replicas]
    assert [group.role for group in job.groups] == roles
    assert_same_message(job, message, roles)


@given(plain=pytorch_jobs)
def test_a_pytorch_job_means_what_the_plugin_sends(plain: dict[str, Any]) -> None:
    """
    The same for PyTorch: one master, and the workers.
    """
    theirs = written_with(their_pytorch, "PyTorch", plain)
    job = written_with(our_pytorch, "PyTorch", plain).to_job()
    assert job_of(theirs) == job
    message = ParseDict(their_custom(theirs), pytorch_pb2.DistributedPyTorchTrainingTask())
    roles = [role for role in ("master", "worker") if getattr(message, f"{role}_replicas").replicas]
    assert [group.role for group in job.groups] == roles
    assert_same_message(job, message, roles)


@given(nnodes=st.sampled_from([2, "2", "1:2", "2:4", "3:3"]), nproc=st.integers(1, 8), restarts=st.integers(0, 5), policy=run_policies)
def test_an_elastic_job_means_what_the_plugin_sends(nnodes: Any, nproc: int, restarts: int, policy: dict[str, Any] | None) -> None:
    """
    Nodes, processes and restarts of an elastic job are those of the plugin's message.
    """
    theirs, ours = (
        module.Elastic(nnodes, nproc, max_restarts=restarts, run_policy=written_with(module, "PyTorch", {"run_policy": policy}).run_policy)
        for module in (their_pytorch, our_pytorch)
    )
    job = ours.to_job()
    assert job_of(theirs) == job
    message = ParseDict(their_custom(theirs), pytorch_pb2.DistributedPyTorchTrainingTask())
    elastic, wire = job.options.elastic, message.elastic_config
    assert (elastic.rdzv_backend, elastic.min_nodes, elastic.nodes) == (wire.rdzv_backend, wire.min_replicas, wire.max_replicas)
    assert (elastic.nproc_per_node, elastic.max_restarts) == (wire.nproc_per_node, wire.max_restarts)
    assert [(group.role, group.replicas) for group in job.groups] == [("worker", message.worker_replicas.replicas)]
    assert_same_message(job, message, ["worker"])


def test_an_elastic_job_keeps_the_plugin_s_settings() -> None:
    """
    What the message does not hold is in the job: how nodes meet, how often processes are looked at, how they are started.
    """
    elastic = our_pytorch.Elastic(nproc_per_node=2, monitor_interval=7, rdzv_configs={"timeout": 1800}).to_job().options.elastic
    assert (elastic.monitor_interval, elastic.rdzv_configs, elastic.nodes) == (7.0, {"timeout": 1800}, 1)
    defaults = our_pytorch.Elastic().to_job().options.elastic
    assert (defaults.rdzv_configs, defaults.start_method) == ({"timeout": 900, "join_timeout": 900}, "spawn")


# Deprecated arguments


OLD = [
    ("num_workers", "worker", "worker=Worker(replicas=...)"),
    ("num_chief_replicas", "chief", "chief=Chief(replicas=...)"),
    ("num_ps_replicas", "ps", "ps=PS(replicas=...)"),
    ("num_evaluator_replicas", "evaluator", "evaluator=Evaluator(replicas=...)"),
]


@pytest.mark.parametrize(("old", "role", "replacement"), OLD)
def test_an_old_count_works_and_warns(old: str, role: str, replacement: str) -> None:
    """
    It is the role's number of replicas; the warning names what to write instead, and points at the line that says it.
    """
    rest = {} if role == "worker" else {"worker": our_tensorflow.Worker(replicas=2)}
    with pytest.warns(DeprecationWarning, match=old) as caught:
        config = our_tensorflow.TfJob(**{old: 1}, **rest)
    assert replacement in str(caught[0].message)
    assert caught[0].filename == __file__
    assert config.to_job().group(role).replicas == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("old", "role", "replacement"), OLD)
def test_an_old_count_and_the_new_one_exclude_each_other(old: str, role: str, replacement: str) -> None:
    """
    Giving both is an error that names both.
    """
    new = getattr(our_tensorflow, CLASSES[role])(replicas=1)
    rest = {} if role == "worker" else {"worker": our_tensorflow.Worker(replicas=2)}
    with pytest.raises(InvalidJobError, match=rf"{old}=1: {role}\.replicas=1"):
        our_tensorflow.TfJob(**{old: 1, role: new}, **rest)


def test_pytorch_has_an_old_count_too() -> None:
    """
    ``num_workers`` works, warns, and excludes ``worker.replicas``.
    """
    with pytest.warns(DeprecationWarning, match=r"PyTorch\(num_workers=\).*worker=Worker\(replicas=\.\.\.\)"):
        assert our_pytorch.PyTorch(num_workers=3).to_job() == our_pytorch.PyTorch(worker=our_pytorch.Worker(replicas=3)).to_job()
    with pytest.warns(DeprecationWarning, match="num_workers"), pytest.raises(InvalidJobError, match=r"num_workers=3: worker\.replicas=2"):
        our_pytorch.PyTorch(worker=our_pytorch.Worker(replicas=2), num_workers=3)


def test_resources_for_all_replicas_work_and_warn() -> None:
    """
    What the first version of the plugin took as ``per_replica_requests`` and ``per_replica_limits`` is what every replica gets.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = our_tensorflow.TfJob(
            num_workers=2,
            num_ps_replicas=1,
            num_chief_replicas=1,
            per_replica_requests=Resources(cpu="1"),
            per_replica_limits=Resources(mem="2Gi"),
        ).to_job()
    assert [str(each.message) for each in caught][-2:] == [
        f"TfJob(per_replica_{name}=) is deprecated; write @task({name}=...), or {name}= of each group, instead."
        for name in ("requests", "limits")
    ]
    for group in job.groups:
        assert job.resources_requests(group.role) == distrib.Resources(cpu="1")
        assert job.resources_limits(group.role) == distrib.Resources(memory="2Gi")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["requests", "limits"])
def test_resources_for_all_replicas_exclude_those_of_a_group(name: str) -> None:
    """
    Giving both is an error that names both.
    """
    worker = our_tensorflow.Worker(replicas=1, **{name: Resources(cpu="2")})
    with pytest.raises(InvalidJobError, match=rf"per_replica_{name}=.*worker\.{name} says it too"):
        our_tensorflow.TfJob(worker=worker, **{f"per_replica_{name}": Resources(cpu="1")})


@pytest.mark.parametrize("kind", [our_pytorch.PyTorch, our_pytorch.Elastic])
def test_more_shared_memory_warns_only_whoever_asks_for_it(kind: Any) -> None:
    """
    It is on by itself, so the default is silent, as is turning it off; ``shared_memory=`` is named to whoever turns it on.
    """
    assert kind().increase_shared_mem is True
    assert kind(increase_shared_mem=False).increase_shared_mem is False
    with pytest.warns(DeprecationWarning, match=r"@task\(shared_memory=True\)") as caught:
        kind(increase_shared_mem=True)
    assert caught[0].filename == __file__


# What is broken in the plugins


def test_a_restart_policy_is_spelt_as_in_the_documentation() -> None:
    """
    The plugins have no ``ON_FAILURE``; ours is the same member as ``FAILURE``.
    """
    assert not hasattr(their_tensorflow.RestartPolicy, "ON_FAILURE")
    assert our_tensorflow.RestartPolicy.ON_FAILURE is our_tensorflow.RestartPolicy.FAILURE
    assert our_pytorch.RestartPolicy is our_tensorflow.RestartPolicy


def test_chief_and_ps_may_be_left_out() -> None:
    """
    The plugin demands ``replicas=0`` of both; left out, ``None`` and 0 are the same to ours.
    """
    with pytest.raises(ValueError, match="num_chief_replicas"):
        their_custom(their_tensorflow.TfJob(worker=their_tensorflow.Worker(replicas=2)))
    worker = our_tensorflow.Worker(replicas=2)
    expected = distrib.Job("tensorflow", worker=2)
    assert our_tensorflow.TfJob(worker=worker).to_job() == expected
    assert our_tensorflow.TfJob(our_tensorflow.Chief(replicas=0), our_tensorflow.PS(replicas=0), worker).to_job() == expected
    assert our_tensorflow.TfJob(chief=None, ps=None, worker=worker, evaluator=None).to_job() == expected


@pytest.mark.parametrize("kind", [our_tensorflow.TfJob, our_pytorch.PyTorch])
def test_how_many_workers_has_to_be_said(kind: Any) -> None:
    """
    As with the plugins, nobody trains alone because a number was forgotten; it may be set until a task is made.
    """
    config = kind()
    with pytest.raises(InvalidJobError, match=r"worker\.replicas: .*worker=Worker\(replicas=2\)"):
        config.to_job()
    config.worker.replicas = 2
    assert config.to_job().group("worker").replicas == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"replicas": -3}, r"worker\.replicas=-3: "),
        ({"replicas": 1.5}, r"worker\.replicas=1\.5: "),
        ({"requests": "4"}, r"worker\.requests='4': name each resource"),
        ({"requests": "mem=1Gi,ram=2"}, r"worker\.requests=.*'ram'"),
        ({"requests": Resources(cpu=("1", "2"))}, r"worker\.requests\.cpu=.*limits="),
        ({"requests": Resources(cpu="banana")}, r"worker\.requests\.cpu='banana'"),
        ({"requests": Resources(cpu="2"), "limits": Resources(cpu="1")}, r"worker\.requests\.cpu='2'"),
        ({"restart_policy": "Sometimes"}, r"worker\.restart_policy='Sometimes': no such word"),
    ],
)
def test_a_wrong_group_is_refused_where_it_is_written(fields: dict[str, Any], message: str) -> None:
    """
    The plugins take all of these, and fail when the task is registered, or on the cluster.
    """
    their_tensorflow.Worker(**fields)
    with pytest.raises(InvalidJobError, match=message):
        our_tensorflow.Worker(**fields)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: our_tensorflow.TfJob(worker=2), r"worker=2: write Worker\(replicas=1\), or how many"),
        (lambda: our_tensorflow.TfJob(2, 1, 1), r"chief=2: write Chief\(replicas=1\)"),
        (lambda: our_pytorch.PyTorch(master=1, worker=our_pytorch.Worker(replicas=1)), r"master=1: write Master\(\)\."),
        (lambda: our_pytorch.Elastic(run_policy={"backoff_limit": 2}), r"run_policy={'backoff_limit': 2}: write RunPolicy\(\.\.\.\)"),
    ],
)
def test_what_is_no_group_or_policy_is_refused(config: Any, message: str) -> None:
    """
    A number, as our own decorator takes it, or as the first plugin did, and a mapping.
    """
    with pytest.raises(InvalidJobError, match=message):
        config()


def test_restart_policies_may_be_texts() -> None:
    """
    The plugins fail over Kubernetes' own spelling when the task is registered.
    """
    job = our_tensorflow.TfJob(worker=our_tensorflow.Worker(replicas=1, restart_policy="OnFailure")).to_job()
    assert job.restart_policy("worker") is distrib.RestartPolicy.ON_FAILURE


def test_resources_may_be_numbers() -> None:
    """
    flytekit's own documentation has them; they arrive as Kubernetes writes them.
    """
    worker = our_tensorflow.Worker(replicas=1, requests=Resources(cpu=0.5, mem=1024, gpu=1))
    assert our_tensorflow.TfJob(worker=worker).to_job().group("worker").requests == distrib.Resources(cpu="500m", memory="1024", gpu=1)


@pytest.mark.parametrize("nproc", ["auto", "gpu"])
def test_processes_may_be_as_many_as_there_are_devices(nproc: str) -> None:
    """
    The plugin fails when the task is registered.
    """
    with pytest.raises(TypeError):
        their_custom(their_pytorch.Elastic(nnodes=2, nproc_per_node=nproc))
    assert our_pytorch.Elastic(nnodes=2, nproc_per_node=nproc).to_job().options.elastic.nproc_per_node == nproc


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nnodes": 0}, "nnodes=0"),
        ({"nnodes": "2:1"}, "nnodes='2:1'"),
        ({"nnodes": "many"}, "nnodes='many'"),
        ({"nproc_per_node": 0}, "nproc_per_node=0"),
        ({"start_method": "forkserver"}, "start_method='forkserver'"),
        ({"max_restarts": -1}, "max_restarts=-1"),
        ({"monitor_interval": 0}, "monitor_interval=0"),
    ],
)
def test_a_wrong_elastic_job_is_refused_where_it_is_written(fields: dict[str, Any], message: str) -> None:
    """
    With the field, the value and the remedy; and when it is made wrong later, before anything is registered.
    """
    with pytest.raises(InvalidJobError, match=message):
        our_pytorch.Elastic(**fields)
    changed = our_pytorch.Elastic()
    for name, value in fields.items():
        setattr(changed, name, value)
    with pytest.raises(InvalidJobError, match=message):
        changed.to_job()


# Both in one code base


@pytest.mark.parametrize("plugin", [their_tensorflow, our_tensorflow])
def test_a_function_becomes_the_job_of_a_config(plugin: Any) -> None:
    """
    ``distributed.from_flyte`` takes the plugin's own config and ours, and more of what makes a job.
    """
    config = plugin.TfJob(chief=plugin.Chief(replicas=0), ps=plugin.PS(replicas=0), worker=plugin.Worker(replicas=2))

    @distrib.distributed.from_flyte(config, env={"SEED": "1"}, local={"echo": False})
    def add(a: int, b: int) -> int:
        return a + b

    assert add.job == distrib.Job("tensorflow", worker=2, env={"SEED": "1"}, local={"echo": False})
    assert add(1, b=2) == 3
    with pytest.raises(InvalidJobError, match=r"wroker=2: .*'worker'"):
        distrib.distributed.from_flyte(config, wroker=2)


def test_a_subclass_may_make_another_job() -> None:
    """
    Its own ``to_job`` is what counts.
    """

    class Named(our_tensorflow.TfJob):
        def to_job(self) -> distrib.Job:
            return super().to_job().evolve(name="digits")

    assert job_of(Named(worker=our_tensorflow.Worker(replicas=1))).name == "digits"


def test_what_is_no_config_is_refused() -> None:
    """
    The message names the classes that are.
    """
    with pytest.raises(InvalidJobError, match="TfJob, PyTorch, Elastic"):
        job_of(object())


@pytest.mark.parametrize("plugin", [their_tensorflow, our_tensorflow])
def test_a_subclass_is_read_as_its_parent(plugin: Any) -> None:
    """
    Also one that is a dataclass itself, of the plugin's class or of ours.
    """

    @dataclasses.dataclass
    class Digits(plugin.TfJob):
        dataset: str = "digits"

    config = Digits(chief=plugin.Chief(replicas=1), worker=plugin.Worker(replicas=2))
    assert config.dataset == "digits"
    assert job_of(config) == distrib.Job("tensorflow", chief=1, worker=2)
