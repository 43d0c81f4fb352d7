"""
JAX: processes that find each other without arguments.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given

from distrib import Command, ReplicaFailedError, distributed
from distrib._registry import get_backend
from distrib.testing.strategies import cluster_specs

ECHO = {"echo": False}

OLD = version("jax").startswith("0.4.")
accelerators_only = pytest.mark.skipif(OLD, reason="JAX 0.4 computes across processes only on accelerators")


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
def meet() -> tuple[int, int, Any]:
    """
    Process, processes, and a sum over all processes, as an array of JAX.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental import multihost_utils

    jax.distributed.initialize()
    parts = multihost_utils.process_allgather(jnp.array([jax.process_index() + 1.0]))
    return jax.process_index(), jax.process_count(), jnp.asarray(parts.sum())


@accelerators_only
def test_processes_meet() -> None:
    """
    ``jax.distributed.initialize()`` needs no arguments, a reduction goes across processes, and arrays are values like others.
    """
    import jax

    results = list(meet.submit().results(120))
    assert [(process, processes, float(total)) for process, processes, total in results] == [(0, 2, 3.0), (1, 2, 3.0)]
    assert all(isinstance(total, jax.Array) for _, _, total in results)


PROGRAM = """
import os, jax, jax.numpy as jnp
from jax.experimental import multihost_utils

jax.distributed.initialize(num_processes=int(os.environ["JAX_NUM_PROCESSES"]), process_id=int(os.environ["JAX_PROCESS_ID"]))
parts = multihost_utils.process_allgather(jnp.array([jax.process_index() + 1.0]))
print(jax.process_index(), jax.process_count(), float(parts.sum()), jax.config.jax_enable_preemption_service)
"""


@accelerators_only
def test_processes_of_a_program_meet() -> None:
    """
    A program finds its place in the variables, and SIGTERM is left alone in it too.
    """
    run = distributed("jax", worker=2, local=ECHO)(Command([sys.executable, "-c", PROGRAM])).submit()
    run.result(120)
    told = [line for line in run.logs() if not line.partition("] ")[2].startswith("[Gloo]")]
    assert sorted(told) == ["[worker-0] 0 2 3.0 False", "[worker-1] 1 2 3.0 False"]


@distributed("jax", worker=2, local={**ECHO, "grace_period": 1000})
def fail(how: str) -> None:
    """
    Process 1 raises; process 0 would wait for it for ever.
    """
    import jax
    from jax.experimental import multihost_utils

    jax.distributed.initialize()
    multihost_utils.sync_global_devices("both are there")
    if jax.process_index() == 1:
        raise KeyError("what")
    if how == "collective":
        multihost_utils.sync_global_devices("never")
    time.sleep(1000)


@accelerators_only
@pytest.mark.parametrize("how", ["collective", "sleep"])
def test_a_failing_process_ends_the_run(how: str) -> None:
    """
    SIGTERM ends the others, long before anybody would kill them.
    """
    error = fail.submit(how).exception(60)
    assert isinstance(error, ReplicaFailedError)
    assert (error.replica, type(error.__cause__)) == ("worker-1", KeyError)


@distributed("jax", worker=1, local=ECHO)
def alone() -> tuple[int, str, bool]:
    """
    How many processes there are, who is asked, and whether SIGTERM is a notice.
    """
    import jax

    jax.distributed.initialize()
    return jax.process_count(), os.environ["JAX_PROCESS_ID"], getattr(jax.config, "jax_enable_preemption_service", True)


@pytest.mark.parametrize("notices", [False, True])
def test_one_process(notices: bool) -> None:
    """
    The same function runs as the only process; who wants notices of preemption gets them.
    """
    env = {"JAX_ENABLE_PREEMPTION_SERVICE": "true"} if notices else {}
    assert alone.options(env=env)() == (1, "0", notices or OLD)
