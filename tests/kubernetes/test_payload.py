"""
The call on its way to the pods: what the Secret of a run holds, and what does not fit into it.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acts
import attrs
import pytest
from buckets import Buckets
from hypothesis import given
from hypothesis import strategies as st
from processes import Pods

from distrib import Job
from distrib._registry import backends
from distrib.backend import Backend, Role
from distrib.engine import Call
from distrib.engines.kubernetes._orders import Orders
from distrib.engines.kubernetes._payload import LIMIT, pack
from distrib.engines.kubernetes._results import whole
from distrib.errors import InvalidJobError, MissingDependencyError, SubmitError

ORDERS = Orders(run="mine", namespace="here", workload="job", cluster={"worker": ("a:1", "b:1")}, coordinator="worker-0")
JOB = Job("tensorflow", worker=2)


def packed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What the pods are given of a call."""
    about: dict[str, Any] = pickle.loads(pack(Call(function, args, kwargs), JOB, ORDERS)["call.pickle"])
    return about


NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(
    st.builds(
        Orders,
        run=NAMES,
        namespace=NAMES,
        workload=st.sampled_from(["operator", "job"]),
        cluster=st.integers(1, 3).map(lambda count: {"worker": tuple(f"h{index}:1" for index in range(count))}),
        coordinator=st.just("worker-0"),
        services=st.lists(NAMES, max_size=2).map(tuple),
        restarts=st.dictionaries(NAMES, st.sampled_from(["Never", "OnFailure"]), max_size=2),
        deciders=st.just(("worker-0",)),
        needed=st.none() | st.integers(1, 3),
        grace_period=st.floats(0, 100),
        storage=st.none() | NAMES,
        token=NAMES,
    )
)
def test_orders_are_read_back(orders: Orders) -> None:
    """Every field of them, and equal ones are the same bytes."""
    assert Orders.from_json(orders.to_json()) == orders
    assert attrs.evolve(orders).to_json() == orders.to_json()


def test_orders_of_another_format_are_refused() -> None:
    """An image with another distrib says so."""
    with pytest.raises(ValueError, match="reads format 1"):
        Orders.from_json(ORDERS.to_json().replace(b'"format":1', b'"format":2'))


def test_only_pods_of_the_run_know_its_token() -> None:
    """It is made for each run."""
    tokens = {Orders.from_json(pack(Call(acts.give, (1,), {}), JOB, ORDERS)["orders.json"]).token for _ in range(2)}
    assert len(tokens) == 2
    assert all(len(token) == 32 for token in tokens)


def test_a_function_of_a_module_goes_by_its_name() -> None:
    """And works in a pod with another Python."""
    about = packed(acts.give, 5, key={"a": [1.5]})
    target, (args, _) = pickle.loads(about["call"])
    assert (target, args) == ("acts:give", (5,))
    assert not about["by_value"]


def _inner() -> int:
    """Of a module that no pod can import."""
    return 5


def _outer() -> int:
    """Needs another one of the same module."""
    return _inner() + 1


@pytest.mark.parametrize("function", [lambda: 6, _outer], ids=["lambda", "of a test"])
def test_any_other_goes_itself(tmp_path: Path, function: Callable[..., Any]) -> None:
    """One without a name, and one whose module no pod can import, with what it needs of that."""
    assert packed(function)["by_value"]
    with Pods(tmp_path, Job("tensorflow", worker=1), function) as pods:
        told = pods.start().report("worker-0").value
        assert told is not None, pods.log("worker-0")
        assert pickle.loads(told) == 6


def test_the_versions_that_matter_are_told() -> None:
    """Those of the packages that the call names, and the framework's."""
    import numpy as np

    about = packed(acts.give, np.arange(3))
    assert about["versions"]["numpy"] == np.__version__
    assert any(name.startswith("tensorflow") for name in about["versions"])


@pytest.mark.parametrize("build", [threading.Lock, lambda: (number for number in ())], ids=["lock", "generator"])
def test_what_cannot_be_pickled_is_named(build: Callable[[], Any]) -> None:
    """By the argument that holds it."""
    with pytest.raises(InvalidJobError, match="argument value of give"):
        packed(acts.give, build())


def test_what_is_too_large_needs_a_storage() -> None:
    """The error says how large each part is, and what to write."""
    with pytest.raises(InvalidJobError, match=r"too large for a Secret.*kubernetes=\{'storage'") as caught:
        pack(Call(acts.give, (os.urandom(LIMIT),), {}), JOB, ORDERS)
    assert caught.value.field == "kubernetes.storage"


def test_what_is_too_large_goes_to_the_storage(tmp_path: Path) -> None:
    """The Secret keeps the orders alone, and the pod reads the rest there."""
    with Pods(tmp_path, Job("tensorflow", worker=1), acts.give, os.urandom(LIMIT), storage=f"file://{tmp_path}/runs/mine") as pods:
        assert [path.name for path in pods.secret.iterdir()] == ["orders.json"]
        assert (tmp_path / "runs" / "mine" / "call.pickle").stat().st_size > LIMIT
        report = pods.start().report("worker-0")
        assert (report.kind, report.stored) == ("returned", f"file://{tmp_path}/runs/mine/worker-0.report")


def test_a_storage_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call and value go through a bucket, by Amazon's own client."""
    pytest.importorskip("s3fs")
    buckets = Buckets()
    for name, word in buckets.environment.items():
        monkeypatch.setenv(name, word)
    data = os.urandom(LIMIT)
    try:
        with Pods(tmp_path, Job("tensorflow", worker=1), acts.give, data, storage="s3://bucket/runs/mine") as pods:
            assert set(buckets.objects) == {"/bucket", "/bucket/runs/mine/call.pickle", "/bucket/runs/mine/code.zip"}
            report = pods.start().report("worker-0")
            assert report.stored == "s3://bucket/runs/mine/worker-0.report"
            assert pickle.loads(whole(report).value or b"") == data
    finally:
        buckets.close()


def test_a_storage_that_the_pod_cannot_read(tmp_path: Path) -> None:
    """It is named, with what may be missing."""
    with Pods(tmp_path, Job("tensorflow", worker=1), acts.give, 1, storage=f"file://{tmp_path}/runs/mine") as pods:
        (pods.secret / "call.pickle").unlink()
        report = pods.start().report("worker-0")
        assert report.kind == "refused"
        assert "cannot be read in the pod" in report.text


@pytest.mark.parametrize(
    ("storage", "error", "words"),
    [
        ("file:///proc/none", SubmitError, "cannot be written"),
        ("s4://bucket", SubmitError, "s4"),
        ("oss://bucket", MissingDependencyError, "python -m pip install ossfs"),
    ],
)
def test_a_storage_that_cannot_be_written(storage: str, error: type[Exception], words: str) -> None:
    """Submitting fails before anything is sent."""
    with pytest.raises(error, match=words):
        pack(Call(acts.give, (os.urandom(LIMIT),), {}), JOB, attrs.evolve(ORDERS, storage=storage))


class Gossip(Backend):
    """A backend that no package brings."""

    name = "gossip"
    roles = (Role("peer", at_least=1),)

    def environment(self, replica: Any, cluster: Any) -> dict[str, str]:
        """Who the others are."""
        return {"GOSSIP": f"{replica.rank} of {cluster.world_size}"}


def test_a_backend_of_the_projects_own_goes_along(tmp_path: Path) -> None:
    """The image need not have it."""
    with backends.standing_in("gossip", Gossip()):
        job = Job("gossip", peer=2)
        with Pods(tmp_path, job, acts.where) as pods:
            told = pods.start().report("peer-1").value
            assert told is not None
            assert pickle.loads(told)["environ"]["GOSSIP"] == "1 of 2"
