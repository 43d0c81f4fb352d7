"""
What users see: checked by mypy and by pyright, never run.

An ``ignore`` says that the line has to be an error; one that is not is reported as unused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import assert_type

import distrib
from distrib import ClusterSpec, Job, Plan, Replica, ReplicaGroup, Resources, Results, Run, RunPolicy, distributed
from distrib.errors import ReplicaFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator


@distributed(framework="tensorflow", worker=2)
def train(epochs: int = 3, *, rate: float = 0.1) -> float:
    """A training function."""
    return epochs * rate


# The signature and the result are the function's own.
assert_type(train(epochs=2), float)
assert_type(train(2, rate=0.5), float)
train("two")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
train(steps=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
train(2, 0.5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
assert_type(train.function(2), float)
assert_type(train.job, Job)

# So are those of its other ways to be called.
run = train.submit(epochs=2)
assert_type(run, Run[float])
train.submit("two")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
plan = train.plan(epochs=2)
assert_type(plan, Plan[float])
train.plan(steps=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
assert_type(train.on("local", grace_period=5)(2), float)
assert_type(train.options(worker=8).submit(), Run[float])


@distributed.from_flyte(object(), name="train")
def moved(epochs: int = 3) -> float:
    """One that was a task of a Flyte plugin."""
    return float(epochs)


assert_type(moved(epochs=2), float)
moved("two")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

# A run and its results carry the type of the value.
assert_type(run.id, str)
assert_type(run.result(timeout=10), float)
assert_type(run.exception(), BaseException | None)
results = run.results()
assert_type(results, Results[float])
assert_type(results.value, float)
assert_type(results["worker"][1], float)
assert_type(list(results), list[float])
lines: Iterator[str] = run.logs("worker-1", follow=True)
run.cancel()


async def wait() -> float:
    """A run can be awaited."""
    return assert_type(await train.submit(), float)


# Every way to write a group and a policy is legal.
@distributed(
    framework="tensorflow",
    chief=1,
    worker={"replicas": 2, "env": {"A": "b"}},
    ps=ReplicaGroup(role="ps", replicas=1, requests=Resources(cpu=0.5, memory="1Gi")),
    run_policy=RunPolicy(clean_pod_policy="All", backoff_limit=3),
    env={"A": "b"},
    local={"grace_period": 5},
)
def every_way(text: str) -> list[str]:
    """Another training function."""
    return [text]


assert_type(every_way("a"), list[str])


# Methods keep their signature without `self`.
class Trainer:
    """Holds a model."""

    def fit(self, epochs: int) -> dict[str, float]:
        """A method that is a training function."""
        return {"loss": 1 / epochs}

    @distributed(framework="tensorflow", worker=2)
    def train(self, epochs: int = 3) -> float:
        """One that is decorated where it is defined."""
        return 1 / epochs


trainer = Trainer()
fit = distributed(framework="tensorflow", worker=2)(trainer.fit)
assert_type(fit(2), dict[str, float])
assert_type(trainer.train(epochs=2), float)
trainer.train("two")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
trainer.train(trainer, 2)  # type: ignore[call-arg, arg-type] # pyright: ignore[reportCallIssue]
assert_type(trainer.train.submit(epochs=2), Run[float])
assert_type(trainer.train.options(worker=8)(2), float)

# Asked of its class, it needs the object.
assert_type(Trainer.train(trainer, 2), float)
assert_type(Trainer.train.submit(trainer), Run[float])
Trainer.train(2)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

# Programs bring no value.
assert_type(distributed("tensorflow", worker=2)(distrib.Command(["true"])).submit(), Run[None])

# Inside of a replica.
me = distrib.replica()
assert_type(me, Replica)
assert_type(me.index, int)
assert_type(me.cluster, ClusterSpec)
assert_type(me.cluster["worker"], tuple[str, ...])

# An error carries what it knows.
error = run.exception()
if isinstance(error, ReplicaFailedError):
    assert_type(error.replica, str)
    assert_type(error.exit_code, int | None)

# Values are frozen.
train.job.name = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
