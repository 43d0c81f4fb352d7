"""
Flyte's own commands, on files that use the decorator.
"""

import os
import subprocess
import tarfile

import pytest
from admin import Admin
from flyteidl.admin import task_pb2
from flyteidl.core import literals_pb2
from google.protobuf.json_format import MessageToDict
from pods import FOREIGN, SCRIPTS, tf_configs

TASK = """
@distributed(framework="tensorflow", chief=1, worker=1, local={"preload": False, "echo": False}, flyte={"retries": 2})
def train(x: int) -> int:
    return x * replica().world_size
"""
FLOW = """
@workflow
def flow(x: int = 2) -> int:
    return train(x=x)
"""
#: Files in which flytekit comes first, last, or not at all.
FILES = {
    "first": f"from flytekit import workflow\nfrom distrib import distributed, replica\n{TASK}{FLOW}",
    "last": f"from distrib import distributed, replica\n{TASK}\nfrom flytekit import workflow\n{FLOW}",
    "never": f"from distrib import distributed, replica\n{TASK}",
}


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """
    A folder with the files.
    """
    folder = tmp_path / "code"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def command(*arguments, folder, **environment):
    """
    What one of Flyte's commands prints.
    """
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN and name != "PYTHONPATH"}
    path = os.pathsep.join((str(SCRIPTS), os.environ["PATH"]))
    env.update(environment, FLYTE_SDK_RICH_TRACEBACKS="0", PATH=path)
    done = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def check(spec, module, *, fast=False):
    """
    Fail unless it is what Flyte has to know of the task in *module*.
    """
    template = MessageToDict(spec.template)
    assert (template["type"], template["taskTypeVersion"]) == ("tensorflow", 1)
    assert (template["id"]["name"], template["metadata"]["retries"]) == (f"{module}.train", {"retries": 2})
    counts = {role: template["custom"][f"{role}Replicas"]["replicas"] for role in ("chief", "worker")}
    assert counts == {"chief": 1, "worker": 1}
    args = template["container"]["args"]
    assert args[0] == ("pyflyte-fast-execute" if fast else "pyflyte-execute")
    assert args[-4:] == ["task-module", module, "task-name", "train"]


@pytest.mark.parametrize(("module", "entity"), [("first", "flow"), ("last", "flow"), ("never", "train")])
def test_pyflyte_run_runs_the_replicas(folder, module, entity):
    """
    ``pyflyte run`` of a file runs the replicas here, whatever it imports first, and if it imports flytekit at all.
    """
    assert command("pyflyte", "run", f"{module}.py", entity, "--x", "4", folder=folder).splitlines()[-1] == "8"


@pytest.mark.parametrize("copy", [(), ("--copy", "auto")], ids=["in the image", "copied"])
def test_pyflyte_package_has_the_task(folder, copy):
    """
    ``pyflyte package`` writes the tasks of all files, with the code beside them if it is told to copy it.
    """
    packages = [part for name in FILES for part in ("--pkgs", name)]
    command("pyflyte", *packages, "package", "--image", "repo/train:1", "--source", ".", "--output", "flow.tgz", *copy, folder=folder)
    with tarfile.open(folder / "flow.tgz") as packed:
        names = [name for name in packed.getnames() if name.endswith("_1.pb")]
        specs = [task_pb2.TaskSpec.FromString(packed.extractfile(name).read()) for name in names]
        code = [name for name in packed.getnames() if name.endswith(".tar.gz")]
    assert len(code) == bool(copy)
    assert sorted(spec.template.id.name for spec in specs) == ["first.train", "last.train", "never.train"]
    for spec in specs:
        check(spec, spec.template.id.name.partition(".")[0], fast=bool(copy))
        assert spec.template.container.image == "repo/train:1"


def test_pyflyte_register_finds_the_task(folder, tmp_path):
    """
    ``pyflyte register`` finds the tasks and workflows of all files: tried with its dry run, and then for real.
    """
    with Admin(tmp_path) as admin:
        arguments = ("register", "--project", "p", "--image", "repo/train:1", *(f"{name}.py" for name in FILES))
        said = command("pyflyte", "--config", str(admin.config), *arguments, "--dry-run", folder=folder)
        for name in ("first.train", "last.train", "never.train"):
            assert f"Task: {name} (Dry run Mode)" in said
        assert not admin.tasks
        command("pyflyte", "--config", str(admin.config), *arguments, folder=folder)
    assert set(admin.workflows) == set(admin.plans) == {"first.flow", "last.flow"}
    assert set(admin.tasks) == {"first.train", "last.train", "never.train"}
    for request in admin.tasks.values():
        check(request.spec, request.id.name.partition(".")[0], fast=True)


def pods_of(container, folder, inputs):
    """
    Run the pods of a task as a cluster does: each in a folder of its own, with what the operator gives it; what Flyte reads afterwards.
    """
    (folder / "inputs.pb").write_bytes(inputs.SerializeToString())
    places = {
        "{{.input}}": str(folder / "inputs.pb"),
        "{{.outputPrefix}}": str(folder / "outputs"),
        "{{.rawOutputDataPrefix}}": str(folder / "raw"),
        "{{.checkpointOutputPrefix}}": str(folder / "checkpoint"),
        "{{.prevCheckpointPrefix}}": '""',
    }
    args = [places.get(part, part) for part in container.args]
    for name, config in tf_configs(chief=1, worker=1).items():
        (folder / name).mkdir()
        given = {pair.key: pair.value for pair in container.env}
        command(*args, folder=folder / name, TF_CONFIG=config, FLYTE_INTERNAL_EXECUTION_ID="f0", FLYTE_ATTEMPT_NUMBER="0", **given)
    return {path.name for path in (folder / "outputs").iterdir()}


@pytest.mark.parametrize(("module", "entity"), [("first", "flow"), ("never", "train")])
def test_pyflyte_run_remote_sends_it_and_pods_run_it(folder, tmp_path, module, entity):
    """
    ``pyflyte run --remote`` registers the task, sends the code and asks for the execution; what it has sent, the pods then run: they
    fetch the code, find the task in it, and the chief's value is the output.
    """
    with Admin(tmp_path) as admin:
        arguments = ("run", "--remote", "--project", "p", "--image", "repo/train:1", f"{module}.py", entity, "--x", "5")
        command("pyflyte", "--config", str(admin.config), *arguments, folder=folder)
    assert set(admin.tasks) == {f"{module}.train"}
    spec = admin.tasks[f"{module}.train"].spec
    check(spec, module, fast=True)
    [execution] = admin.executions
    assert execution.spec.launch_plan.name == f"{module}.{entity}"
    assert execution.inputs.literals["x"].scalar.primitive.integer == 5

    assert pods_of(spec.template.container, tmp_path, execution.inputs) == {"outputs.pb"}
    value = literals_pb2.LiteralMap.FromString((tmp_path / "outputs" / "outputs.pb").read_bytes()).literals["o0"]
    assert value.scalar.primitive.integer == 10
