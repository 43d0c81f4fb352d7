"""
What a pod makes sure of before the function is called: that this is the place that the call was packed for.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._cluster import REPLICA_VARIABLE, Replica, encode_cluster, encode_replica
from ..._registry import get_backend
from ..._streams import say
from ...errors import DistribError
from ._bootstrap import CALL_KEY, CODE_KEY, INDEX_VARIABLE, MOUNT, MOUNT_VARIABLE, ORDERS_KEY, ROLE_VARIABLE
from ._orders import Orders

if TYPE_CHECKING:
    from ...backend import Backend

__all__ = ["Refusal", "await_names", "environment", "fetch", "me_of", "read_orders", "settle"]

_RESOLVERS = 16
_AGAIN_SECONDS = 0.1
#: After so long it is said that names are waited for.
_PATIENCE_SECONDS = 15.0
#: How many names a message has.
_NAMED = 5


class Refusal(Exception):  # noqa: N818  # it is no error of the program's
    """
    Why the function is not called here; the text has the remedy.
    """


def mount() -> Path:
    """
    Where the run's Secret is.
    """
    return Path(os.environ.get(MOUNT_VARIABLE, MOUNT))


def read_orders() -> Orders:
    """
    What the Secret says of the run.

    Raises:
        Refusal: It is not there, or of another distrib.
    """
    path = mount() / ORDERS_KEY
    try:
        return Orders.from_json(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refusal(f"the orders of the run cannot be read from {path}: {error} Install the distrib that you submit with.") from error


def me_of(orders: Orders) -> Replica:
    """
    Which replica the container says that this is.

    Raises:
        Refusal: The run has no such replica.
    """
    role, index = os.environ.get(ROLE_VARIABLE, ""), os.environ.get(INDEX_VARIABLE, "")
    try:
        return orders.replica(role, int(index))
    except (LookupError, ValueError) as error:
        text = f"{ROLE_VARIABLE}={role!r}, {INDEX_VARIABLE}={index!r}: no replica of the run is called so; it has {_few(orders.names)}."
        raise Refusal(text) from error


def fetch(orders: Orders) -> dict[str, Any]:
    """
    The call, as :mod:`._payload` has packed it, with the project's own modules where they can be imported from.

    Raises:
        Refusal: It cannot be read here.
    """
    about: dict[str, Any] = pickle.loads(_part(orders, CALL_KEY))  # noqa: S301  # the submitter's own, which this pod is there to run
    packed, here = tuple(about["python"]), sys.version_info[:2]
    if about["by_value"] and packed != here:
        raise Refusal(
            f"the image has Python {_dotted(here)}, and the function was packed by Python {_dotted(packed)}: code that is in no module of "
            f"the image travels between equal Pythons only. Use an image with Python {_dotted(packed)}, or submit with {_dotted(here)}."
        )
    _unpack(_part(orders, CODE_KEY))
    _compare(about["versions"])
    return about


def settle(orders: Orders, me: Replica, about: Mapping[str, Any]) -> dict[str, str]:
    """
    The environment of the function's process, once all is as it has to be.

    Raises:
        Refusal: The framework is not installed, or an operator has not done its part.
    """
    backend = _backend(about)
    try:
        backend.check_installed()
    except DistribError as error:
        raise Refusal(f"in the image: {error}") from error
    if orders.workload == "operator" and len(orders.names) > 1:
        check_operator(backend, orders, me, os.environ)
    return environment(backend, orders, me, os.environ)


def environment(backend: Backend, orders: Orders, me: Replica, environ: Mapping[str, str]) -> dict[str, str]:
    """
    What the function's process finds: this one's, the backend's variables as we make them, and a home if there is none.
    """
    made = {name: value for name, value in environ.items() if name not in backend.reserved}
    made |= backend.environment(me, orders.spec)
    made[REPLICA_VARIABLE] = encode_replica(me, encode_cluster(orders.spec))
    # As a user that the image does not know: without these, libraries fail that look for a cache or a name.
    if not os.access(made.get("HOME", "/"), os.W_OK):
        made["HOME"] = tempfile.gettempdir()
    made.setdefault("USER", "distrib")
    made.setdefault("LOGNAME", made["USER"])
    return made


def check_operator(backend: Backend, orders: Orders, me: Replica, environ: Mapping[str, str]) -> None:
    """
    Compare what the operator has told the pod with the orders.

    Raises:
        Refusal: It has told nothing, or something else: whoever went on would train alone, or wait for nobody.
    """
    found = backend.discover(environ)
    kind = "the operator" if backend.operator is None else f"the operator of {backend.operator.kind}s"
    if found is None:
        raise Refusal(
            f"{me.name} is one of {len(orders.names)} replicas, and {kind} has not told it where the others are. "
            "Does that operator run in the cluster, and is it the one that has made this pod? "
            "Without it there is kubernetes={'workload': 'job'}."
        )
    counted = {role: len(addresses) for role, addresses in found.cluster.items()}
    expected = {role: len(orders.cluster.get(role, ())) for role in counted}
    if (found.role, found.index) != (me.role, me.index) or counted != expected:
        raise Refusal(f"{kind} says that this is {found.name} of {_counts(counted)}; the run's orders, {me.name} of {_counts(expected)}.")


async def await_names(orders: Orders, me: Replica) -> None:
    """
    Wait until all that this replica may have to find can be found.

    Raises:
        Refusal: A name cannot be resolved for as long as the orders allow.
    """
    # Elastic groups do without those that are not there; whoever comes finds the coordinator.
    hosts = [orders.coordinator_host] if orders.needed is not None else _hosts(orders)
    until = time.monotonic() + orders.peers_timeout
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="distrib names")
    waiting = asyncio.gather(*(loop.run_in_executor(pool, _await_name, host, until) for host in hosts))
    try:
        done, _ = await asyncio.wait([waiting], timeout=_PATIENCE_SECONDS)
        if not done:
            say(f"{me.name} waits for the names of {_few(hosts)}")
        await waiting
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _hosts(orders: Orders) -> list[str]:
    addresses = (address for of_role in orders.cluster.values() for address in of_role)
    return list(dict.fromkeys(address.rpartition(":")[0] for address in addresses))


def _await_name(host: str, until: float) -> None:
    while (error := _resolve(host)) is not None:
        if time.monotonic() > until:
            raise Refusal(
                f"the name {host} cannot be resolved ({error}). Its pod may not have been started, or its Service not been made: "
                "run.events() tells; or the cluster's DNS does not answer in this pod."
            ) from error
        time.sleep(_AGAIN_SECONDS)


def _resolve(host: str) -> OSError | None:
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return error
    return None


def _part(orders: Orders, key: str) -> bytes:
    path = mount() / key
    if path.exists():
        return path.read_bytes()
    if orders.storage is None:
        raise Refusal(f"the run's Secret has no {key}, and there is no storage: a plan is printed without it. Submit it with distrib.")
    from . import _storage

    url = f"{orders.storage}/{key}"
    try:
        return _storage.read(url)
    except Exception as error:  # the storage's own library decides what it raises
        raise Refusal(
            f"{url} cannot be read in the pod: {type(error).__name__}: {error}. The image needs the package that fsspec wants for it, "
            "and the pod what gives access: a mounted volume, a service account, or variables with the credentials."
        ) from error


def _unpack(data: bytes) -> None:
    if not data:
        return
    folder = tempfile.mkdtemp(prefix="distrib-code-")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        archive.extractall(folder)  # the submitter's own
    # For this process, and, by the variable, for all that come from it.
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))


def _compare(versions: Mapping[str, str]) -> None:
    others = {name: (there, here) for name, there in versions.items() if (here := _version(name)) not in (None, there)}
    if others:
        told = ", ".join(f"{name} {here} (not {there})" for name, (there, here) in sorted(others.items()))
        say(f"the image has other versions than the call was packed with: {told}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # whoever needs it says so
        return None


def _backend(about: Mapping[str, Any]) -> Backend:
    try:
        if about["backend"] is None:
            return get_backend(about["framework"])
        made: Backend = pickle.loads(about["backend"])  # noqa: S301  # the submitter's own
    except Exception as error:  # the module of a backend may do anything
        raise Refusal(f"framework={about['framework']!r} is not to be had in the image: {type(error).__name__}: {error}") from error
    return made


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _few(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {role}" for role, count in counted.items())
