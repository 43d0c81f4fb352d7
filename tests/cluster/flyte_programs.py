"""
The tasks of Flyte's that pods of a real cluster execute: each of those imports this file by its name.
"""

import os
import time
from typing import Any

from distrib import distributed, replica

#: Small enough for one machine, and said for all, so that nothing is the platform's; pods stay, to be looked at.
SMALL: dict[str, Any] = {
    "requests": {"cpu": "100m", "memory": "64Mi"},
    "limits": {"cpu": 2, "memory": "2Gi"},
    "run_policy": {"clean_pod_policy": "None"},
}


def told(failing: str) -> str:
    """
    The name of this replica, or of its rank. One of them may be to raise; the others would then go on for long.
    """
    me = replica()
    name = f"rank-{os.environ['RANK']}" if "RANK" in os.environ else me.name
    if name == failing:
        raise ValueError(f"{name} is out of luck")
    if failing or me.role == "ps":
        time.sleep(600)
    return name


@distributed(framework="tensorflow", chief=1, worker=1, ps=1, evaluator=1, **SMALL)
def with_chief(failing: str) -> str:
    """
    A chief leads it.
    """
    return told(failing)


@distributed(framework="tensorflow", worker=2, **SMALL)
def without_chief(failing: str) -> str:
    """
    Worker 0 leads it.
    """
    return told(failing)


@distributed(framework="pytorch", master=1, worker=1, **SMALL)
def standard(failing: str) -> str:
    """
    A master and a worker, a process each.
    """
    return told(failing)


@distributed(framework="pytorch", elastic={"min_nodes": 2, "start_method": "fork"}, **SMALL)
def elastic(failing: str) -> str:
    """
    Two nodes, whose agents agree on who has which rank.
    """
    return told(failing)
