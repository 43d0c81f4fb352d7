"""
What the tests of the Kubernetes engine share: a server that stands in for a cluster's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from stage import Stage, ours
from standin import StandIn, eventually

from distrib._registry import engines
from distrib.errors import EngineError

pytest.importorskip("kubernetes")


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    For whoever has changed on purpose what is rendered.
    """
    parser.addoption("--remake", action="store_true", help="write tests/data/manifests anew, to be read before it is kept")


@pytest.fixture(name="standin")
def _standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """
    A server, to which KUBECONFIG leads.
    """
    standin = StandIn()
    monkeypatch.setenv("KUBECONFIG", standin.kubeconfig(tmp_path / "kubeconfig"))
    for variable in ("KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    yield standin
    standin.close()


@pytest.fixture(name="stage")
def _stage(standin: StandIn) -> Iterator[Stage]:
    """
    An engine that runs on it.
    """
    stage = Stage(standin)
    with engines.standing_in("kubernetes", stage.engine):
        yield stage
    # What a test has left running would go on in the next one.
    for run in stage.runs:
        with suppress(EngineError):
            run.cancel(at_once=True)
    eventually(lambda: not ours())
