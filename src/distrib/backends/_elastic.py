"""
One node of elastic PyTorch training: PyTorch's own agent, its processes forked by it.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import pickle
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from distrib import _report
from distrib._cluster import RUN_VARIABLE, Replica
from distrib._command import Command, not_started
from distrib._outcome import ByRank, ProcessFailedError, StoppedError, end, may_be_a_consequence, tell_end
from distrib._pickling import dumps
from distrib._processes import call_in_child, die_like
from distrib._streams import flush, say
from distrib.errors import EngineError

from . import _rendezvous

if TYPE_CHECKING:
    from ._pytorch_options import Elastic

__all__ = ["run_elastic"]

#: How long a node waits whose process may have failed only because of a peer, for the peer's own node to tell the cause.
_PATIENCE_SECONDS = 2.0
#: How long a node looks whether others meet at an address.
_GLANCE_SECONDS = 1.0
#: How long nodes wait for the one where they met to come back, before they meet at the next one.
_RETURN_SECONDS = 2.0
_HEADER = struct.Struct("<Q")


def run_elastic(call: Callable[[], Any], elastic: Elastic, processes: int, me: Replica) -> ByRank:
    """
    Take part in the training until it is over.

    Args:
        call: What each process is to run.

        elastic: The settings.

        processes: How many processes this node has.

        me: This node.

    Returns:
        The values of the processes that this node had at the end.

    Raises:
        ProcessFailedError: A process raised, or ended without a word, and all restarts are used up.

        EngineError: The nodes do not find each other.

        OSError: The program to run cannot be started.

        StoppedError: This node was told to stop, and no engine waits for how it ends.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousClosedError, RendezvousError

    _quieten()
    _mend_ends()
    # A store of their own for the processes of each round: in the agents' one they would meet what the last round has left.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    # A fresh interpreter does not inherit the descriptor and opens the file by its name.
    with tempfile.NamedTemporaryFile() if elastic.start_method == "spawn" else tempfile.TemporaryFile() as failures:
        entry, arguments = _entry(call, failures, elastic.start_method)
        try:
            values = _launch(elastic, processes, me, lambda config: _agent(config, entry)(*arguments))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            _fail(rank, failure, list(_read(failures)))
        except SignalException as stop:
            if _report.CHANNEL_VARIABLE not in os.environ:
                raise StoppedError(str(stop)) from stop
            _stop(int(stop.sigval))
        except RendezvousError as error:
            if isinstance(error, RendezvousClosedError):
                _wait_to_be_stopped(me)
            # Mostly because another node has failed, which is about to say why.
            _wait_for_the_cause()
            raise EngineError(f"{me.name} cannot meet the other nodes: {type(error).__name__}: {error}") from error
        except OSError as error:
            if isinstance(call, Command) and error.filename == call.argv[0]:
                raise not_started(error, call.argv[0]) from None
            raise
    nothing = pickle.dumps(None)
    return ByRank({rank: nothing if value is None else value for rank, value in values.items()})


def _wait_to_be_stopped(me: Replica) -> None:
    """
    Where an engine listens, wait until it stops this node: it has come when the group was done, and has nothing to say of how.
    """
    if _report.CHANNEL_VARIABLE not in os.environ:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say(f"the others are done: {me.name} came too late, and only waits to be stopped")
    _report.serving()
    while True:
        signal.pause()


def _agent(config: Any, entry: Any) -> Any:
    from torch.distributed.launcher.api import elastic_launch

    return elastic_launch(config, entry)


def _launch(elastic: Elastic, processes: int, me: Replica, launch: Callable[[Any], dict[int, Any]]) -> dict[int, Any]:
    """
    Train with the nodes that meet at one of them: the first, or the next one when that is gone.
    """
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError

    elsewhere = elastic.rdzv_endpoint or os.environ.get("PET_RDZV_ENDPOINT")
    if elsewhere or elastic.rdzv_backend != "c10d":
        return launch(_config(elastic, processes, me, elsewhere or me.cluster.replicas[0].address, None))
    places = [replica.address for replica in me.cluster.replicas]
    host = _meeting_place(places, me, 0)
    for _ in places[1:]:
        try:
            return launch(_config(elastic, processes, me, places[host], me.rank == host))
        except (RendezvousConnectionError, DistNetworkError):  # noqa: PERF203  # one turn for each node that is lost
            lost, host = host, _meeting_place(places, me, (host + 1) % len(places), _RETURN_SECONDS)
            say(f"the node at {places[lost]}, where the nodes met, is gone; they meet at {places[host]}")
    return launch(_config(elastic, processes, me, places[host], me.rank == host))


def _meeting_place(places: list[str], me: Replica, default: int, seconds: float = 0.0) -> int:
    """
    Where others meet already, looked for at least once and for up to so many seconds; *default* if they meet nowhere.

    A node that comes late finds those that are there; those that have lost theirs give it the time to come back.
    """
    limit = time.monotonic() + seconds
    while True:
        for place, address in enumerate(places):
            host, _, port = address.rpartition(":")
            if place != me.rank:
                with suppress(OSError), socket.create_connection((host, int(port)), timeout=_GLANCE_SECONDS):
                    return place
        if time.monotonic() >= limit:
            return default
        time.sleep(_GLANCE_SECONDS / 10)


def _quieten() -> None:
    # The agent's own traceback of a process that failed is about the agent; what has happened to the process is told by us.
    if "LOGLEVEL" not in os.environ:
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("torch.distributed.elastic"):
                logging.getLogger(name).setLevel(logging.CRITICAL)


def _config(elastic: Elastic, processes: int, me: Replica, endpoint: str, is_host: bool | None) -> Any:
    from torch.distributed.launcher.api import LaunchConfig

    _rendezvous.register()
    settings: dict[str, Any] = dict(elastic.rdzv_configs)
    if is_host is not None:
        # By itself each node would compare host names, and on one machine all of them would be the host.
        settings["is_host"] = is_host
    return LaunchConfig(
        min_nodes=elastic.min_nodes,
        max_nodes=elastic.nodes,
        nproc_per_node=processes,
        logs_specs=_no_files(),
        run_id=os.environ.get(RUN_VARIABLE, "distrib"),
        role="default",
        rdzv_endpoint=endpoint,
        rdzv_backend=_rendezvous.NAME if elastic.rdzv_backend == "c10d" else elastic.rdzv_backend,
        rdzv_configs=settings,
        max_restarts=elastic.max_restarts,
        monitor_interval=elastic.monitor_interval,
        start_method=elastic.start_method,
        local_addr=me.address.rpartition(":")[0] or None,
    )


@functools.cache
def _mend_ends() -> None:
    """
    Have a process that ended with 0 and returned nothing taken for one that failed: PyTorch would wait for its value for ever.
    And one that returns when it is told to end has ended: PyTorch would wait 30 seconds, since it waits itself to be told that all have.
    """
    from torch.distributed.elastic.multiprocessing import api

    poll = api.MultiprocessContext._poll  # noqa: SLF001  # agents ask nobody else
    close = api.MultiprocessContext._close  # noqa: SLF001

    def poll_strictly(self: Any) -> Any:
        result = poll(self)
        if result is not None:
            return result
        for place, process in enumerate(self._pc.processes):
            # One that has returned waits to be told that all have.
            if process.exitcode == 0 and place not in self._return_values:
                self.close()
                failure = api.ProcessFailure(local_rank=place, pid=process.pid, exitcode=0, error_file=self.error_files[place])
                return api.RunProcsResult(failures={place: failure}, stdouts=self.stdouts, stderrs=self.stderrs)
        return None

    def close_at_once(self: Any, death_sig: signal.Signals, timeout: int = 30) -> None:
        until = time.monotonic() + timeout
        left = dict(enumerate(self._pc.processes if self._pc else ()))
        _signal(left.values(), death_sig)
        while left and time.monotonic() < until:
            returned = {place for place in left if place in self._return_values or not self._ret_vals[place].empty()}
            # Nothing of the function's own catches the signal any more.
            _signal([left[place] for place in returned], signal.SIGTERM)
            connection.wait([process.sentinel for process in left.values()], _GLANCE_SECONDS / 10)
            left = {place: process for place, process in left.items() if process.is_alive()}
        close(self, death_sig, max(1, math.ceil(until - time.monotonic())))

    api.MultiprocessContext._poll = poll_strictly  # noqa: SLF001
    api.MultiprocessContext._close = close_at_once  # noqa: SLF001


def _signal(processes: Iterable[Any], number: int) -> None:
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, number)


def _no_files() -> Any:
    """
    Where PyTorch is to write logs and errors: nowhere. The output is the replica's, and errors are told by our own means.
    """
    from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs

    class NoFiles(LogsSpecs):  # type: ignore[misc]
        def reify(self, envs: dict[int, dict[str, str]]) -> Any:
            nowhere = dict.fromkeys(envs, "")
            return LogsDest(nowhere, nowhere, {}, {}, dict.fromkeys(envs, os.devnull))

        @property
        def root_log_dir(self) -> str:
            return os.devnull

    return NoFiles()


def _entry(call: Callable[[], Any], failures: IO[bytes], start_method: str) -> tuple[Any, list[Any]]:
    if isinstance(call, Command):
        call.set_defaults()  # the agent starts it with this process's variables
        return call.argv[0], call.argv[1:]
    if start_method == "spawn":
        return _run_fresh, [dumps(call), failures.name]
    return lambda: _run(call, failures), []


def _run_fresh(pickled: bytes, failures: str) -> bytes:
    """
    What a fresh interpreter runs; the file is opened for the ends of it, because the others write to it too.
    """

    def call() -> Any:
        return pickle.loads(pickled)()  # noqa: S301  # unpickles only what its own node wrote

    with Path(failures).open("ab", buffering=0) as file:
        return _run(call, file)


def _run(call: Callable[[], Any], failures: IO[bytes]) -> bytes:
    outcome, code = call_in_child(call, {})
    if outcome is None:
        end(code)
    if outcome.value is None:
        _tell(failures, {**(outcome.told or {}), "rank": int(os.environ["RANK"])})
        end(code)
    # What the function has made of it was for the function.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    flush()
    return outcome.value


def _tell(failures: IO[bytes], told: dict[str, Any]) -> None:
    say(f"the process of rank {told['rank']} failed\n{told['traceback']}")
    if not may_be_a_consequence(told["text"]):
        _report.progress(f"rank {told['rank']} failed with {told['type']}: {told['text'][:200]}")
    record = pickle.dumps(told)
    # One write at the place that all who have inherited this descriptor share.
    os.write(failures.fileno(), _HEADER.pack(len(record)) + record)


def _read(failures: IO[bytes]) -> Iterator[dict[str, Any]]:
    failures.seek(0)
    while header := failures.read(_HEADER.size):
        yield pickle.loads(failures.read(*_HEADER.unpack(header)))  # noqa: S301  # unpickles only what its own processes wrote


def _fail(rank: int, failure: Any, told: list[dict[str, Any]]) -> NoReturn:
    """
    Fail as the process did.
    """
    code = failure.exitcode
    last = told[-1] if told else None
    if code > 0 and last is not None and int(last["code"]) == code:
        if may_be_a_consequence(last["text"]):
            _wait_for_the_cause()
        raise ProcessFailedError(last, last["rank"])
    ended = tell_end(code)
    say(f"the process of rank {rank} ended with {ended['text']}, and no restarts are left")
    raise ProcessFailedError(ended, rank)


def _wait_for_the_cause() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_PATIENCE_SECONDS)


def _stop(number: int) -> NoReturn:
    say(f"stopped by {signal.Signals(number).name}")
    die_like(-number)
