"""
The Kubernetes engine: plans become objects of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ...engine import Call, Engine
from ...errors import DistribError, EngineError, SubmitError
from ._options import KubernetesOptions

if TYPE_CHECKING:
    from ..._job import Job
    from ...engine import Plan, Run
    from ._client import Client, Kind
    from ._plan import KubernetesPlan
    from ._run import KubernetesRun

R = TypeVar("R")

_FORBIDDEN, _ABSENT = 403, 404


class KubernetesEngine(Engine):
    """
    Runs the replicas of a job as pods of a Kubernetes cluster.
    """

    name: ClassVar[str] = "kubernetes"
    options: ClassVar[type] = KubernetesOptions

    def __init__(self) -> None:
        # Connections are kept: making one, and asking a plug-in for a token, takes longer than most requests.
        self._clients: dict[tuple[str | None, str | None], Client] = {}
        self._namespaces: dict[tuple[str | None, str | None], dict[str, None]] = {}

    def plan(self, job: Job, call: Call[R]) -> KubernetesPlan[R]:
        """
        The objects that *job* becomes.
        """
        from ._plan import make_plan

        return make_plan(job, call, self.options_of(job))

    def submit(self, plan: Plan[R]) -> KubernetesRun[R]:
        """
        Create the objects of *plan*.
        """
        from ._plan import KubernetesPlan
        from ._submit import submit

        if not isinstance(plan, KubernetesPlan):
            raise SubmitError(f"the Kubernetes engine submits its own plans, not a {type(plan).__name__}")
        options = plan.options
        try:
            client = self._client(options.kubeconfig, options.context)
        except EngineError as error:
            raise SubmitError(str(error)) from error
        run = submit(client, plan)
        self._namespaces[options.kubeconfig, options.context][options.namespace] = None
        return run

    def runs(self) -> Sequence[Run[Any]]:
        """
        All runs in the namespace of the current context, and in those that this process has submitted to; the newest first.
        """
        from ._client import ApiError
        from ._run import KubernetesRun

        self._client(None, None)
        found: list[KubernetesRun[Any]] = []
        refused: list[ApiError] = []
        places = [(client, namespace) for which, client in self._clients.items() for namespace in self._namespaces[which]]
        for client, namespace in places:
            try:
                found += [KubernetesRun(client, about, kind) for about, kind in _find(client, namespace)]
            except ApiError as error:  # noqa: PERF203  # one of those that somebody else's credentials have led to
                refused.append(error)
        if len(refused) == len(places):
            raise refused[0]
        unique = {run.id: run for run in found}
        return sorted(unique.values(), key=lambda run: run.about.submitted, reverse=True)

    def get_run(self, id: str) -> Run[Any]:
        """
        The run of that id, ``kubernetes://namespace/name``.
        """
        from ._run import KubernetesRun

        namespace, separator, name = id.partition("://")[2].partition("/")
        if not separator or not namespace or not name:
            raise LookupError(f"no run is called {id!r}: write kubernetes://namespace/name")
        for which, client in [((None, None), self._client(None, None)), *self._clients.items()]:
            for about, kind in _find(client, namespace, name):
                self._namespaces[which][namespace] = None
                return KubernetesRun(client, about, kind)
        raise LookupError(f"no run is called {name!r} in the namespace {namespace!r}; distrib.runs('kubernetes') lists them all")

    def _client(self, kubeconfig: str | None, context: str | None) -> Client:
        from ._client import Client, default_namespace

        which = (kubeconfig, context)
        if which not in self._clients:
            self._clients[which] = Client(kubeconfig, context)
            self._namespaces[which] = {default_namespace(kubeconfig, context): None}
        return self._clients[which]


def _find(client: Client, namespace: str, name: str | None = None) -> Iterator[tuple[Any, Kind]]:
    """
    The runs in a namespace, or that of one name.
    """
    from ._about import about_of
    from ._client import ApiError
    from ._labels import RUN_LABEL

    selector = RUN_LABEL if name is None else f"{RUN_LABEL}={name}"
    refused: list[ApiError] = []
    kinds = _kinds()
    for kind in kinds:
        try:
            found = client.list(kind, namespace, labelSelector=selector)
        except ApiError as error:
            if error.status not in (_ABSENT, _FORBIDDEN):
                raise
            # The cluster does not have every kind, and a user need not be allowed to see them all.
            refused += [error] if error.status == _FORBIDDEN else []
            continue
        for top in found.get("items") or ():
            about = about_of(top)
            if about is not None:
                yield about, kind
    if len(refused) == len(kinds):
        raise refused[0]


def _kinds() -> list[Kind]:
    """
    The kinds of objects that own runs: of all backends that are installed.
    """
    from ..._registry import backends
    from ._client import Kind
    from .workloads import WORKLOADS

    found: dict[Kind, None] = {}
    for name in backends:
        with suppress(DistribError):  # a package that cannot be loaded keeps nobody from looking at the runs of others
            backend = backends[name]
            for workload in WORKLOADS.values():
                if workload.name == "operator" and backend.operator is None:
                    continue
                resource = workload.resource(backend)
                found[Kind(resource.api_version, resource.plural)] = None
    return list(found)
