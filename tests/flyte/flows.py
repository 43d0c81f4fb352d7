"""
The tasks that the tests run in pods of their own making.
"""

import json
import os
import signal
import time

import flytekit
from flytekit.exceptions.user import FlyteRecoverableException

from distrib import RetryableError, distributed, replica

QUIET = {"preload": False, "echo": False}


def told(way: str) -> str:
    """
    Do what *way* says for this replica, as in ``"worker-1 raise, chief-0 wait"``; else return who this is and what it sees.
    """
    me = replica()
    orders = dict(order.split() for order in way.split(",")) if way else {}
    print("TF_CONFIG", os.environ.get("TF_CONFIG"), flush=True)
    what = orders.get(f"{me.role}-{os.environ.get('RANK') if me.role == 'rank' else me.index}", "return")
    if what == "late":
        time.sleep(3)
    if what in ("raise", "late"):
        raise ValueError(f"{me.name} is out of luck")
    if what == "recover":
        raise FlyteRecoverableException(f"{me.name} may try again")
    if what == "retry":
        raise RetryableError(f"{me.name} may try again")
    if what == "lose":
        raise ConnectionError("Connection reset by peer")
    if what == "wait" or (me.role == "ps" and what == "return"):
        time.sleep(3600)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        raise SystemExit(3)
    seen = json.loads(os.environ.get("TF_CONFIG", "{}"))
    return json.dumps({"name": me.name, "is_coordinator": me.is_coordinator, "world_size": me.world_size, "TF_CONFIG": seen})


@distributed(framework="tensorflow", chief=1, worker=2, ps=1, evaluator=1, local=QUIET)
def with_chief(way: str) -> str:
    """
    A chief leads it.
    """
    return told(way)


@distributed(framework="tensorflow", worker=2, ps=1, evaluator=1, local=QUIET)
def without_chief(way: str) -> str:
    """
    Worker 0 leads it.
    """
    return told(way)


@distributed(framework="tensorflow", worker=1, local=QUIET)
def alone(way: str) -> str:
    """
    There is one replica.
    """
    return told(way)


@distributed(framework="tensorflow", worker=2, local=QUIET, flyte={"enable_deck": True})
def without_value(way: str) -> None:
    """
    It returns nothing, and fills a deck.
    """
    flytekit.Deck("who", replica().name)
    told(way)


@distributed(framework="pytorch", master=1, worker=1, local=QUIET)
def standard(way: str) -> str:
    """
    A master, a worker, a process each.
    """
    return told(way)


def _rank(way: str) -> dict[str, str]:
    rank = os.environ["RANK"]
    orders = dict(order.split() for order in way.split(",")) if way else {}
    what = orders.get(rank, "return")
    if what == "raise":
        raise ValueError(f"rank {rank} is out of luck")
    if what == "recover":
        raise FlyteRecoverableException(f"rank {rank} may try again")
    if what == "retry":
        raise RetryableError(f"rank {rank} may try again")
    if what == "wait":
        time.sleep(3600)
    flytekit.Deck("ranks", f"rank {rank}")
    me = replica()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT", "OMP_NUM_THREADS")
    return {**{name: os.environ[name] for name in names}, "is_coordinator": str(me.is_coordinator), "name": me.name}


@distributed(framework="pytorch", master=1, worker=1, nproc_per_node=2, local=QUIET, flyte={"enable_deck": True})
def several(way: str) -> dict[str, str]:
    """
    Two processes on each of two nodes.
    """
    return _rank(way)


@distributed(framework="pytorch", worker=2, nproc_per_node=2, env={"OMP_NUM_THREADS": "8"}, local=QUIET)
def threads(way: str) -> dict[str, str]:
    """
    Two processes on each of two nodes, the first of which Flyte makes a master, and how many threads each is to have.
    """
    return _rank(way)


@distributed(
    framework="pytorch",
    elastic={"min_nodes": 2, "nproc_per_node": 2, "max_restarts": 0},
    local=QUIET,
    flyte={"enable_deck": True},
)
def elastic(way: str) -> dict[str, str]:
    """
    Two elastic nodes of two processes.
    """
    return _rank(way)


@distributed(framework="pytorch", elastic={"min_nodes": 1, "nproc_per_node": 2, "max_restarts": 0}, local=QUIET)
def elastic_alone(way: str) -> dict[str, str]:
    """
    One elastic node of two processes.
    """
    return _rank(way)
