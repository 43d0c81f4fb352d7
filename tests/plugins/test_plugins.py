"""
Packages of other people, built and installed: found, run, held to the same suites, and reported by name when they are broken.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import distrib

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEMPLATE = ROOT / "examples" / "own_backend"

pytestmark = pytest.mark.slow


class Environment:
    """
    A fresh environment. What it does not have itself it takes from the one that runs the tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        venv.create(folder, symlinks=True)
        outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(distrib.__file__).parent.parent)}
        lines = [f"import site; site.addsitedir({path!r})" for path in sorted(outer)]
        (self.site / "outer.pth").write_text("\n".join(lines))

    @property
    def site(self) -> Path:
        """
        Where packages go.
        """
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def install(self, *packages: Path) -> None:
        """
        Build and install packages, with nothing from anywhere else.
        """
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python)]
        self._run([*pip, "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", *map(str, packages)])

    def run(self, code: str) -> str:
        """
        What a program prints.
        """
        return self._run([str(self.python), "-c", code])

    def pytest(self, path: Path, *more: str, code: int = 0) -> str:
        """
        What pytest says about a module of tests, outside of our own tree and settings.
        """
        copy = shutil.copy(path, self.folder)
        options = ["-q", "-ra", "-W", "error", "--strict-markers", "-p", "no:cacheprovider", f"--rootdir={self.folder}", *more]
        return self._run([str(self.python), "-m", "pytest", *options, str(copy)], code)

    def _run(self, command: list[str], code: int = 0) -> str:
        environment = {**os.environ, "DISTRIB_STATE_DIR": str(self.folder / "state"), "PYTHONPATH": ""}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


def environment(folder: Path) -> Environment:
    """
    A fresh environment, if the tools to install something into it are here.
    """
    for tool in ("pip", "hatchling"):
        pytest.importorskip(tool, reason=f"{tool} is not installed here")
    return Environment(folder)


class TestSound:
    @pytest.fixture(scope="class", name="sound")
    @staticmethod
    def _sound(tmp_path_factory: pytest.TempPathFactory) -> Environment:
        """
        Ours, a backend, and an engine.
        """
        made = environment(tmp_path_factory.mktemp("sound"))
        made.install(ROOT, TEMPLATE, HERE / "relay")
        return made

    def test_they_are_found_by_their_names(self, sound: Environment) -> None:
        """
        The names of other people's packages are beside the built-in ones, and nothing of theirs is imported for that.
        """
        code = """
import sys
from distrib._registry import backend_names, engine_names
print("gossip" in backend_names(), "tensorflow" in backend_names(), "relay" in engine_names(), "local" in engine_names())
print([name for name in sys.modules if name.startswith("distrib_")])
import distrib
print(distrib.__file__)
"""
        names, imported, place = sound.run(code).splitlines()
        assert names == "True True True True"
        assert imported == "[]"
        assert Path(place).is_relative_to(sound.site)

    def test_they_run(self, sound: Environment) -> None:
        """
        Somebody's backend runs on somebody else's engine.
        """
        code = """
import os
from distrib import distributed, get_run

@distributed(framework="gossip", seed=1, peer=2, fan_out=2, engine="relay", relay={"grace_period": 5})
def listen() -> tuple[str, int, str]:
    return os.environ["GOSSIP_RANK"], len(os.environ["GOSSIP_PEERS"].split(",")), os.environ["GOSSIP_FAN_OUT"]

if __name__ == "__main__":
    run = listen.submit()
    print(run.result(60), list(run.results()))
    print(get_run(run.id).result() == run.result(), run.id.partition("://")[0])
"""
        values, found = sound.run(code).splitlines()
        assert values == "('0', 3, '2') [('0', 3, '2'), ('1', 3, '2'), ('2', 3, '2')]"
        assert found == "True relay"

    def test_the_backend_passes_the_contract(self, sound: Environment) -> None:
        """
        The template's own tests pass as they are, warnings being errors and markers strict.
        """
        said = sound.pytest(TEMPLATE / "test_gossip.py")
        assert "passed" in said
        assert "failed" not in said

    def test_the_engine_passes_the_contract(self, sound: Environment) -> None:
        """
        So do those of an engine; another process finds its runs too.
        """
        said = sound.pytest(HERE / "relay" / "test_relay.py")
        assert "passed" in said
        assert "skipped" not in said

    def test_a_broken_law_is_shown(self, sound: Environment, tmp_path: Path) -> None:
        """
        Pytest's report has who broke which law, how, and the example.
        """
        test = tmp_path / "test_forgetful.py"
        test.write_text(FORGETFUL)
        said = sound.pytest(test, "-k", "apart or same", code=1)
        shown = [line.removeprefix("E").strip() for line in said.splitlines() if line.startswith("E ")]
        law = "Each replica of a cluster of several is told apart from all others by its environment."
        assert f"distrib.testing.LawBrokenError: Forgetful (framework='gossip') breaks the law: {law}" in shown
        assert any(line.startswith("peer-0 and peer-1 are both given {'GOSSIP_PEERS': ") for line in shown)
        assert any(line.startswith("cluster=ClusterSpec({'peer': (") for line in shown)

    def test_options_are_refused_in_the_words_of_jobs(self, sound: Environment) -> None:
        """
        Whatever the validators of somebody's options raise, the user reads of an invalid job.
        """
        code = """
from distrib import InvalidJobError, Job, distributed
for keywords in ({"peer": 2, "fan_out": "x"}, {"peer": 2, "relay": {"grace_period": "x"}}, {"peer": 2, "relay": {"grace_perod": 1}}):
    try:
        distributed("gossip", **keywords)
    except InvalidJobError as error:
        print(error)
"""
        backends, engines, unknown = sound.run(code).splitlines()
        assert backends.startswith("options={'fan_out': 'x'}: TypeError: (\"'fan_out' must be <class 'int'>")
        assert engines.startswith("relay={'grace_period': 'x'}: TypeError: (\"'grace_period' must be")
        assert unknown.startswith("relay.grace_perod=1: no such option. Did you mean 'grace_period'?")


#: The tests of a backend that forgets to tell replicas apart.
FORGETFUL = """
from distrib.testing import BackendContract
from distrib_gossip import GossipBackend


class Forgetful(GossipBackend):
    def environment(self, replica, cluster):
        return {"GOSSIP_PEERS": ",".join(each.address for each in cluster.replicas)}


class TestForgetful(BackendContract):
    backend = Forgetful()
"""

#: Prints what using each name leads to.
USE = """
import sys
import warnings
from distrib import distributed
from distrib._registry import get_backend, get_engine

warnings.simplefilter("error")
for get, name in [(get_backend, name) for name in {backends}] + [(get_engine, name) for name in {engines}]:
    try:
        print(name, type(get(name)).__name__)
    except Exception as error:
        print(name, f"{{type(error).__name__}}: {{error}}")
"""


class TestCrowd:
    @pytest.fixture(scope="class", name="crowd")
    @staticmethod
    def _crowd(tmp_path_factory: pytest.TempPathFactory) -> Environment:
        """
        The same, with packages beside them that are broken, alike, or greedy.
        """
        made = environment(tmp_path_factory.mktemp("crowd"))
        made.install(ROOT, TEMPLATE, *(HERE / name for name in ("relay", "broken", "twin_one", "twin_other", "usurper")))
        return made

    def use(self, crowd: Environment, *, backends: tuple[str, ...] = (), engines: tuple[str, ...] = ()) -> dict[str, str]:
        """
        Name -> what using it leads to.
        """
        said = crowd.run(USE.format(backends=backends, engines=engines))
        return dict(line.split(" ", 1) for line in said.splitlines())

    def test_each_broken_one_is_reported_by_name(self, crowd: Environment) -> None:
        """
        Whoever uses a name that is broken is told the package, and what is wrong with it.
        """
        said = self.use(crowd, backends=("absent", "nothing", "number", "misnamed", "unfinished"))
        assert all(text.startswith(f"UnknownBackendError: framework={name!r}: ") for name, text in said.items())
        absent = "package 'distrib-broken' brings it as 'distrib_absent:AbsentBackend', which cannot be loaded: ModuleNotFoundError"
        assert absent in said["absent"]
        assert "AttributeError: module 'distrib_broken' has no attribute 'NothingBackend'" in said["nothing"]
        assert "3 is no Backend" in said["number"]
        assert "calls itself 'renamed'; name and entry point have to agree" in said["misnamed"]
        assert "UnfinishedBackend() raised TypeError" in said["unfinished"]

    def test_each_broken_engine_is_reported_by_name(self, crowd: Environment) -> None:
        """
        So it is with engines.
        """
        said = self.use(crowd, engines=("absent", "wrong"))
        assert all(text.startswith(f"UnknownEngineError: engine={name!r}: ") for name, text in said.items())
        assert "cannot be loaded: ModuleNotFoundError" in said["absent"]
        assert "is no Engine" in said["wrong"]

    def test_two_of_a_name_are_both_named(self, crowd: Environment) -> None:
        """
        Which of two is meant is not guessed: the error names both packages.
        """
        said = self.use(crowd, backends=("twin",))["twin"]
        assert "'distrib-twin-one'" in said
        assert "'distrib-twin-other'" in said
        assert "uninstall one of them" in said

    def test_built_in_names_stay(self, crowd: Environment) -> None:
        """
        A package cannot take a built-in name; whoever lists the names is told that it tries.
        """
        said = self.use(crowd, backends=("tensorflow",), engines=("local",))
        assert said == {"tensorflow": "TensorFlowBackend", "local": "LocalEngine"}
        code = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from distrib._registry import backend_names, engine_names
print(backend_names().count("tensorflow"), engine_names().count("local"))
"""
        *told, counts = crowd.run(code).splitlines()
        assert counts == "1 1"
        assert "package 'distrib-usurper' brings framework='tensorflow', which is built in and stays." in told
        assert "package 'distrib-usurper' brings engine='local', which is built in and stays." in told

    def test_the_sound_ones_do_not_notice(self, crowd: Environment) -> None:
        """
        Beside all of these, the sound backend and the sound engine are found, drawn from, and run.
        """
        code = """
from hypothesis import given, settings
from distrib import Job, distributed, replica
from distrib.testing.strategies import jobs

@settings(max_examples=5, deadline=None, database=None)
@given(jobs("gossip"))
def check(job: Job) -> None:
    assert job.framework == "gossip"

@distributed(framework="gossip", peer=2, engine="relay")
def name() -> str:
    return replica().name

if __name__ == "__main__":
    check()
    print(name())
"""
        assert crowd.run(code).strip() == "peer-0"
