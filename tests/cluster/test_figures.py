"""
What a run costs: requests, seconds and CPU, measured on the cluster and printed at the end of the session.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3
from outside import Cluster, name_of

import programs

#: What was measured, for the end of the session; see conftest.py.
FIGURES: list[str] = []


@contextmanager
def counted() -> Iterator[list[str]]:
    """
    The requests that this process sends meanwhile.
    """
    sent: list[str] = []
    real = urllib3.connectionpool.HTTPConnectionPool.urlopen

    def urlopen(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(f"{method} {url.partition('?')[0]}{'?watch' if 'watch=1' in url else ''}")
        return real(self, method, url, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.connectionpool.HTTPConnectionPool, "urlopen", urlopen)
        yield sent


def cost(cluster: Cluster, replicas: int, seconds: float) -> list[str]:
    """
    What a run asks the API server, from submit to value, without following logs.
    """
    with counted() as sent:
        cluster.task(programs.count, worker=replicas, options={"workload": "job"}).submit(seconds, 0.5).result(120)
    return sent


def test_requests_do_not_grow(cluster: Cluster) -> None:
    """
    A run of ten replicas asks the API server for as much as one of two, and a long one for as much as a short one.
    """
    short, long, wide = (len(cost(cluster, replicas, seconds)) for replicas, seconds in ((2, 1), (2, 8), (10, 1)))
    FIGURES.append(f"API requests per run: {short} (2 replicas, 1 s), {long} (2 replicas, 8 s), {wide} (10 replicas, 1 s)")
    assert long <= short + 1
    assert wide <= short + 1


def test_value_comes_at_once(cluster: Cluster) -> None:
    """
    A value is there as soon as the API server knows of the pod's end: nobody asks for it every so often. The seconds are a figure.
    """
    from kubernetes import watch

    taken = []
    for _ in range(3):
        run = cluster.task(programs.count, worker=1, options={"workload": "job"}).submit(3)
        ended: list[float] = []

        def look(name: str = name_of(run), ended: list[float] = ended) -> None:
            events = watch.Watch().stream(
                cluster.core.list_namespaced_pod, cluster.namespace, label_selector=f"distrib.dev/run={name}", timeout_seconds=60
            )
            for event in events:
                states = event["object"].status.container_statuses or []
                if any(each.state.terminated for each in states):
                    ended.append(time.monotonic())
                    return

        thread = threading.Thread(target=look)
        thread.start()
        value = run.result(60)
        came = time.monotonic()
        assert value > 0
        thread.join()
        taken.append(max(0.0, came - ended[0]))
    FIGURES.append(f"pod finished to value returned: {max(taken):.3f} s at most of {len(taken)} runs")
    assert max(taken) < 10


@pytest.mark.slow
def test_following_many_logs(cluster: Cluster) -> None:
    """
    All lines of many pods come; the share of a core that this takes is a figure.
    """
    replicas = 40
    run = cluster.task(programs.count, worker=replicas, options={"workload": "job"}).submit(20, 0.1)
    lines: list[str] = []
    began, used = 0.0, 0.0
    # Pods that have to wait for others long say so; that is none of the lines that are counted.
    for line in (line for line in run.logs(follow=True) if "] line " in line):
        if not lines:
            began, used = time.monotonic(), time.process_time()
        lines.append(line)
    seconds, cores = time.monotonic() - began, time.process_time() - used
    FIGURES.append(f"following {replicas} replicas' logs: {len(lines) / seconds:.0f} lines/s with {cores / seconds:.2f} cores")
    assert len(lines) == len(set(lines)) == sum(run.results(60))
