"""
Backends and engines are found by name, and only by whoever uses that name.
"""

import pickle
import subprocess
import sys

import pytest

from distrib._registry import Registry, backend_names, backends, engine_names, engines, get_backend, get_engine
from distrib.backend import Backend
from distrib.engine import Engine
from distrib.errors import UnknownBackendError, UnknownEngineError


@pytest.fixture(name="registry")
def _registry():
    """
    A table of its own, which has seen nothing yet.
    """
    return Registry(
        kind="framework",
        group="distrib.backends",
        built_in={"tensorflow": "distrib.backends.tensorflow:TensorFlowBackend"},
        base=lambda: Backend,
        unknown=UnknownBackendError,
    )


class TestNames:
    def test_built_in_and_installed_names_are_one_table(self):
        """
        Built-in names come first, then those of other packages in order.
        """
        assert backend_names()[0] == "tensorflow"
        assert backend_names()[-2:] == ("bare", "gossip")
        assert engine_names()[0] == "local"
        assert engine_names()[-1] == "paper"

    def test_a_registry_is_a_container_of_names(self, registry):
        """
        It can be asked, listed, counted and shown.
        """
        assert "gossip" in registry
        assert "gosip" not in registry
        assert 3 not in registry
        assert list(registry) == ["tensorflow", "bare", "gossip"]
        assert len(registry) == 3
        assert repr(registry) == "<frameworks: tensorflow, bare, gossip>"

    def test_nothing_can_be_put_into_it(self, registry):
        """
        Names come from packages that are installed, not from being set.
        """
        with pytest.raises(TypeError):
            registry["mine"] = Backend


class TestObjects:
    @pytest.mark.parametrize("name", ["tensorflow", "gossip", "bare"])
    def test_a_backend_is_made_once(self, name):
        """
        The same name gives the same object.
        """
        assert get_backend(name) is get_backend(name) is backends[name]
        assert isinstance(get_backend(name), Backend)
        assert get_backend(name).name == name

    def test_an_engine_is_made_once(self):
        """
        Engines are found as backends are.
        """
        assert get_engine("paper") is get_engine("paper") is engines["paper"]
        assert isinstance(get_engine("paper"), Engine)

    def test_a_package_installed_meanwhile_is_found(self, registry, distribution, monkeypatch):
        """
        A name that was not there a moment ago is looked for again.
        """
        with pytest.raises(UnknownBackendError):
            registry["late"]
        source = "from distrib_gossip import BareBackend\nclass Late(BareBackend):\n    name = 'late'\n"
        monkeypatch.syspath_prepend(distribution("late", "[distrib.backends]\nlate = late_backend:Late\n", late_backend=source))
        assert "late" in registry
        assert registry["late"].name == "late"

    def test_an_object_stands_in_for_a_name(self, registry):
        """
        For a while a name means an object, installed or not; whatever is installed can still be had.
        """
        installed, mine, other = registry["gossip"], type(registry["bare"])(), type(registry["bare"])()
        with registry.standing_in("mine", mine), registry.standing_in("gossip", other):
            assert registry["mine"] is mine
            assert registry["gossip"] is other
            assert registry.installed("gossip") is installed
            assert "mine" in registry
            assert list(registry) == ["tensorflow", "bare", "gossip", "mine"]
        assert registry["gossip"] is installed
        with pytest.raises(UnknownBackendError):
            registry["mine"]


class TestFaults:
    def test_an_unknown_name_lists_the_others(self):
        """
        The error has all names, and the nearest.
        """
        with pytest.raises(
            UnknownBackendError, match=r"framework='gosip': no such framework\. Did you mean 'gossip'\? Legal: tensorflow, .*bare"
        ):
            get_backend("gosip")
        with pytest.raises(UnknownEngineError, match=r"engine='locale': .*Did you mean 'local'\? Legal: local, .*paper\."):
            get_engine("locale")

    @pytest.mark.parametrize(
        ("name", "source", "said"),
        [
            ("absent", None, "package 'faulty-absent' brings it as 'faulty_absent:B', which cannot be loaded: ModuleNotFoundError"),
            ("broken", "raise OSError('no disk')", "OSError: no disk"),
            ("nothing", "", "AttributeError"),
            ("thing", "B = 3", "3 is no Backend"),
            ("unrelated", "class B: ...", "is no Backend"),
            ("abstract", "from distrib.backend import Backend as B", r"Backend\(\) raised TypeError"),
            ("wrong", "from distrib_gossip import BareBackend as B", "calls itself 'bare'"),
            ("exits", "class B:\n    def __init__(self): 1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_a_faulty_package_is_named_when_its_name_is_used(self, registry, distribution, monkeypatch, name, source, said):
        """
        What is wrong with one package is an error for that name, and for no other.
        """
        modules = {} if source is None else {f"faulty_{name}": source}
        folder = distribution(f"faulty-{name}", f"[distrib.backends]\n{name} = faulty_{name}:B\n", **modules)
        monkeypatch.syspath_prepend(folder)
        assert name in registry
        with pytest.raises(UnknownBackendError, match=said) as caught:
            registry[name]
        assert str(caught.value).startswith(f"framework='{name}': ")
        assert registry["gossip"].name == "gossip"

    def test_a_name_given_twice_names_both_packages(self, registry, distribution, monkeypatch):
        """
        Which of two packages is meant is not guessed.
        """
        for package in ("one", "other"):
            monkeypatch.syspath_prepend(distribution(package, "[distrib.backends]\ntwice = nowhere:B\n"))
        with pytest.raises(
            UnknownBackendError, match=r"framework='twice': package 'o\w+' and package 'o\w+' both .* uninstall one of them"
        ):
            registry["twice"]
        assert registry["gossip"].name == "gossip"

    def test_a_built_in_name_stays(self, registry, distribution, monkeypatch, caplog):
        """
        An entry point cannot take a built-in name; whoever looks through the names is told, whoever uses that one is not bothered.
        """
        monkeypatch.syspath_prepend(distribution("usurper", "[distrib.backends]\ntensorflow = nowhere:B\n"))
        assert type(registry["tensorflow"]).__name__ == "TensorFlowBackend"
        assert not caplog.messages
        assert list(registry).count("tensorflow") == 1
        assert caplog.messages == ["package 'usurper' brings framework='tensorflow', which is built in and stays."]

    def test_our_own_entry_points_are_no_clash(self, registry, distribution, monkeypatch):
        """
        Our own package may list its built-in classes as entry points too.
        """
        same = "[distrib.backends]\ntensorflow = distrib.backends.tensorflow:TensorFlowBackend\n"
        monkeypatch.syspath_prepend(distribution("same", same))
        assert list(registry).count("tensorflow") == 1


def test_built_in_names_need_no_search():
    """
    A job with built-in names imports neither importlib.metadata nor the engine's nor the framework's code.
    """
    heavy = ("importlib.metadata", "tensorflow", "distrib.engines.local", "cattrs", "decimal")
    lines = [
        "import sys; before = set(sys.modules)",
        "from distrib._job import Job",
        "Job('tensorflow', worker=2, engine='local', local={'echo': False})",
        f"print(*[name for name in {heavy} if name in set(sys.modules) - before])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_backends_are_pickled_by_what_they_are():
    """
    A backend goes to another process and back.
    """
    assert type(pickle.loads(pickle.dumps(get_backend("gossip")))) is type(get_backend("gossip"))
