"""
The promises of backends and engines as test suites.
"""

from __future__ import annotations

from ._backend.declarations import DeclarationLaws as BackendDeclarationLaws
from ._backend.environments import EnvironmentLaws
from ._backend.hooks import HookLaws
from ._backend.jobs import JobLaws
from ._backend.manifests import ManifestLaws
from ._backend.runs import RunLaws
from ._backend.subject import Seen
from ._engine.declarations import DeclarationLaws as EngineDeclarationLaws
from ._engine.failures import FailureLaws
from ._engine.plans import PlanLaws
from ._engine.records import RecordLaws
from ._engine.successes import SuccessLaws
from ._engine.waiting import WaitingLaws

__all__ = ["BackendContract", "EngineContract", "Seen"]


class BackendContract(BackendDeclarationLaws, JobLaws, EnvironmentLaws, HookLaws, ManifestLaws, RunLaws):
    """
    What every backend promises, as tests: subclass it, name the backend, run pytest.

    .. code-block:: python

        from distrib.testing import BackendContract, Seen
        from distrib_gossip import GossipBackend


        class TestGossip(BackendContract):
            backend = GossipBackend()

            def seen(self, environment):
                return Seen(rank=int(environment["GOSSIP_RANK"]), cluster=environment["GOSSIP_PEERS"].split(","))

    The jobs and clusters that the laws are tried on are drawn from the backend's own roles and options. A law that is broken fails
    with a :class:`LawBrokenError`: which one, how, and the example. The local run is marked ``slow``.
    """


class EngineContract(EngineDeclarationLaws, PlanLaws, SuccessLaws, FailureLaws, WaitingLaws, RecordLaws):
    """
    What every engine promises, as tests: subclass it, name the engine, run pytest.

    .. code-block:: python

        from distrib.testing import EngineContract


        class TestLocal(EngineContract):
            engine = "local"
            options = {"echo": False}

    The jobs are of a framework that needs nothing to be installed: it has the roles ``worker``, ``lead`` (at most one, which
    decides) and ``helper`` (a service). An engine that cannot run just any framework names one that it can, and its roles.
    It may refuse what a job asks for by an ``UnsupportedError``, which leaves the law out; the job of two workers that asks for
    nothing else has to run, unless ``starts_runs = False`` says that the engine starts no runs at all.
    A law that is broken fails with a :class:`LawBrokenError`: which one, and how. Laws that take seconds are marked ``slow``.
    """
