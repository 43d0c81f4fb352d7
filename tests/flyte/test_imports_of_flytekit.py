"""
Whichever is imported first, flytekit or we: the tasks are the same.
"""

import subprocess
import sys
import textwrap

import pytest

DECORATE = """
from distrib import distributed, replica

@distributed(framework="tensorflow", worker=2, local={"preload": False, "echo": False})
def train(x: int) -> int:
    return x * replica().world_size
"""
#: What holds of a task of Flyte's.
IS_ONE = """
from flytekit.core.base_task import PythonTask
from flytekit.core.context_manager import FlyteEntities
from flytekit.core.python_function_task import PythonFunctionTask
from distrib import DistributedTask

assert isinstance(train, (PythonFunctionTask, PythonTask)) and isinstance(train, DistributedTask), type(train)
assert [entity for entity in FlyteEntities.entities if entity is train] == [train], FlyteEntities.entities
assert train.name == "own.train", train.name
assert train.python_interface.inputs == {"x": int}
assert train.instantiated_in == "own"
"""
CALLED = """
from flytekit import workflow
import own

@workflow
def flow(x: int) -> int:
    return own.train(x=x)

assert flow(x=3) == 6
assert own.train(4) == 8
"""
#: As if we had been put on the path, and not installed: flytekit then does not know of us.
UNINSTALLED = """
import importlib.metadata
found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **of: () if of.get("group") == "flytekit.plugins" else found(**of)
"""


@pytest.fixture(name="run")
def _run(tmp_path):
    """
    Run code in a fresh interpreter, in a folder with the module ``own``.
    """

    def run(own, code):
        (tmp_path / "own.py").write_text(own)
        (tmp_path / "program.py").write_text(textwrap.dedent(code))
        done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.parametrize(
    ("own", "before", "after"),
    [
        (f"import flytekit\n{DECORATE}", "", ""),
        (f"{DECORATE}\nimport flytekit\n", "", ""),
        (f"import distrib\nimport flytekit\n{DECORATE}", "", ""),
        (DECORATE, "import flytekit", ""),
        (DECORATE, "", "import flytekit"),
        (DECORATE, "", "from flytekit.core.task import task"),
        (DECORATE, "import distrib._flyte", ""),
    ],
    ids=[
        "flytekit first",
        "flytekit last",
        "flytekit between",
        "flytekit outside",
        "flytekit afterwards",
        "a part of flytekit",
        "our plug-in",
    ],
)
def test_any_order_makes_a_task(run, own, before, after):
    """
    A decorated function is a task of flytekit's as soon as flytekit is imported: an instance, registered, named by its module.
    """
    run(own, f"{before}\nfrom own import train\n{after}\n{IS_ONE}\n{CALLED}")


@pytest.mark.parametrize("use", ["train.name", "train.python_interface", "train.find_lhs()", "train.pod_template", "flow(x=1)"])
def test_not_installed_it_becomes_one_when_used(run, use):
    """
    Where flytekit does not load us, because we are only on the path, a task becomes Flyte's by the first use in Flyte.
    """
    unloaded = "import sys; assert 'distrib._flyte' not in sys.modules"
    flow = "from flytekit import workflow\n@workflow\ndef flow(x: int) -> int:\n    return train(x=x)\n"
    run(
        DECORATE,
        f"{UNINSTALLED}from own import train\nimport flytekit\n{unloaded}\n{flow}\n{use}\n{IS_ONE}",
    )


@pytest.mark.parametrize("first", ["flytekit", "distrib"])
def test_job_is_a_task_config(run, first):
    """
    flytekit's own decorator makes one of ours of a Job, whichever is imported first.
    """
    imports = {
        "flytekit": "import flytekit\nfrom distrib import Job, replica\n",
        "distrib": "from distrib import Job, replica\nimport flytekit\n",
    }
    task = '@flytekit.task(task_config=Job("tensorflow", worker=2, local={"preload": False, "echo": False}))\n'
    run(
        f"{imports[first]}\n{task}def train(x: int) -> int:\n    return x * replica().world_size\n",
        f"from own import train\n{IS_ONE}\n{CALLED}",
    )


def test_flytekit_is_never_imported_by_us(run):
    """
    Importing us, decorating, looking at the task, planning, running it, copying and pickling it leave flytekit where it is.
    """
    code = """
        import cloudpickle, sys
        import distrib
        from own import train
        assert train(2) == 4
        train.plan(1), repr(train), train.options(worker=1)(1), train.on("local", echo=False), cloudpickle.dumps(train), dir(train)
        for name in ("name", "task_function", "find_lhs", "no_such_thing", "__wrapped_by__"):
            assert not hasattr(train, name), name
        assert distrib.Job("tensorflow", worker=1, flyte={"retries": 2}).engine_options["flyte"] == {"retries": 2}
        loaded = [name for name in sys.modules if name.partition(".")[0] == "flytekit"]
        assert not loaded, loaded
    """
    run(DECORATE.replace("local={", 'flyte={"retries": 2, "timeout": 60}, local={'), code)


def test_replicas_import_flytekit_only_with_the_module(run):
    """
    The replicas of a local run have flytekit only if the module of the function imports it.
    """
    own = DECORATE.replace("return x * replica().world_size", "import sys; return int('flytekit' in sys.modules)")
    run(own, "import own, flytekit\nassert own.train(1) == 0\nimport sys; assert 'flytekit' in sys.modules")


def test_what_is_no_task_stays_usable(run):
    """
    What Flyte does not take runs as it did, and says why it is no task when it is asked for what only tasks have.
    """
    own = """
import flytekit
from distrib import Command, distributed

decorate = distributed(framework="tensorflow", worker=1, local={"preload": False, "echo": False})

@decorate
def untyped(x):
    return x

def outer():
    @decorate
    def inner(x: int) -> int:
        return x
    return inner

class Trainer:
    @decorate
    def method(self, x):
        return x

def inward(x: int) -> int:
    return x

inward.__wrapped__ = inward
inward = decorate(inward)
anonymous = decorate(lambda x: x)
command = decorate(Command(["true"]))
"""
    code = """
        import own
        from flytekit.core.base_task import PythonTask
        from flytekit.core.context_manager import FlyteEntities
        tasks = {"untyped": own.untyped, "inner": own.outer(), "method": own.Trainer().method}
        tasks |= {"anonymous": own.anonymous, "inward": own.inward}
        for name, task in tasks.items():
            assert not isinstance(task, PythonTask), name
            assert task(1) == 1, name
        assert own.command() is None
        assert not [entity for entity in FlyteEntities.entities if "own" in getattr(entity, "_name", "")]
        try:
            own.untyped.task_function
        except AttributeError as error:
            assert "untyped() cannot be a task of Flyte: 'x' has no type" in str(error), error
        else:
            raise AssertionError
        from flytekit import workflow

        @workflow
        def flow() -> int:
            return own.untyped(x=1)

        try:
            flow()
        except Exception as error:
            assert "untyped() cannot be a task of Flyte" in str(error), error
        else:
            raise AssertionError
    """
    run(own, code)


def test_settings_for_flyte_are_checked_at_once(run):
    """
    A function that Flyte does not take is refused when it is decorated, if it has settings for Flyte.
    """
    own = "import flytekit\nfrom distrib import distributed\n"
    code = """
        import own
        from distrib import InvalidJobError, distributed
        for wrong in ({"retries": 2}, {}):
            try:
                @distributed(framework="tensorflow", worker=1, flyte=wrong)
                def untyped(x):
                    return x
            except InvalidJobError as error:
                assert "untyped() cannot be a task of Flyte: 'x' has no type" in str(error), error
            else:
                raise AssertionError
    """
    run(own, code)
