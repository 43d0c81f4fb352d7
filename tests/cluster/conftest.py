"""
The end-to-end suite: what KUBECONFIG points to, and the image that its pods run.

``nox -s cluster -- --image repo/train:1``; without an image there is nothing to be tested here.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from outside import Cluster, until

HERE = Path(__file__).parent

#: Option of pytest -> the variable that says the same, and what it is.
OPTIONS = {
    "--image": ("DISTRIB_TEST_IMAGE", "the image of the pods: Python, distrib and the frameworks"),
    "--namespace": ("DISTRIB_TEST_NAMESPACE", "a namespace to use; without one, a new namespace is made, and deleted at the end"),
    "--pod-patch": ("DISTRIB_TEST_POD_PATCH", "what all pods need on this cluster: JSON, or the path of a file with it"),
    "--restart-api": ("DISTRIB_TEST_RESTART_API", "a program that restarts the API server, where nobody else uses the cluster"),
    "--storage": ("DISTRIB_TEST_STORAGE", "a URL or path that this machine and the pods can write to, for what is large"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    How the cluster is told.
    """
    group = parser.getgroup("cluster")
    for option, (variable, what) in OPTIONS.items():
        group.addoption(option, default=os.environ.get(variable), help=f"{what} (or {variable})")


def said(config: pytest.Config, option: str) -> str | None:
    """
    What an option, or else its variable, says.
    """
    return config.getoption(option, default=None) or os.environ.get(OPTIONS[option][0])


def pytest_configure(config: pytest.Config) -> None:
    """
    Whoever asks for these tests has to say what the pods run.
    """
    # Of the official client's own making, in its older versions.
    config.addinivalue_line("filterwarnings", "ignore:HTTPResponse.getheader")
    asked = any(HERE.samefile(path) or HERE in path.resolve().parents for path in map(Path, config.args) if path.exists())
    if asked and said(config, "--image") is None:
        raise pytest.UsageError("which image? Write --image NAME, or set DISTRIB_TEST_IMAGE: it needs Python, distrib and the frameworks.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """
    Without an image nothing here can run: other sessions do not even read these tests.
    """
    if said(config, "--image") is None and HERE in collection_path.parents:
        return True
    return None


def pytest_runtest_setup() -> None:
    """
    Where CI's time is over, what has not begun is left for the next time.
    """
    if time.time() > float(os.environ.get("DISTRIB_CI_ENDS", "inf")):
        pytest.skip("CI's time is over: DISTRIB_CI_ENDS")


def _patch(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    found: dict[str, Any] = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    return found


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """
    The cluster, with a namespace for these tests.
    """
    from kubernetes import client, config

    config.load_config()
    given = said(request.config, "--namespace")
    name = given or f"distrib-test-{secrets.token_hex(3)}"
    if not given:
        client.CoreV1Api().create_namespace({"metadata": {"name": name}})
        until(lambda: client.CoreV1Api().list_namespaced_service_account(name).items or None, "the namespace's service account")
    patch = _patch(said(request.config, "--pod-patch"))
    yield Cluster(
        namespace=name,
        image=str(said(request.config, "--image")),
        pod_patch=patch,
        storage=said(request.config, "--storage"),
        folder=tmp_path_factory.mktemp("cluster"),
    )
    if not given:
        client.CoreV1Api().delete_namespace(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """
    The figures that were measured.
    """
    figures = sys.modules.get("test_figures")
    for line in getattr(figures, "FIGURES", []):
        terminalreporter.write_line(line)
