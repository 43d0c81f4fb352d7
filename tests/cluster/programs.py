"""
What the replicas of these tests run: each function is short, and says what it has seen.
"""

import os
import signal
import socket
import sys
import time
from typing import Any

from distrib import replica


def seen(*names: str) -> dict[str, Any]:
    """
    Who this replica is, and those variables of its environment.
    """
    me = replica()
    found = {name: os.environ[name] for name in names if name in os.environ}
    return {"name": me.name, "rank": me.rank, "world_size": me.world_size, "coordinator": me.is_coordinator, "environment": found}


def resolved(host: str) -> str:
    """
    The address of a name; a cluster's DNS that has much to do may fail to answer once.
    """
    for _ in range(10):
        try:
            return socket.gethostbyname(host)
        except socket.gaierror:  # noqa: PERF203  # that is what tries are for
            time.sleep(1)
    return socket.gethostbyname(host)


def meet() -> dict[str, Any]:
    """
    Resolve every replica's name, and say which addresses are distinct.
    """
    hosts = [address.rpartition(":")[0] for addresses in replica().cluster.values() for address in addresses]
    return {**seen(), "peers": len({resolved(host) for host in hosts})}


def serve() -> dict[str, Any]:
    """
    As :func:`meet`, but parameter servers never come back.
    """
    print("serving", flush=True)
    if replica().role == "ps":
        time.sleep(3600)
    return meet()


def around() -> str:
    """
    The name of the next one, which answers to it; the store never comes back.
    """
    if replica().role == "store":
        time.sleep(3600)
    host = os.environ["RING_NEXT"].rpartition(":")[0]
    resolved(host)
    return host.partition(".")[0]


def count(seconds: float, every: float = 0.1) -> int:
    """
    Print a number every so often, and return how many there were.
    """
    number = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print("line", number, flush=True)
        number += 1
        time.sleep(every)
    return number


def flood(lines: int, pause: float = 0.0) -> int:
    """
    Write as many numbered lines, as fast as can be.
    """
    for number in range(lines):
        print(f"{number:07d} {'x' * 60}")
        if pause and number % 100 == 0:
            sys.stdout.flush()
            time.sleep(pause)
    return lines


class OutOfPaintError(RuntimeError):
    """
    An exception of the user's own.
    """


def fail(how: str, who: str = "worker-1") -> str:
    """
    One replica fails in that way; the others would go on for long.
    """
    if replica().name != who:
        time.sleep(600)
        return "not reached"
    time.sleep(0.5)
    print("about to fail", flush=True)
    if how == "exception":
        raise OutOfPaintError("no blue left")
    if how == "exit":
        sys.exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "memory":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20) * 8))
    raise AssertionError(how)


def fail_before(moment: float, code: int, who: str = "worker-1") -> float:
    """
    One replica ends with that code until the clock says so; whenever it is started after that, it returns.
    """
    if replica().name == who and time.time() < moment:
        os._exit(code)
    return time.time()


def large(megabytes: int) -> bytes:
    """
    More than a termination message holds.
    """
    return bytes(range(256)) * (4096 * megabytes)


def size(data: bytes) -> int:
    """
    How much has arrived.
    """
    return len(data)


def keras_digits(epochs: int) -> float:
    """
    Handwritten digits on all workers in step; the accuracy on digits that were not trained on.
    """
    import keras
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from distrib.tensorflow import strategy

    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
    with strategy().scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss, metrics=["accuracy"])
    assert strategy().num_replicas_in_sync == replica().world_size
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2 if replica().is_coordinator else 0)
    return float(model.evaluate(x_test, y_test, verbose=0)[1])


def tensorflow_ps() -> dict[str, Any]:
    """
    The chief counts on the workers with its variable on the parameter server; the evaluator does without all of them.
    """
    import tensorflow as tf

    from distrib.tensorflow import strategy

    chosen = strategy()  # workers and parameter servers serve here, and never return
    if replica().role == "evaluator":
        return {**seen(), "strategy": type(chosen).__name__}
    coordinator = tf.distribute.coordinator.ClusterCoordinator(chosen)
    with chosen.scope():
        total = tf.Variable(0.0)

    @tf.function
    def step() -> None:
        total.assign_add(1.0)

    for _ in range(6):
        coordinator.schedule(step)
    coordinator.join()
    return {**seen(), "total": float(total.numpy()), "device": total.device}


def torch_sum() -> dict[str, Any]:
    """
    Each process adds its rank and one; DDP takes a step so that all have the same weights.
    """
    import torch
    import torch.distributed as dist

    from distrib.pytorch import process_group

    with process_group() as device:
        total = torch.ones(1, device=device) * (dist.get_rank() + 1)
        dist.all_reduce(total)
        torch.manual_seed(dist.get_rank())
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1, bias=False))
        model(torch.ones(4, 2) * dist.get_rank()).sum().backward()
        gradient = model.module.weight.grad
        return {**seen(), "sum": float(total), "gradient": gradient.tolist()}


def elastic(steps: int) -> dict[str, Any]:
    """
    Sum ones in step, and go on with those that are left; the sizes of the groups that this process was in.
    """
    import torch
    import torch.distributed as dist

    from distrib.pytorch import process_group

    worlds = []
    with process_group("gloo"):
        for step in range(steps):
            ones = torch.ones(1)
            dist.all_reduce(ones)
            worlds.append(int(ones.item()))
            print("step", step, "of a group of", worlds[-1], flush=True)
            if worlds[-1] == 1:
                break
            time.sleep(0.1)
    return {**seen(), "last": worlds[-1], "steps": len(worlds)}


def jax_sum() -> float:
    """
    The sum of the processes' indices, each plus one.
    """
    import jax
    from jax.experimental import multihost_utils

    jax.distributed.initialize()
    parts = multihost_utils.process_allgather(jax.numpy.array([jax.process_index() + 1.0]))
    return float(parts.sum())


def noise(size: int) -> bytes:
    """
    What cannot be compressed.
    """
    return os.urandom(size)
