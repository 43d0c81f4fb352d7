"""
What every engine promises, on the cluster: the same suite as the local engine's.
"""

from typing import Any

import pytest
from outside import Cluster, has_ended

from distrib import Run
from distrib.testing import EngineContract


class TestKubernetes(EngineContract):
    """
    The Kubernetes engine keeps it.
    """

    engine = "kubernetes"
    patience = 120.0

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "options", {**cluster.options, "grace_period": 5})
        self.cluster = cluster

    def leftovers(self, run: Run[Any]) -> list[str]:
        """
        Pods whose container has not ended; the kubelet calls a pod over up to a second after that.
        """
        pods = self.cluster.pods(run.id.rpartition("/")[2])
        return [name for name, pod in pods.items() if not has_ended(pod)]
