"""
JAX: processes that find each other without arguments.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given

from distrib import distributed
from distrib._registry import get_backend
from distrib.testing.strategies import cluster_specs

ECHO = {"echo": False}


@given(cluster_specs("jax"))
def test_environment(cluster: Any) -> None:
    """
    Process ids are the ranks, and all agree on process 0 as the coordinator.
    """
    seen = [get_backend("jax").environment(replica, cluster) for replica in cluster.replicas]
    assert [each["JAX_PROCESS_ID"] for each in seen] == [str(rank) for rank in range(cluster.world_size)]
    assert {each["JAX_NUM_PROCESSES"] for each in seen} == {str(cluster.world_size)}
    assert {each["JAX_COORDINATOR_ADDRESS"] for each in seen} == {cluster["worker"][0]}
    assert get_backend("jax").coordinator(cluster).rank == 0


# In a pod, JAX's own way to find the processes would ask the API server, for which pods of ours have no token.
@distributed("jax", worker=2, env={"KUBERNETES_SERVICE_HOST": "nowhere.invalid", "KUBERNETES_SERVICE_PORT": "443"}, local=ECHO)
def meet() -> tuple[int, int, float]:
    """
    Process, processes, and a sum over all processes.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental import multihost_utils

    jax.distributed.initialize()
    parts = multihost_utils.process_allgather(jnp.array([jax.process_index() + 1.0]))
    return jax.process_index(), jax.process_count(), float(parts.sum())


@pytest.mark.skipif(version("jax").startswith("0.4."), reason="JAX 0.4 computes across processes only on accelerators")
def test_processes_meet() -> None:
    """
    ``jax.distributed.initialize()`` needs no arguments, and a reduction goes across processes.
    """
    assert list(meet.submit().results(120)) == [(0, 2, 3.0), (1, 2, 3.0)]


@distributed("jax", worker=1, local=ECHO)
def alone() -> tuple[int, str]:
    """
    How many processes there are, and who is asked.
    """
    import jax

    jax.distributed.initialize()
    return jax.process_count(), os.environ["JAX_PROCESS_ID"]


def test_one_process() -> None:
    """
    The same function runs as the only process.
    """
    assert alone() == (1, "0")
