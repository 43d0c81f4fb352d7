"""
The suites have teeth: whoever breaks a promise is told which, and by what.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import broken_backends
import broken_engines
import pytest
from broken_backends import Sound, SoundContract
from broken_engines import LocalContract
from hypothesis import assume, settings
from hypothesis import strategies as st

from distrib.testing import BackendContract, EngineContract, LawBrokenError, _law

HERE = Path(__file__).parent

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _few_examples() -> Iterator[None]:
    """
    The same few examples each time: the broken ones are broken everywhere.
    """
    before = settings()
    settings.register_profile("teeth", max_examples=30, derandomize=True, database=None)
    settings.load_profile("teeth")
    yield
    settings.register_profile("before", before)
    settings.load_profile("before")


def laws(contract: type) -> list[str]:
    """
    The names of all laws of a suite.
    """
    return [name for name in dir(contract) if name.startswith("test_")]


def contract(backend: Sound) -> SoundContract:
    """
    The suite of one backend.
    """
    return type("TestOne", (SoundContract,), {"backend": backend})()


def test_slow_examples_are_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The limit on the time for making an example smaller counts from the first that fails, not from one that was passed over.
    """
    monkeypatch.setattr(_law, "_SHRINK_SECONDS", -1.0)

    @_law.for_all(st.integers(0, 1))
    def holds(number: int) -> None:
        assume(number == 1)
        assert number == 0

    with pytest.raises(AssertionError):
        holds()


#: Laws about what is installed, as the sound ones are not.
_OF_THE_INSTALLED = ("test_found_by_its_name", "test_another_process_finds_a_run")


class TestBackends:
    @pytest.mark.parametrize("law", [law for law in laws(BackendContract) if law not in _OF_THE_INSTALLED])
    def test_a_sound_backend_keeps_every_law(self, law: str) -> None:
        """
        What the broken ones are made from breaks nothing, and leaves no law out.
        """
        getattr(contract(Sound()), law)()

    @pytest.mark.parametrize("name", broken_backends.BROKEN)
    def test_a_broken_backend_is_told_its_law(self, name: str) -> None:
        """
        The message says who has broken which law, and how.
        """
        kind = broken_backends.BROKEN[name]
        with pytest.raises(LawBrokenError, match=f"(?s){kind.said}") as caught:
            getattr(contract(kind()), kind.law)()
        promise = getattr(BackendContract, kind.law).__doc__.strip()
        assert caught.value.law == promise
        assert str(caught.value).startswith(f"{name} (framework={kind.name!r}) breaks the law: {promise}")
        assert "Traceback" not in str(caught.value)
        assert "Hypothesis" not in str(caught.value)

    def test_every_law_is_broken_by_one(self) -> None:
        """
        No law is there that nothing breaks, but for those that the core keeps for every backend.
        """
        kept_by_the_core = {"test_counts_out_of_bounds_are_refused"}
        assert set(laws(BackendContract)) - {kind.law for kind in broken_backends.BROKEN.values()} == kept_by_the_core


class TestEngines:
    @pytest.fixture(autouse=True)
    def _nothing_stays(self) -> Iterator[None]:
        """
        What a broken engine leaves behind is ended here.
        """
        yield
        for run in broken_engines.RUNS:
            run.cancel(at_once=True)
        for process in broken_engines.PROCESSES:
            process.kill()
            process.wait()
        broken_engines.RUNS.clear()
        broken_engines.PROCESSES.clear()

    @pytest.fixture(name="environment")
    def _environment(self) -> Iterator[None]:
        """
        The variables of this process are as they were afterwards.
        """
        before = dict(os.environ)
        yield
        os.environ.clear()
        os.environ.update(before)

    @pytest.fixture(name="installed")
    def _installed(self, environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A package brings the engine that is tested by its name, in other processes too.
        """
        info = tmp_path / "forgetful-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forgetful\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[distrib.engines]\nforgetful = broken_engines:ForgetsInAnotherProcess\n")
        monkeypatch.syspath_prepend(tmp_path)
        os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (tmp_path, HERE, os.environ.get("PYTHONPATH", ""))))

    @pytest.mark.parametrize("name", broken_engines.BROKEN)
    def test_a_broken_engine_is_told_its_law(self, name: str, installed: None) -> None:
        """
        The message says who has broken which law, and how; an engine that hangs does not make the suite hang.
        """
        kind = broken_engines.BROKEN[name]
        with pytest.raises(LawBrokenError, match=f"(?s){kind.said}") as caught:
            getattr(suite(kind()), kind.law)()
        promise = getattr(EngineContract, kind.law).__doc__.strip()
        assert caught.value.law == promise
        assert str(caught.value).startswith(f"{name} (engine={kind.name!r}) breaks the law: {promise}")

    @pytest.mark.parametrize("law", [law for law in laws(EngineContract) if law not in _OF_THE_INSTALLED])
    def test_a_sound_engine_keeps_every_law(self, law: str) -> None:
        """
        What the broken ones are made from breaks nothing.
        """
        getattr(suite(broken_engines.Sound()), law)()

    def test_every_law_is_broken_by_one(self) -> None:
        """
        No law is there that nothing breaks.
        """
        assert set(laws(EngineContract)) == {kind.law for kind in broken_engines.BROKEN.values()}


def suite(engine: broken_engines.Sound) -> LocalContract:
    """
    The suite of one engine.
    """
    tested = engine.name if engine.is_installed else engine
    return type("TestOne", (LocalContract,), {"engine": tested, "patience": engine.patience})()
