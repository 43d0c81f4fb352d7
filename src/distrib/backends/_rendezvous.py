"""
How nodes of elastic training meet: PyTorch's own rendezvous, which here also notices that a node is gone that had come.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from distrib._streams import say

__all__ = ["NAME", "register"]

#: What PyTorch's registry of rendezvous knows ours by.
NAME = "distrib"
_GLANCE_SECONDS = 0.05


def register() -> None:
    """
    Tell PyTorch of it.
    """
    from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler
    from torch.distributed.elastic.rendezvous.registry import handler_registry

    # Nodes are told apart by host, process id and a number that begins with 0. Started again, a pod has the same of each, and would
    # be taken for the one that is lost.
    DynamicRendezvousHandler._node_desc_generator._local_id = secrets.randbits(31)  # noqa: SLF001  # there is no other way
    handler_registry.register(NAME, _create)


def _create(params: Any) -> Any:
    from torch.distributed.elastic.rendezvous.api import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import handler_registry

    places = (params.endpoint, params.run_id, params.min_nodes, params.max_nodes, params.local_addr)
    handler = handler_registry.create_handler(RendezvousParameters("c10d", *places, **params.config))
    _beat_twice(handler.settings)
    return _Watchful(handler)


def _beat_twice(settings: Any) -> None:
    """
    Have a node's heart beat twice in an interval, and be given up after as long as before.

    PyTorch looks once in an interval whether the last beat is that long ago. What is looked at a moment too early beats at every
    second interval only, and with two attempts a node that is well is given up again and again.
    """
    for name, value in (
        ("keep_alive_interval", settings.keep_alive_interval / 2),
        ("keep_alive_max_attempt", settings.keep_alive_max_attempt * 2),
    ):
        object.__setattr__(settings, name, value)  # it is frozen, and shared by all that read it


class _Watchful:
    """
    PyTorch's handler, but for two things that its agents never notice: a node that is lost between its coming and the first
    step leaves the others waiting, the agents for its word, or the processes for its processes, until a timeout ends the run.
    """

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._met: frozenset[Any] = frozenset()
        self._round = 0
        self._unheard_since: float | None = None
        self._get_store = handler._get_store  # noqa: SLF001  # the last step before nodes wait for each other's word
        handler._get_store = self._store_of_those_who_answer  # noqa: SLF001

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def get_backend(self) -> str:
        """
        The name that it was asked for by.
        """
        return NAME

    def next_rendezvous(self) -> Any:
        """
        Meet, until all that have met are still there.
        """
        while True:
            try:
                return self._handler.next_rendezvous()
            except _GoneError:  # noqa: PERF203  # one turn for each node that is lost
                say("a node that had come is gone; the others meet again")

    def num_nodes_waiting(self) -> int:
        """
        For how many nodes the agent is to have its processes started again: those that wait, and one if some are lost.
        """
        return max(int(self._handler.num_nodes_waiting()), int(self._is_one_lost()))

    @property
    def _state(self) -> Any:
        return self._handler._state_holder.state  # noqa: SLF001  # who is there is told in no other way

    def _is_one_lost(self) -> bool:
        """
        Whether a node of this round has not been heard of for twice the time after which PyTorch forgets it: those that are
        forgotten too early, as happens in the first second of a round, are heard of again.
        """
        if self._state.closed or self._met <= self._state.last_heartbeats.keys():
            self._unheard_since = None
            return False
        settings = self._handler.settings
        patience = settings.keep_alive_interval.total_seconds() * settings.keep_alive_max_attempt
        self._unheard_since = self._unheard_since or time.monotonic()
        return bool(time.monotonic() - self._unheard_since > patience)

    def _have_others_left(self) -> bool:
        state = self._state
        return bool(state.closed or state.round != self._round or self._met & state.wait_list)

    def _store_of_those_who_answer(self) -> Any:
        store = self._get_store()
        me, world = self._handler._get_world()  # noqa: SLF001
        self._round, self._met, self._unheard_since = self._state.round, frozenset(self._state.participants), None
        # Who completes the meeting may wait a second for the others to hear of it; the second answer says that it still does.
        for question in ("here", "ready"):
            names = [f"distrib/{question}/{rank}" for rank in range(world)]
            store.set(names[me], "yes")
            while not store.check(names):
                self._handler.num_nodes_waiting()  # asks anew who is there
                if self._is_one_lost() or self._have_others_left():
                    raise _GoneError
                time.sleep(_GLANCE_SECONDS)
        return store


class _GoneError(Exception):
    """
    A node is gone that had come.
    """
