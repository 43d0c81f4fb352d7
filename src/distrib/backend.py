"""
What a framework has to say about itself: the base class of every backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from .errors import InvalidJobError, MissingDependencyError, UnsupportedError, did_you_mean

if TYPE_CHECKING:
    from ._cluster import ClusterSpec, Replica
    from ._job import Job

__all__ = ["Backend", "FlyteTask", "Operator", "Role"]


@attrs.frozen
class Role:
    """
    A kind of replica within a framework.

    .. doctest::

        >>> from distrib import Role
        >>> Role("ps", service=True)
        Role(name='ps', at_least=0, at_most=None, service=True)

    Args:
        name: E.g. ``"worker"``.

        at_least: The fewest replicas that a job must have.

        at_most: The most that it may have; None for any number.

        service: Whether the role never ends by itself and is stopped when the rest is done.
    """

    name: str
    at_least: int = attrs.field(default=0, kw_only=True)
    at_most: int | None = attrs.field(default=None, kw_only=True)
    service: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen(kw_only=True)
class Operator:
    """
    The Kubernetes operator of a framework: how its custom resource calls things.

    Args:
        kind: E.g. ``"TFJob"``.

        plural: The resource's name in URLs, e.g. ``"tfjobs"``.

        replica_specs: The field of the spec that holds the groups, e.g. ``"tfReplicaSpecs"``.

        types: Role -> the replica type that the operator calls it, e.g. ``{"chief": "Chief"}``.

        container: The name that the training container must have.

        port_name: The name of the port at which replicas find each other.

        port: Its number unless a job says otherwise.

        host: How the operator writes a replica's host, with ``{job}``, ``{type}`` (in lower case), ``{index}`` and ``{namespace}``.

        api_version: Group and version.
    """

    kind: str
    plural: str
    replica_specs: str
    types: Mapping[str, str]
    container: str
    port_name: str
    port: int
    host: str = "{job}-{type}-{index}"
    api_version: str = "kubeflow.org/v1"


@attrs.frozen(kw_only=True)
class FlyteTask:
    """
    What Flyte has to know of a job.

    Args:
        type: The name of Flyte's own task type, e.g. ``"tensorflow"``.

        version: The version of what is in *custom*.

        custom: The part of the task's template that is the type's own: plain data.
    """

    type: str
    version: int = 0
    custom: Mapping[str, Any]


class Backend(ABC):
    """
    One framework. A subclass that sets *name* and *roles* and writes :meth:`environment` already runs locally.

    .. doctest::

        >>> from distrib.backend import Backend, Role
        >>> class GossipBackend(Backend):
        ...     name = "gossip"
        ...     roles = (Role("peer", at_least=1),)
        ...
        ...     def environment(self, replica, cluster):
        ...         return {"GOSSIP_RANK": str(replica.rank), "GOSSIP_PEERS": ",".join(cluster["peer"])}
    """

    #: What users write as ``framework=``.
    name: ClassVar[str]
    #: In the order of the ranks; the first one with replicas holds the coordinator unless :meth:`coordinator` says otherwise.
    roles: ClassVar[tuple[Role, ...]]
    #: A frozen attrs class of the framework's own settings; its fields are keywords of ``@distributed``.
    options: ClassVar[type | None] = None
    #: Modules worth importing once, before replicas are forked.
    preload: ClassVar[tuple[str, ...]] = ()
    #: Modules without which no replica can run -> what ``pip install`` is to be given for them.
    requires: ClassVar[Mapping[str, str]] = {}
    #: Variables of the framework's convention: a job may not set them, and replicas do not inherit them from the launcher.
    reserved: ClassVar[tuple[str, ...]] = ()
    #: Environment variables that hold the number of CPU threads of one replica, besides ``OMP_NUM_THREADS``.
    thread_variables: ClassVar[tuple[str, ...]] = ()
    #: The Kubernetes operator that :meth:`manifest` is for; None if there is none.
    operator: ClassVar[Operator | None] = None

    def validate(self, job: Job) -> None:
        """
        Refuse what the framework cannot run; the counts of the roles have been checked already.

        Raises:
            InvalidJobError: Names the field, the value and the remedy.
        """

    def replicas(self, options: Any) -> Mapping[str, int]:
        """
        Role -> how many replicas the options ask for by themselves: for a job that names no role.
        """
        return {}

    def needed(self, job: Job) -> int | None:
        """
        With how many replicas the framework goes on when others are lost; None if it needs them all.

        Lost is one that is killed, or whose machine is gone. One that raises fails the run, however many are left.
        """
        return None

    def coordinator(self, cluster: ClusterSpec) -> Replica:
        """
        The replica whose return value is the result, and whose role's ends decide the run: rank 0 unless overridden.
        """
        return cluster.replicas[0]

    @abstractmethod
    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        The framework's own convention, as variables. Pure: same inputs, same bytes.
        """

    def discover(self, environ: Mapping[str, str]) -> Replica | None:
        """
        Who a process is by what the framework's operator has put into its environment; None if it says nothing.

        How replicas that an operator has started notice that the operator was not there, or has started another group than
        the job's.
        """
        return None

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        """
        What replicas are to call in place of *function*; the function itself unless overridden.

        For frameworks that start processes of their own around it. What comes back is called in the replica with the
        function's arguments, and has to be picklable.
        """
        return function

    def remark(self, job: Job) -> str:
        """
        What :meth:`wrap` makes of each replica that its environment does not show: one line for plans, empty for nothing.
        """
        return ""

    def manifest(self, job: Job) -> dict[str, Any]:
        """
        The custom resource that the framework's Kubernetes operator runs *job* from: fresh plain data.

        Raises:
            UnsupportedError: The framework has no operator, or its operator cannot honour a field of the job.
        """
        raise UnsupportedError(f"framework={self.name!r}: there is no Kubernetes operator for it.", field="framework")

    def flyte_task(self, job: Job) -> FlyteTask:
        """
        The task that Flyte runs *job* as.

        Raises:
            UnsupportedError: Flyte has no such task type, or it cannot honour a field of the job.
        """
        raise UnsupportedError(f"framework={self.name!r}: Flyte has no task type for it.", field="framework")

    def fork_safe(self) -> bool:
        """
        Whether this process may still be forked after :attr:`preload` was imported.

        Asked once, in the process that replicas are about to be forked from. On False each replica starts a fresh
        interpreter instead.
        """
        return True

    def role(self, name: str) -> Role:
        """
        The role of that name.

        Raises:
            InvalidJobError: There is none; the message names the legal ones.
        """
        for role in self.roles:
            if role.name == name:
                return role
        legal = [role.name for role in self.roles]
        raise InvalidJobError(f"{self.name} has no role {name!r}.{did_you_mean(name, legal)}", field="role", value=name)

    def check_installed(self) -> None:
        """
        Look for the modules of :attr:`requires` without importing them.

        Raises:
            MissingDependencyError: One is not installed; the message has the ``pip`` line.
        """
        from importlib.util import find_spec

        def is_there(module: str) -> bool:
            try:
                return find_spec(module) is not None
            except ImportError:  # an import hook keeps it away
                return False
            except ValueError:  # somebody has put it into sys.modules by hand
                return True

        for module, requirement in self.requires.items():
            if not is_there(module):
                raise MissingDependencyError(
                    f"framework={self.name!r} needs the package {module!r}, which is not installed. "
                    f"Install it with: python -m pip install '{requirement}'",
                    name=module,
                )
