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
    from ._client import Client
    from ._kinds import Kind
    from ._plan import KubernetesPlan
    from ._run import KubernetesRun

R = TypeVar("R")

#: Kubeconfig and context.
Place = tuple[str | None, str | None]
_USUAL: Place = (None, None)
#: Where a run is that was told no namespace.
_UNNAMED = KubernetesOptions().namespace


class KubernetesEngine(Engine):
    """
    Runs the replicas of a job as pods of a Kubernetes cluster.
    """

    name: ClassVar[str] = "kubernetes"
    options: ClassVar[type] = KubernetesOptions

    def __init__(self) -> None:
        # Connections are kept: making one, and asking a plug-in for a token, takes longer than most requests.
        self._clients: dict[Place, Client] = {}
        #: Place -> the namespaces in which runs have been met with.
        self._namespaces: dict[Place, dict[str, None]] = {}

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
        self._namespaces.setdefault((options.kubeconfig, options.context), {})[options.namespace] = None
        return run

    def runs(self) -> Sequence[Run[Any]]:
        """
        All runs in the namespace of the current context and in ``default``, and in those that this process has submitted to or taken
        up runs from; the newest first. What cannot be asked is left out, unless that is all.
        """
        from ._client import default_namespace

        found: list[KubernetesRun[Any]] = []
        failures: list[EngineError] = []
        asked = [
            (place, namespace)
            for place, used in self._places().items()
            for namespace in dict.fromkeys([*used, default_namespace(*place), _UNNAMED])
        ]
        for place, namespace in asked:
            try:
                found += self._found(place, namespace)
            except EngineError as error:  # noqa: PERF203  # another's cluster, or a namespace that we may not look into
                failures.append(error)
        if len(failures) == len(asked):
            raise failures[0]
        unique = {run.id: run for run in found}
        return sorted(unique.values(), key=lambda run: run.about.submitted, reverse=True)

    def get_run(self, id: str) -> Run[Any]:
        """
        The run of that id, ``kubernetes://namespace/name``: of one of the clusters that this process has submitted to, else of that of
        the current context.
        """
        namespace, separator, name = id.partition("://")[2].partition("/")
        if not separator or not namespace or not name:
            raise LookupError(f"no run is called {id!r}: write kubernetes://namespace/name")
        failures: list[EngineError] = []
        places = self._places()
        for place in sorted(places, key=lambda place: namespace not in places[place]):
            try:
                run = next(self._found(place, namespace, name), None)
            except EngineError as error:
                failures.append(error)
                continue
            if run is not None:
                self._namespaces.setdefault(place, {})[namespace] = None
                return run
        if len(failures) == len(places):
            raise failures[0]
        more = "".join(f". Not asked: {error}" for error in failures)
        raise LookupError(f"no run is called {name!r} in the namespace {namespace!r}; distrib.runs('kubernetes') lists them all{more}")

    def _places(self) -> dict[Place, dict[str, None]]:
        """
        Who may be asked, and for which namespaces; the current context last, unless it has been used.
        """
        return {**self._namespaces, _USUAL: self._namespaces.get(_USUAL, {})}

    def _found(self, place: Place, namespace: str, name: str | None = None) -> Iterator[KubernetesRun[Any]]:
        from ._run import KubernetesRun

        client = self._client(*place)
        return (KubernetesRun(client, about, kind) for about, kind in _find(client, namespace, name))

    def _client(self, kubeconfig: str | None, context: str | None) -> Client:
        from ._client import Client

        place = (kubeconfig, context)
        if place not in self._clients:
            self._clients[place] = Client(kubeconfig, context)
        return self._clients[place]


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
            if not (error.is_absent or error.is_forbidden):
                raise
            # The cluster does not have every kind, and a user need not be allowed to see them all.
            refused += [error] if error.is_forbidden else []
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
    from .workloads import WORKLOADS

    found: dict[Kind, None] = {}
    for name in backends:
        with suppress(DistribError):  # a package that cannot be loaded keeps nobody from looking at the runs of others
            backend = backends[name]
            for workload in WORKLOADS.values():
                if workload.name == "operator" and backend.operator is None:
                    continue
                found[workload.kind(backend)] = None
    return list(found)
