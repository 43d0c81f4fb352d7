"""
What the tests of the Kubernetes engine share: a server that stands in for a cluster's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from standin import StandIn

pytest.importorskip("kubernetes")


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
