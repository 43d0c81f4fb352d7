"""
A decorated function is a task as flytekit's own: compared, name by name, with an equal ``@task``.
"""

import asyncio
import inspect
from collections import OrderedDict

import borrowed
import flytekit
import pytest
import surface_flows as flows
from flytekit import PodTemplate, PythonFunctionTask, Resources, Secret, dynamic, task, workflow
from flytekit.configuration import FastSerializationSettings, Image, ImageConfig, SerializationSettings
from flytekit.core.base_task import TaskResolverMixin
from flytekit.core.context_manager import ExecutionState, FlyteContextManager
from flytekit.core.local_cache import LocalTaskCache
from flytekit.core.python_auto_container import default_task_resolver
from flytekit.tools.translator import get_serializable
from google.protobuf.json_format import MessageToDict
from kubernetes.client import V1Container, V1PodSpec, V1VolumeMount

from distrib import InvalidJobError, Job, UnsupportedError, distributed

SETTINGS = SerializationSettings(
    project="p", domain="d", version="v", env={"B": "2"}, image_config=ImageConfig(default_image=Image("default", "img", "tag"))
)


def template(entity):
    """
    What Flyte is told of a task, a workflow or a launch plan, as plain data.
    """
    return MessageToDict(get_serializable(OrderedDict(), SETTINGS, entity).to_flyte_idl())


def as_plain(told):
    """
    The same, as if flytekit's own decorator had made it: its name, and nothing of the task type's own.
    """
    if isinstance(told, dict):
        return {key: as_plain(value) for key, value in told.items() if key not in ("custom", "taskTypeVersion", "type", "executionMode")}
    if isinstance(told, (list, tuple)):
        return [as_plain(value) for value in told]
    return _renamed(told)


def _renamed(text):
    for ours, plain in (("ours", "plain"), ("flytes", "plain"), ("mapped_plainly", "mapped")):
        text = text.replace(ours, plain) if isinstance(text, str) else text
    return text


def compiled(of):
    """
    The node that a call in a workflow is.
    """
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.with_compilation_state(context.new_compilation_state())) as inside:
        node = of.compile(inside, x=1).ref.node
        return node.id, idl(node.metadata), [(one.var, MessageToDict(one.to_flyte_idl())) for one in node.bindings]


def executing(of, mode, act):
    """
    What *act* gives, as if Flyte executed the task in this mode.
    """
    context = FlyteContextManager.current_context()
    state = context.new_execution_state().with_params(mode=mode)
    with FlyteContextManager.with_context(context.with_execution_state(state)) as inside:
        return act(of, inside)


LOCAL = ExecutionState.Mode.LOCAL_TASK_EXECUTION


def literals(**values):
    """
    Inputs as Flyte hands them over.
    """
    context = FlyteContextManager.current_context()
    types = {name: type(value) for name, value in values.items()}
    return flytekit.core.type_engine.TypeEngine.dict_to_literal_map(context, values, types)


def with_command(of):
    """
    The command that was set, and the one after it was reset.
    """
    of.set_command_fn(lambda settings: [settings.project])
    try:
        changed = of.get_command(SETTINGS)
    finally:
        of.reset_command_fn()
    return changed, of.get_command(SETTINGS)


def with_resolver(of):
    """
    What a pod is told to find the task by, once there is another resolver.
    """

    class Own(TaskResolverMixin):
        location = "own.resolver"

        def name(self):
            return "Own"

        def loader_args(self, settings, task):
            return ["anything"]

        load_task = get_all_tasks = None

    before = of.task_resolver
    of.set_resolver(Own())
    try:
        return of.task_resolver.name(), of.get_command(SETTINGS)[-4:]
    finally:
        of.set_resolver(before)


def idl(value):
    """
    One of flytekit's models, as plain data.
    """
    return None if value is None else MessageToDict(value if hasattr(value, "DESCRIPTOR") else value.to_flyte_idl())


def in_folder(of, mode=LOCAL):
    """
    What comes out of a task that Flyte hands its inputs.
    """
    found = executing(of, mode, lambda it, inside: it.dispatch_execute(inside, literals(x=3, note="dispatched")))
    return found.literals["o0"].scalar.primitive.integer


#: Each name of the surface, and what is looked at. The numbers agree: one doubles, the others multiply by their two replicas.
SAME = {
    "compile": compiled,
    "construct_node_metadata": lambda of: idl(of.construct_node_metadata()),
    "dispatch_execute": in_folder,
    "execute": lambda of: executing(of, LOCAL, lambda it, _: it.execute(x=3, note="executed")),
    "find_lhs": lambda of: of.find_lhs(),
    "get_command": lambda of: of.get_command(SETTINGS),
    "get_config": lambda of: of.get_config(SETTINGS),
    "get_container": lambda of: idl(of.get_container(SETTINGS)),
    "get_default_command": lambda of: of.get_default_command(SETTINGS),
    "get_extended_resources": lambda of: idl(of.get_extended_resources(SETTINGS)),
    "get_image": lambda of: of.get_image(SETTINGS),
    "get_input_types": lambda of: of.get_input_types(),
    "get_k8s_pod": lambda of: of.get_k8s_pod(SETTINGS),
    "get_sql": lambda of: of.get_sql(SETTINGS),
    "get_type_for_input_var": lambda of: of.get_type_for_input_var("note", None),
    "get_type_for_output_var": lambda of: of.get_type_for_output_var("o0", None),
    "local_execute": lambda of: executing(of, LOCAL, lambda it, inside: it.local_execute(inside, x=4, note="local")).eval(),
    "local_execution_mode": lambda of: of.local_execution_mode(),
    "post_execute": lambda of: of.post_execute(None, "value"),
    "pre_execute": lambda of: of.pre_execute("parameters"),
    "reset_command_fn": with_command,
    "set_command_fn": with_command,
    "sandbox_execute": lambda of: (
        executing(of, LOCAL, lambda it, inside: it.sandbox_execute(inside, literals(x=3, note="sandbox"))).literals
    ),
    "set_resolver": with_resolver,
    "container_image": lambda of: of.container_image,
    "deck_fields": lambda of: of.deck_fields,
    "disable_deck": lambda of: of.disable_deck,
    "enable_deck": lambda of: of.enable_deck,
    "docs": lambda of: of.docs.short_description,
    "environment": lambda of: of.environment,
    "execution_mode": lambda of: of.execution_mode,
    "instantiated_in": lambda of: of.instantiated_in,
    "interface": lambda of: idl(of.interface),
    "lhs": lambda of: of.lhs,
    "location": lambda of: of.location,
    "metadata": lambda of: of.metadata,
    "name": lambda of: of.name,
    "node_dependency_hints": lambda of: of.node_dependency_hints,
    "python_interface": lambda of: (of.python_interface.inputs, of.python_interface.outputs, of.python_interface.default_inputs_as_kwargs),
    "resources": lambda of: of.resources,
    "security_context": lambda of: idl(of.security_context),
    "task_resolver": lambda of: of.task_resolver,
    # Not by task.__call__: what runs once, on its own, has no replicas.
    "task_function": lambda of: (of.task_function.__name__, of.task_function.__annotations__),
}
#: What is a dynamic workflow's.
DYNAMIC = {
    "compile_into_workflow": lambda of, inside: [
        node.metadata.name for node in of.compile_into_workflow(inside, of.task_function, x=3).nodes
    ],
    "dynamic_execute": lambda of, inside: of.dynamic_execute(of.task_function, x=3).nodes[0].metadata.name,
}
#: What a task type has for itself.
OWN = {"get_custom", "task_config", "task_type", "task_type_version"}


@pytest.fixture(autouse=True)
def _nothing_kept(tmp_path, monkeypatch):
    """
    No result is taken from another test, or from whoever runs these.
    """
    monkeypatch.setattr(LocalTaskCache, "_initialized", False)
    monkeypatch.setattr(flytekit.core.local_cache, "CACHE_LOCATION", str(tmp_path / "cache"))


def test_the_whole_surface_is_compared():
    """
    Whatever flytekit's tasks have is compared here, or the task type's own.
    """
    compared = set(SAME) | set(DYNAMIC) | OWN
    public = {name for name in dir(PythonFunctionTask) if not name.startswith("_")}
    assert public ^ compared == {"ExecutionBehavior"}


@pytest.mark.filterwarnings("ignore:`disable_deck` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("of", [flows.ours, flows.flytes], ids=["ours", "flytekit's"])
def test_it_behaves_as_flytekits_own(of, name):
    """
    Of every name, a distributed task gives what an equal ``@task`` gives.
    """
    look = SAME[name]
    assert as_plain(look(of)) == as_plain(look(flows.plain))


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_dynamic_one_behaves_as_flytekits_own(name):
    """
    ``@dynamic`` with a job as its config makes the same workflow when it runs as one without.
    """

    def made(of):
        context = FlyteContextManager.current_context()
        state = context.new_execution_state().with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
        builder = context.with_execution_state(state).with_serialization_settings(SETTINGS)
        with FlyteContextManager.with_context(builder) as inside:
            return DYNAMIC[name](of, inside)

    assert flows.ours_many.execution_mode == PythonFunctionTask.ExecutionBehavior.DYNAMIC
    assert made(flows.ours_many) == made(flows.plain_many)


def test_what_a_task_type_has_for_itself():
    """
    The type, its version and what Flyte's plug-in reads are the job's, which is the task's config.
    """
    for of in (flows.ours, flows.flytes):
        assert (of.task_type, of.task_type_version) == ("tensorflow", 1)
        assert of.task_config is of.job
        assert of.get_custom(SETTINGS)["workerReplicas"]["replicas"] == 2
        assert isinstance(of, PythonFunctionTask)


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (flows.ours, flows.plain),
        (flows.flytes, flows.plain),
        (flows.ours_pod, flows.plain_pod),
        (flows.ours_many, flows.plain_many),
        (flows.ours_flow, flows.plain_flow),
        (flows.ours_map, flows.plain_map),
        (flows.ours_plan, flows.plain_plan),
    ],
    ids=["ours", "flytekit's", "pod template", "dynamic", "workflow with overrides", "map task", "launch plan"],
)
def test_flyte_is_told_the_same(ours, plain):
    """
    Retries, cache, timeouts, secrets, pod templates, accelerators, shared memory, decks, overrides: told as of an equal ``@task``.
    """
    found, wanted = as_plain(template(ours)), as_plain(template(plain))
    for told in (found, wanted):
        told.pop("description", None)
    assert found == wanted


def test_both_ways_to_write_it_give_equal_templates():
    """
    ``@distributed`` and ``@task(task_config=Job(...))`` are told to Flyte alike, but for the function's name.
    """
    told = [repr(template(of)["template"]) for of in (flows.ours, flows.flytes)]
    assert told[0].replace("ours", "flytes") == told[1]
    assert "workerReplicas" in told[0]


def test_a_pod_template_stays_as_it_is():
    """
    A pod template, which several tasks may share, is not changed by the tasks that have it.
    """
    before = repr(flows.POD)
    template(flows.ours_pod)
    assert repr(flows.POD) == before
    assert template(flows.ours_pod)["template"]["config"] == {"primary_container_name": "main"}


@pytest.mark.skipif("labels" not in inspect.signature(task).parameters, reason="this flytekit has no labels yet")
def test_labels_and_annotations_are_the_tasks():
    """
    Labels and annotations are those of the job's object in the cluster.
    """
    given = {"labels": {"kueue.x-k8s.io/queue-name": "q"}, "annotations": {"note": "n"}}

    def labelled(x: int) -> int:
        return x

    ours = distributed(framework="tensorflow", worker=2, flyte=given)(labelled)
    assert idl(ours.metadata.to_taskmetadata_model())["metadata"] == given


def test_a_node_has_settings_of_its_own():
    """
    ``with_overrides`` changes what Flyte is told of a node. Another job needs another task: flytekit would change that of all
    workflows, and none of its pods.
    """

    def train(x: int) -> int:
        return x

    train = distributed(framework="tensorflow", worker=2, local=flows.QUIET)(train)

    @workflow
    def again(x: int) -> int:
        return train(x=x).with_overrides(retries=5)

    @workflow
    def wider(x: int) -> int:
        return train(x=x).with_overrides(task_config=Job("tensorflow", worker=7))

    assert template(again)["template"]["nodes"][0]["metadata"]["retries"]["retries"] == 5
    with pytest.raises(InvalidJobError, match=r"Make another task .* wider = train\.options\(worker=8\)"):
        template(wider)
    assert again.nodes[0].flyte_entity.get_custom(SETTINGS)["workerReplicas"]["replicas"] == 2


def test_another_job_is_another_task():
    """
    A copy with another job, in a variable of its own, is a task with a name of its own, which its pods find.
    """
    told = {of.name: of.get_custom(SETTINGS)["workerReplicas"]["replicas"] for of in (flows.ours, flows.wider)}
    assert told == {"surface_flows.ours": 2, "surface_flows.wider": 8}
    assert flows.wider.task_resolver.load_task(flows.wider.get_command(SETTINGS)[-4:]) is flows.wider
    assert template(flows.wide_flow)["template"]["nodes"][0]["taskNode"]["referenceId"]["name"] == "surface_flows.wider"


def test_an_ordinary_task_has_what_its_only_group_has():
    """
    One elastic node is an ordinary task of Flyte's, which has one image and one set of resources: those of the group.
    """

    def train(x: int) -> int:
        return x

    worker = {"replicas": 1, "image": "repo/group:1", "requests": {"cpu": 4}, "limits": {"gpu": 1}}
    job = Job("pytorch", elastic={"max_nodes": 1, "nproc_per_node": 2}, image="repo/job:1", requests={"memory": "1Gi"}, worker=worker)
    told = template(task(task_config=job)(train))["template"]
    assert (told["type"], told["container"]["image"]) == ("python-task", "repo/group:1")
    assert told["container"]["resources"] == {
        "requests": [{"name": "CPU", "value": "4"}, {"name": "MEMORY", "value": "1Gi"}],
        "limits": [{"name": "GPU", "value": "1"}],
    }
    given = task(task_config=job.evolve(requests=None), requests=Resources(cpu="1", mem="2Gi"))(train)
    assert template(given)["template"]["container"]["resources"]["requests"] == [
        {"name": "CPU", "value": "4"},
        {"name": "MEMORY", "value": "2Gi"},
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run_policy": {"active_deadline_seconds": 60}}, r"run_policy\.active_deadline_seconds=60: .* Write flyte=\{'timeout'"),
        ({"run_policy": {"backoff_limit": 2}}, r"run_policy\.backoff_limit=2: .* Write flyte=\{'retries'"),
        ({"run_policy": {"ttl_seconds_after_finished": 60}}, r"run_policy\.ttl_seconds_after_finished=60: .* leave it out"),
        ({"worker": {"replicas": 1, "restart_policy": "OnFailure"}}, r"worker\.restart_policy='OnFailure': .* Write flyte=\{'retries'"),
    ],
)
def test_an_ordinary_task_refuses_what_needs_an_operator(changes, said):
    """
    What only the operator would do is refused where there is none, with Flyte's own word for it.
    """

    def train(x: int) -> int:
        return x

    made = task(task_config=Job("pytorch", elastic={"max_nodes": 1}, **changes))(train)
    with pytest.raises(UnsupportedError, match=said):
        template(made)


def test_fast_registration_has_the_same_command():
    """
    With code that is not in the image, the pod fetches it first, as for any task.
    """
    fast = FastSerializationSettings(enabled=True, destination_dir="/root", distribution_location="s3://b/code.tar.gz")
    settings = SETTINGS.new_builder().with_fast_serialization_settings(fast).build()
    args = get_serializable(OrderedDict(), settings, flows.ours).to_flyte_idl().template.container.args
    plain = get_serializable(OrderedDict(), settings, flows.plain).to_flyte_idl().template.container.args
    assert args[0] == "pyflyte-fast-execute"
    assert [_renamed(part) for part in args] == list(plain)


def test_functions_of_other_modules_are_tasks_of_the_one_that_decorates():
    """
    A function of another module becomes a task by the name of the variable that holds it, and a pod finds it there.
    """
    assert [of.name for of in (borrowed.borrowed, borrowed.again, borrowed.known)] == [
        "borrowed.borrowed",
        "borrowed.again",
        flows.ours.name,
    ]
    for of, name in ((borrowed.borrowed, "borrowed"), (borrowed.again, "again")):
        args = of.get_command(SETTINGS)
        assert args[-4:] == ["task-module", "borrowed", "task-name", name]
        module, _, resolver = args[args.index("--resolver") + 1].rpartition(".")
        assert getattr(__import__(module, fromlist=[resolver]), resolver).load_task(args[-4:]) is of
    assert flows.ours.task_resolver is default_task_resolver
    assert borrowed.borrowed(x=2) == 20


def test_decorators_stack():
    """
    A decorator beneath ours runs in every replica; one on top, where the task is called.
    """
    assert flows.decorated.name == "surface_flows.decorated"
    assert flows.decorated(x=2) == 5
    assert flows.redecorated(x=2) == 5

    @workflow
    def flow(x: int) -> int:
        return flows.decorated(x=x)

    assert flow(x=3) == 7


def test_flytes_own_decorators_stack():
    """
    A decorator of flytekit's class for them is beneath ours as it is beneath ``@task``, with what it tells Flyte; and on top of it.
    """
    from flytekit.core.utils import ClassDecorator

    class Twice(ClassDecorator):
        def execute(self, *args, **kwargs):
            return 2 * self.task_function(*args, **kwargs)

        def get_extra_config(self):
            return {self.LINK_TYPE_KEY: "own", self.PORT_KEY: "80"}

    def number(x: int) -> int:
        return x

    decorate = distributed(framework="tensorflow", worker=1, local=flows.QUIET)
    ours, plain = decorate(Twice(number)), task(Twice(number))
    assert template(ours)["template"]["config"] == template(plain)["template"]["config"] == {"link_type": "own", "port": "80"}
    assert ours(x=4) == plain(x=4) == 8
    assert Twice(decorate(number))(x=4) == Twice(task(number))(x=4) == 8


def test_async_functions_are_refused():
    """
    An async function is refused with a reason, whichever decorator it is given to.
    """

    async def train(x: int) -> int:
        await asyncio.sleep(0)
        return x

    ours = distributed(framework="tensorflow", worker=1, local=flows.QUIET)
    with pytest.raises(InvalidJobError, match=r"train\(\) is async: .* Wrap it in one, e\.g\. with asyncio\.run\(\)"):
        ours(train)(x=1)
    with pytest.raises(InvalidJobError, match=r"train\(\) is async"):
        distributed(framework="tensorflow", worker=1, flyte={"retries": 1})(train)
    with pytest.raises(AssertionError, match="not compatible with async functions"):
        task(task_config=flows.JOB)(train)


@pytest.mark.parametrize("of", [flows.plain, flows.plain_flow], ids=["task", "workflow"])
def test_what_is_flytes_already_is_refused(of):
    """
    On top of flytekit's own decorator ours is refused, with what to write.
    """
    with pytest.raises(InvalidJobError, match=r"plain\w*\(\) is Flyte's already: write @distributed in place of .* flyte=\{"):
        distributed(framework="tensorflow", worker=1)(of)


def test_groups_have_what_the_task_has():
    """
    A group's resources are complete: what it leaves out is the task's, since Flyte would fill it with what its platform has.
    """
    job = Job("tensorflow", worker={"replicas": 1, "requests": {"cpu": 8}}, ps={"replicas": 1, "limits": {"memory": "64Gi"}})

    def train(x: int) -> int:
        return x

    told = task(task_config=job, requests=Resources(mem="32Gi", gpu=1), limits=Resources(cpu=9.5))(train).get_custom(SETTINGS)
    found = {
        (role, kind): {each["name"]: each["value"] for each in given["resources"][kind]}
        for role in ("worker", "ps")
        for given in (told[f"{role}Replicas"], told[f"{role}Replicas"]["common"])
        for kind in ("requests", "limits")
    }
    assert found == {
        ("worker", "requests"): {"CPU": "8", "MEMORY": "32Gi", "GPU": "1"},
        ("worker", "limits"): {"CPU": "9500m"},
        ("ps", "requests"): {"MEMORY": "32Gi", "GPU": "1"},
        ("ps", "limits"): {"CPU": "9500m", "MEMORY": "64Gi"},
    }


def test_secrets_reach_the_replicas(monkeypatch):
    """
    In a local run, the replicas find a secret where flytekit's tasks do.
    """
    monkeypatch.setenv("FLYTE_SECRETS_ENV_PREFIX", "_FSEC_")
    monkeypatch.setenv("_FSEC_GROUP_KEY", "hush")
    assert flows.secret() == "hush"
    assert idl(flows.secret.security_context) == {"secrets": [idl(Secret(group="group", key="key"))]}


def test_settings_that_contradict_the_job_are_refused():
    """
    What the job says too is written once: both are named.
    """

    def train(x: int) -> int:
        return x

    for given, settings in (
        ({"image": "one"}, {"container_image": "other"}),
        ({"env": {"A": "1"}}, {"environment": {"A": "2"}}),
        ({"requests": {"cpu": 1}}, {"requests": Resources(cpu="2")}),
    ):
        with pytest.raises(InvalidJobError, match=r"flyte\.\w+.*write it once"):
            distributed(framework="tensorflow", worker=1, flyte=settings, **given)(train)
        with pytest.raises(InvalidJobError, match=r"flyte\.\w+.*write it once"):
            task(task_config=Job("tensorflow", worker=1, **given), **settings)(train)


def test_two_volumes_of_shared_memory_are_refused():
    """
    Flyte starts no pod whose template has something of its own where the shared memory goes; a container beside it may.
    """

    def train(x: int) -> int:
        return x

    def template(primary):
        mounts = [V1VolumeMount(name="own", mount_path="/dev/shm")]
        pod = V1PodSpec(containers=[V1Container(name="main", volume_mounts=mounts)])
        return PodTemplate(primary_container_name=primary, pod_spec=pod)

    job = Job("tensorflow", worker=2, limits={"shared_memory": "1Gi"})
    with pytest.raises(InvalidJobError, match=r"flyte\.shared_memory='1Gi': .*/dev/shm too; leave one of them out"):
        task(task_config=job, pod_template=template("main"))(train)
    assert task(task_config=job.evolve(limits=None), pod_template=template("main"))(train).job.limits is None
    assert task(task_config=job, pod_template=template("other"))(train).job is job


def test_a_dynamic_workflow_with_a_job_runs_here():
    """
    On this machine too, ``@dynamic`` with a job runs what it makes.
    """
    assert flows.ours_many(x=3) == flows.plain_many(x=3) == 6
    assert dynamic(flows.plain_many.task_function)(x=4) == 8
