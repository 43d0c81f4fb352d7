"""
Flyte on this machine: tasks run their replicas.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import local_flows
import pytest
from flytekit.core.checkpointer import SyncCheckpoint
from flytekit.core.context_manager import ExecutionState, FlyteContextManager, OutputMetadataTracker
from flytekit.core.local_cache import LocalTaskCache
from flytekit.testing import task_mock

import distrib
from distrib import ReplicaFailedError
from distrib.engines.flyte._members import Carrying
from distrib.engines.local._preload import modules_to_preload

SCRIPTS = Path(sys.executable).parent
HERE = Path(__file__).parent


def check(text, asked):
    """
    Fail unless it is what the chief of three replicas has seen, in a process of its own.
    """
    seen = json.loads(text)
    assert seen["name"].lower() == "chief-0"
    assert seen["cluster"] == {"chief": 1, "worker": 2}
    assert (seen["asked"], seen["world_size"]) == (asked, 3)
    assert seen["pid"] != os.getpid()


@pytest.mark.parametrize("task", [local_flows.train, local_flows.by_flytekit], ids=["ours", "flytekit's"])
def test_a_call_runs_the_replicas(task):
    """
    A task is called as a function, by position or by name, and its coordinator's value comes back.
    """
    check(task("call"), "call")
    check(task(role="call"), "call")
    check(task(), "any")


def test_a_call_outside_of_flyte_is_a_run_of_the_configured_engine(monkeypatch):
    """
    What our decorator has made runs where it is told to; what flytekit's has made, as Flyte does on this machine.
    """
    before = len(distrib.runs())
    local_flows.train("here")
    assert len(distrib.runs()) == before + 1
    monkeypatch.setenv("DISTRIB_ENGINE", "flyte")
    with pytest.raises(distrib.UnsupportedError, match=r"engine='flyte': Flyte starts train\(\) itself"):
        local_flows.train("there")
    check(local_flows.by_flytekit(role="here"), "here")


def test_a_value_flows_through_a_workflow():
    """
    The coordinator's value is an ordinary task's input.
    """
    text = local_flows.flow(role="flow")
    assert text == text.upper()
    assert '"NAME": "CHIEF-0"' in text
    assert '"WORLD_SIZE": 3' in text


def test_a_task_can_be_mapped():
    """
    A map task runs the replicas once for each input.
    """
    assert local_flows.mapped(xs=[1, 2, 3]) == [2, 8, 18]


def test_a_dynamic_workflow_runs_the_replicas():
    """
    Tasks of a dynamic workflow are distributed too.
    """
    assert local_flows.dynamic_flow(count=3) == [0, 2, 8]


def test_a_launch_plan_runs_the_replicas():
    """
    So are those of a launch plan, with its default inputs and with others.
    """
    assert local_flows.launch_plan() == [2, 8]
    assert local_flows.launch_plan(xs=[3]) == [18]


def test_overrides_of_a_node_change_nothing_here():
    """
    What only Flyte's cluster heeds is taken, and the task runs as it does.
    """
    assert local_flows.overridden(x=3) == 18


def test_files_and_dataclasses_flow_through(tmp_path):
    """
    Files, folders and dataclasses reach every replica, and those of the coordinator flow on.
    """
    assert local_flows.files(folder=str(tmp_path)) == "hello 1 from worker-0, Settings(rate=1.0, name='sgd')"


def test_data_frames_flow_through(tmp_path):
    """
    A StructuredDataset reaches every replica, which reads it there.
    """
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    (tmp_path / "frames.py").write_text(
        "import pandas as pd\n"
        "from flytekit import task, workflow\n"
        "from flytekit.types.structured import StructuredDataset\n"
        "from distrib import distributed\n\n"
        "@task\ndef make() -> StructuredDataset:\n    return StructuredDataset(dataframe=pd.DataFrame({'a': [1, 2]}))\n\n"
        "@distributed(framework='tensorflow', worker=2, local={'preload': False})\n"
        "def total(data: StructuredDataset) -> int:\n    return int(data.open(pd.DataFrame).all()['a'].sum())\n\n"
        "@workflow\ndef flow() -> int:\n    return total(data=make())\n"
    )
    assert pyflyte("run", "frames.py", "flow", folder=tmp_path).splitlines()[-1] == "3"


def test_a_failure_is_that_of_the_replica():
    """
    A workflow whose task fails raises what a run raises: the replica, its exception as the cause, and Flyte's name of the task.
    """
    with pytest.raises(ReplicaFailedError, match=r"executing 'local_flows.fails'") as caught:
        local_flows.failing(x=7)
    assert caught.value.replica == "worker-1"
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value.__cause__) == "7 is out of luck"


def test_a_mock_is_called_in_place_of_the_replicas():
    """
    flytekit's ``task_mock`` holds for a direct call and for one in a workflow, and for no longer than it says.
    """
    with task_mock(local_flows.square) as mock:
        mock.return_value = 7
        assert local_flows.square(x=3) == 7
        assert local_flows.overridden(x=3) == 7
    assert local_flows.square(x=3) == 18


def test_what_cannot_be_sent_is_refused_by_name():
    """
    An input that cannot be pickled for the replicas is refused before any is started, and named.
    """
    task = local_flows.takes_anything
    with pytest.raises(distrib.InvalidJobError, match=r"argument x of takes_anything\(\) cannot be sent to the replicas"):
        task.execute(x={"lock": local_flows.Locked()})


def test_results_are_cached(tmp_path, monkeypatch):
    """
    Flyte's local cache keeps the value of a run; another input has a run of its own.
    """
    monkeypatch.setattr("flytekit.core.local_cache.CACHE_LOCATION", str(tmp_path))
    monkeypatch.setattr(LocalTaskCache, "_initialized", False)
    context = FlyteContextManager.current_context()
    state = context.new_execution_state().with_params(mode=ExecutionState.Mode.LOCAL_WORKFLOW_EXECUTION)
    with FlyteContextManager.with_context(context.with_execution_state(state)):
        first, again, other = (local_flows.cached(x=x).val.scalar.primitive.integer for x in (1, 1, 2))
    assert first == again
    assert other != first + 1
    LocalTaskCache._cache.close()


def test_a_call_within_a_replica_is_refused(monkeypatch):
    """
    A replica is told that it cannot start a run of its own, also by a task of Flyte's.
    """
    me = distrib.ClusterSpec({"worker": ["a:1", "b:1"]}).replicas[0]
    monkeypatch.setenv("DISTRIB_REPLICA", distrib._cluster.encode_replica(me, distrib._cluster.encode_cluster(me.cluster)))
    with pytest.raises(distrib.SubmitError, match=r"a replica cannot start a run of its own"):
        local_flows.flow(role="within")


def pyflyte(*arguments, folder):
    """
    What pyflyte prints.
    """
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
        "FLYTE_SDK_RICH_TRACEBACKS": "0",
    }
    done = subprocess.run([SCRIPTS / "pyflyte", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("entity", "arguments", "printed"),
    [("mapped", ("--xs", "[1,2]"), "[2, 8]"), ("square", ("--x", "5"), "50"), ("many", ("--count", "2"), "[0, 2]")],
)
def test_pyflyte_run(entity, arguments, printed):
    """
    ``pyflyte run`` finds workflows, dynamic ones and the task itself, turns its options into inputs, and runs the replicas.
    """
    assert pyflyte("run", "local_flows.py", entity, *arguments, folder=HERE).splitlines()[-1] == printed


def test_pyflyte_run_of_a_task_goes_through_flytes_types(tmp_path):
    """
    ``pyflyte run`` of a task itself is Flyte's: a file given by its path arrives as a FlyteFile, a dataclass as one.
    """
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "data").mkdir()
    inputs = ("--file", "file.txt", "--data", "data", "--settings", '{"rate": 0.5}', "--folder", str(tmp_path))
    printed = pyflyte("run", str(HERE / "local_flows.py"), "use_files", *inputs, folder=tmp_path)
    assert "Settings(rate=1.0, name='sgd')" in printed
    assert (tmp_path / "out-1.txt").read_text() == "hello 0 from worker-1"


def test_what_flytekit_notes_beside_a_value_arrives(tmp_path):
    """
    The decks that the coordinator fills, the metadata of each of its outputs, and its checkpoint are those of the task.
    """
    context = FlyteContextManager.current_context()
    parameters = context.user_space_params.with_task_sandbox()
    parameters.checkpoint = SyncCheckpoint(str(tmp_path / "checkpoint"))
    parameters.decks = decks = []
    state = context.new_execution_state().with_params(mode=ExecutionState.Mode.LOCAL_TASK_EXECUTION, user_space_params=parameters.build())
    tracker = OutputMetadataTracker()
    with FlyteContextManager.with_context(context.with_execution_state(state).with_output_metadata_tracker(tracker)):
        first, second = local_flows.notes.execute(x=2)
    assert [deck.html for deck in decks] == ["<p>worker-0</p>"]
    assert tracker.get(first).dynamic_partitions == {"of": "worker-0"}
    assert tracker.get(second) is None
    assert SyncCheckpoint(str(tmp_path / "again"), str(tmp_path / "checkpoint")).read() == b"2"


def test_what_the_function_imports_is_imported_once():
    """
    The local engine sees the function itself, and loads its framework before it forks the replicas.
    """

    def train() -> object:
        import keras

        return keras

    def preloaded(function):
        return modules_to_preload(function, ("tensorflow", "keras"), None, "tensorflow")

    assert preloaded(Carrying(train, here=True)) == preloaded(train) == ("keras",)


def test_what_keeps_a_nested_function_here_is_named():
    """
    A variable that cannot be sent along is named, as for a run outside of Flyte.
    """
    lock = local_flows.Locked()

    def train(x: int) -> int:
        return x if lock else 0

    train = distrib.distributed(framework="tensorflow", worker=1, local=local_flows.QUIET)(train)
    with pytest.raises(distrib.InvalidJobError, match=r"the variable lock of train\(\) cannot be sent to the replicas"):
        train.execute(x=1)
