"""
What PyTorch takes besides its roles: how many processes and nodes, and the settings of elastic training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from distrib import _fields
from distrib._frozen import EMPTY
from distrib._refusal import refuse

__all__ = ["Elastic", "PyTorchOptions", "check_agreement"]

_WORDS = ("auto", "gpu", "cpu")
_START_METHODS = ("fork", "spawn")
#: The rendezvous of PyTorch's own that need a server.
_SERVERS = ("etcd", "etcd-v2")
_LAST_PORT = 65535
#: The settings of the rendezvous "c10d": whole numbers, and others.
_NUMBERS = (
    *("join_timeout", "last_call_timeout", "close_timeout", "heartbeat_timeout", "read_timeout"),
    *("keep_alive_interval", "keep_alive_max_attempt"),
)
_RENDEZVOUS = (*_NUMBERS, "cas_backoff_max_seconds", "is_host", "store_type", "timeout")


def _nproc(value: int | str) -> int | str:
    if isinstance(value, str):
        if value not in _WORDS:
            raise refuse("", value, f"write a number of processes, or one of {', '.join(map(repr, _WORDS))}.")
        return value
    return _fields.number(value, 1)


def _optional_nproc(value: int | str | None) -> int | str | None:
    return None if value is None else _nproc(value)


def _nnodes(value: int | str | None) -> int | str | None:
    if value is None:
        return None
    least, most = _fields.nodes(value)
    return f"{least}:{most}" if isinstance(value, str) and ":" in value else least


def _at_least_one(value: int) -> int:
    return _fields.number(value, 1)


def _interval(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):  # type: ignore[redundant-expr]
        raise refuse("", value, "write seconds, more than 0.")
    return float(value)


def _start_method(value: str) -> str:
    if value not in _START_METHODS:
        raise refuse("", value, f"write one of {', '.join(map(repr, _START_METHODS))}.")
    return value


def _rdzv_configs(value: Mapping[str, Any]) -> Mapping[str, Any]:
    # What has been through JSON or a Struct comes back as 600.0, which torchrun does not take for a number of seconds.
    settings = _fields.plain(value)
    whole = {name: int(number) for name, number in settings.items() if isinstance(number, float) and number.is_integer()}
    return _fields.plain({**settings, **whole})


def _rdzv_backend(value: str) -> str:
    if not isinstance(value, str) or not value.strip():  # type: ignore[redundant-expr]
        raise refuse("", value, "write the name of a rendezvous backend; 'c10d' needs no server.")
    return str.__str__(value)


def _rdzv_endpoint(value: str | None) -> str | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")  # type: ignore[redundant-expr]
    if not host.strip() or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= _LAST_PORT:
        raise refuse("", value, "write the host and the port, as in 'etcd.example.com:2379'.")
    return str.__str__(value)


@attrs.frozen(kw_only=True, field_transformer=_fields.named)
class Elastic:
    """
    Training that goes on when nodes come and go, by PyTorch's own elastic agents (those of ``torchrun``).

    A process that fails has all processes started again, on the nodes that are there then; what they had learnt is kept only by
    the checkpoints that they write.

    Args:
        min_nodes: The fewest nodes to train with.

        max_nodes: The most, and how many are started; *min_nodes* unless it is given.

        nproc_per_node: Processes of each node: a number, ``"gpu"`` (one for each GPU), ``"cpu"`` (one for each processor) or
            ``"auto"`` (GPUs if there are any, else processors).

        max_restarts: How often the processes are started again before the run fails.

        monitor_interval: Seconds between two looks of an agent at its processes.

        rdzv_backend: How nodes find each other; ``"c10d"`` needs no server.

        rdzv_endpoint: Where they do, as ``host:port``: the server of a *rdzv_backend* that has one, as ``"etcd-v2"``. Unless it is
            given they meet at one of the nodes.

        rdzv_configs: PyTorch's own settings for that, such as ``{"join_timeout": 600, "last_call_timeout": 30}``, in seconds.

        start_method: ``"fork"``: processes are copies of the node's own, with what it has imported; ``"spawn"``: fresh
            interpreters, for what does not survive a fork.

    .. doctest::

        >>> from distrib.backends.pytorch import Elastic
        >>> Elastic(min_nodes=1, max_nodes=4).nnodes
        '1:4'
        >>> Elastic(min_nodes=3, max_nodes=2)
        Traceback (most recent call last):
        distrib.errors.InvalidJobError: max_nodes=2: fewer than min_nodes=3.
    """

    min_nodes: int = attrs.field(default=1, converter=_at_least_one)
    max_nodes: int | None = attrs.field(default=None, converter=_fields.positive)
    nproc_per_node: int | str = attrs.field(default=1, converter=_nproc, metadata={"examples": _WORDS})
    max_restarts: int = attrs.field(default=3, converter=_fields.count)
    monitor_interval: float = attrs.field(default=0.1, converter=_interval)
    rdzv_backend: str = attrs.field(default="c10d", converter=_rdzv_backend)
    rdzv_endpoint: str | None = attrs.field(default=None, converter=_rdzv_endpoint, metadata={"examples": ("etcd.example.com:2379",)})
    rdzv_configs: Mapping[str, Any] = attrs.field(default=EMPTY, converter=_rdzv_configs)
    start_method: str = attrs.field(default="fork", converter=_start_method, metadata={"examples": _START_METHODS})

    def __attrs_post_init__(self) -> None:
        if self.max_nodes is not None and self.max_nodes < self.min_nodes:
            raise refuse("max_nodes", self.max_nodes, f"fewer than min_nodes={self.min_nodes}.")
        if self.rdzv_backend in _SERVERS and self.rdzv_endpoint is None:
            raise refuse(
                "rdzv_backend", self.rdzv_backend, "it needs a server; write its place, as in rdzv_endpoint='etcd.example.com:2379'."
            )
        if self.rdzv_backend == "c10d":
            _check_settings(self.rdzv_configs)

    @property
    def nodes(self) -> int:
        """
        How many nodes are started.
        """
        return self.min_nodes if self.max_nodes is None else self.max_nodes

    @property
    def nnodes(self) -> str:
        """
        The range, as ``torchrun`` has it.
        """
        return f"{self.min_nodes}:{self.nodes}"


def _check_settings(settings: Mapping[str, Any]) -> None:
    """
    Refuse a slip, which PyTorch would pass over or tell of when it has been started; another version may know more, so what is
    like none of these is left alone.
    """
    from difflib import get_close_matches

    for name, value in settings.items():
        near = get_close_matches(name, _RENDEZVOUS, n=1, cutoff=0.75) or [known for known in _RENDEZVOUS if known.startswith(name)]
        if name not in _RENDEZVOUS and near:
            raise refuse(f"rdzv_configs[{name!r}]", value, f"no such setting. Did you mean {near[0]!r}?")
        if name in _NUMBERS and not re.fullmatch("0*[1-9][0-9]*", str(value)):
            raise refuse(f"rdzv_configs[{name!r}]", value, "write a whole number, 1 or more.")


def _elastic(value: Elastic | Mapping[str, Any] | None) -> Elastic | None:
    return None if value is None else _fields.build(Elastic, value)


@attrs.frozen(kw_only=True, field_transformer=_fields.named)
class PyTorchOptions:
    """
    What ``@distributed(framework="pytorch", ...)`` takes besides ``master=`` and ``worker=``.

    Where no role is named, *elastic* or *nnodes* says how many workers there are; *nproc_per_node* alone makes one.

    Args:
        nproc_per_node: Processes of each node, as for :class:`Elastic`; 1 unless it is given.

        nnodes: How many nodes: ``2``, or ``"1:4"`` for elastic training with the default settings.

        elastic: Elastic training with settings of your own.
    """

    nproc_per_node: int | str | None = attrs.field(default=None, converter=_optional_nproc, metadata={"examples": _WORDS})
    nnodes: int | str | None = attrs.field(default=None, converter=_nnodes, metadata={"examples": ("2", "2:2", "1:4")})
    elastic: Elastic | None = attrs.field(default=None, converter=_elastic)

    @property
    def processes(self) -> int | str:
        """
        What one node runs, whichever field says so.
        """
        if self.nproc_per_node is not None:
            return self.nproc_per_node
        return 1 if self.elastic is None else self.elastic.nproc_per_node

    @property
    def elasticity(self) -> Elastic | None:
        """
        The settings of elastic training, whichever field asks for it; None if none does.
        """
        if self.elastic is not None or not isinstance(self.nnodes, str):
            return self.elastic
        least, most = map(int, self.nnodes.split(":"))
        return Elastic(min_nodes=least, max_nodes=most, nproc_per_node=self.processes)

    @property
    def nodes(self) -> int | None:
        """
        How many nodes these options ask for by themselves; None if they do not say.
        """
        elastic = self.elasticity
        if elastic is not None:
            return elastic.nodes
        if isinstance(self.nnodes, int):
            return self.nnodes
        return None if self.nproc_per_node is None else 1


def check_agreement(options: PyTorchOptions) -> None:
    """
    Refuse options that contradict each other.
    """
    elastic = options.elastic
    if elastic is None:
        return
    if options.nproc_per_node not in (None, elastic.nproc_per_node):
        raise refuse(
            "nproc_per_node",
            options.nproc_per_node,
            f"elastic= says nproc_per_node={elastic.nproc_per_node!r}; say it there alone.",
        )
    if options.nnodes is not None and options.nnodes not in (elastic.nnodes, elastic.nodes if elastic.min_nodes == elastic.nodes else None):
        raise refuse("nnodes", options.nnodes, f"elastic= says {elastic.nnodes}; leave nnodes= out.")
