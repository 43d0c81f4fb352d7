"""
What is installed is what was promised.
"""

import os
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution, metadata, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import distrib

ROOT = Path(__file__).parent.parent


def test_version_is_the_metadata() -> None:
    """
    ``distrib.__version__`` is the version that was installed.
    """
    assert distrib.__version__ == version("distrib")


def test_public_names_exist() -> None:
    """
    Each name of ``__all__`` can be had, and ``dir``, which completes them at a prompt, shows these alone.
    """
    for name in distrib.__all__:
        assert getattr(distrib, name) is not None
    assert dir(distrib) == sorted(distrib.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    """
    A name that is not there is refused as in any module.
    """
    with pytest.raises(AttributeError, match="distribute"):
        distrib.distribute  # noqa: B018


def test_core_needs_only_four_packages() -> None:
    """
    Whoever installs the core gets four small packages, and no framework.
    """
    needed = [line for line in requires("distrib") or [] if "extra ==" not in line]
    assert {line.partition(">")[0] for line in needed} == {"attrs", "cattrs", "cloudpickle", "platformdirs"}


def test_licence_and_types_are_declared() -> None:
    """
    The licence is Apache-2.0, and the package says that it is typed.
    """
    assert metadata("distrib")["License-Expression"] == "Apache-2.0"
    assert (Path(distrib.__file__).parent / "py.typed").is_file()


def test_classifiers_say_what_is_supported() -> None:
    """
    The interpreter that runs the tests is one of those declared.
    """
    declared = metadata("distrib").get_all("Classifier")
    assert declared is not None
    assert f"Programming Language :: Python :: {sys.version_info.major}.{sys.version_info.minor}" in declared


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """
    The wheel holds each module, ``py.typed`` and the licence; no tests, no benches.
    """
    builder = pytest.importorskip("hatchling.builders.wheel", reason="the build tool is not installed here").WheelBuilder
    (path,) = builder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(path).namelist()
    modules = {f"distrib/{path.relative_to(ROOT / 'src/distrib')}" for path in (ROOT / "src/distrib").rglob("*.py")}
    assert modules <= set(names)
    assert "distrib/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("distrib/", "distrib-")) for name in names)


def with_its_needs(name: str) -> set[str]:
    """
    What is installed together with a package, extras left out.
    """
    needed = [Requirement(line) for line in requires(name) or []]
    here = [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {name}.union(*map(with_its_needs, here))


@pytest.fixture(name="bare")
def _bare(tmp_path: Path) -> Path:
    """
    The interpreter of a fresh environment that has the core, what the core needs, and a framework that needs nothing.
    """
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    (site / "distrib").symlink_to(Path(distrib.__file__).parent)
    for name in with_its_needs("distrib"):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__", "distrib"}:
            (site / top).symlink_to(Path(str(installed.locate_file(top))))
    (site / "plain.py").write_text(PLAIN)
    (site / "plain-1.0.dist-info").mkdir()
    (site / "plain-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1.0\n")
    (site / "plain-1.0.dist-info" / "entry_points.txt").write_text("[distrib.backends]\nplain = plain:PlainBackend\n")
    return tmp_path / "env" / "bin" / "python"


PLAIN = """
from distrib.backend import Backend, Role

class PlainBackend(Backend):
    name = "plain"
    roles = (Role("worker"),)

    def environment(self, replica, cluster):
        return {"RANK": str(replica.rank)}
"""

PROGRAM = """
import os, sys
import distrib

def train(number):
    return number + int(os.environ["RANK"])

started = []
sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.fork", "os.posix_spawn") else None)
for framework in ("tensorflow", "pytorch", "jax"):
    job = distrib.distributed(framework, worker=2)(train)
    print(len(job.plan(1).processes))
    try:
        job(1)
    except distrib.MissingDependencyError as error:
        print(error)
print(started, os.path.exists(os.environ["DISTRIB_STATE_DIR"]))
print(list(distrib.distributed("plain", worker=2, local={"echo": False})(train).submit(40).results(100)))
"""


def test_the_core_alone(bare: Path, tmp_path: Path) -> None:
    """
    With the core alone every framework can be planned for, one that is absent is told with the line that installs it before
    anything starts, and one that needs no package runs.
    """
    environment = {**os.environ, "DISTRIB_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": ""}
    done = subprocess.run([bare, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    said = "framework={!r} needs the package {!r}, which is not installed. Install it with: python -m pip install 'distrib[{}]'"
    absent = [("tensorflow", "tensorflow"), ("pytorch", "torch"), ("jax", "jax")]
    expected = [line for framework, module in absent for line in ("2", said.format(framework, module, framework))]
    assert done.stdout.splitlines() == [*expected, "[] False", "[40, 41]"]
