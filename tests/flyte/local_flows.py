"""
Workflows that the tests run on this machine.
"""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import flytekit
from flytekit import Artifact, LaunchPlan, dynamic, map_task, task, workflow
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

from distrib import Job, distributed, replica

QUIET = {"preload": False, "echo": False}


def seen(role: str) -> str:
    """
    What a replica knows of the run.
    """
    me = replica()
    config = json.loads(os.environ["TF_CONFIG"])
    counts = {name: len(addresses) for name, addresses in config["cluster"].items()}
    return json.dumps({"name": me.name, "pid": os.getpid(), "cluster": counts, "asked": role, "world_size": me.world_size})


@distributed(framework="tensorflow", chief=1, worker=2, local=QUIET)
def train(role: str = "any") -> str:
    """
    Three replicas.
    """
    return seen(role)


@task(task_config=Job("tensorflow", chief=1, worker=2, local=QUIET))
def by_flytekit(role: str = "any") -> str:
    """
    The same, by flytekit's decorator.
    """
    return seen(role)


@distributed(framework="tensorflow", worker=2, local=QUIET)
def square(x: int) -> int:
    """
    A number for numbers.
    """
    return x * x * replica().world_size


@distributed(framework="tensorflow", worker=2, local=QUIET)
def fails(x: int) -> int:
    """
    Fails in worker 1.
    """
    if replica().index == 1:
        raise ValueError(f"{x} is out of luck")
    return x


@task
def shout(text: str) -> str:
    """
    An ordinary task.
    """
    return text.upper()


@workflow
def flow(role: str) -> str:
    """
    The value flows on into an ordinary task.
    """
    return shout(text=train(role=role))


@workflow
def mapped(xs: list[int]) -> list[int]:
    """
    A run for each number.
    """
    return map_task(square)(x=xs)


@dynamic
def many(count: int) -> list[int]:
    """
    As many runs as it is told.
    """
    return [square(x=x) for x in range(count)]


@workflow
def dynamic_flow(count: int) -> list[int]:
    """
    A dynamic workflow in another one.
    """
    return many(count=count)


@workflow
def failing(x: int) -> int:
    """
    Its task fails.
    """
    return fails(x=x)


@workflow
def overridden(x: int) -> int:
    """
    Its node has settings of its own.
    """
    return square(x=x).with_overrides(retries=3, requests=flytekit.Resources(cpu="1"))


launch_plan = LaunchPlan.get_or_create(mapped, "squares", default_inputs={"xs": [1, 2]})


@dataclass
class Settings:
    """
    A dataclass among the inputs and outputs.
    """

    rate: float
    name: str = "sgd"


@task
def prepare(folder: str) -> tuple[FlyteFile, FlyteDirectory, Settings]:
    """
    Data in files.
    """
    Path(folder, "file.txt").write_text("hello")
    Path(folder, "data").mkdir()
    Path(folder, "data", "part").write_text("1")
    return FlyteFile(f"{folder}/file.txt"), FlyteDirectory(f"{folder}/data"), Settings(0.5)


@distributed(framework="tensorflow", worker=2, local=QUIET)
def use_files(file: FlyteFile, data: FlyteDirectory, settings: Settings, folder: str) -> tuple[FlyteFile, Settings]:
    """
    Reads files in the replicas, and the coordinator's is the one that flows on.
    """
    with open(file) as text:
        content = text.read()
    path = f"{folder}/out-{replica().rank}.txt"
    Path(path).write_text(f"{content} {len(os.listdir(data))} from {replica().name}")
    return FlyteFile(path), Settings(settings.rate * 2)


@task
def read(file: FlyteFile, settings: Settings) -> str:
    """
    What came of it.
    """
    with open(file) as text:
        return f"{text.read()}, {settings}"


@workflow
def files(folder: str) -> str:
    """
    Files and dataclasses go in and come out.
    """
    file, data, settings = prepare(folder=folder)
    made, changed = use_files(file=file, data=data, settings=settings, folder=folder)
    return read(file=made, settings=changed)


class Locked:
    """
    Cannot be sent to another process.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()


@distributed(framework="tensorflow", worker=1, local=QUIET)
def takes_anything(x: dict) -> int:
    """
    Takes what may not be sent.
    """
    return len(x)


@distributed(framework="tensorflow", worker=2, local=QUIET, flyte={"cache": True, "cache_version": "1"})
def cached(x: int) -> int:
    """
    Runs once for each number.
    """
    return x + os.getpid()


#: What is noted of a value: where it came from.
NOTED = Artifact(name="noted", partition_keys=["of"])


@distributed(framework="tensorflow", worker=2, local=QUIET)
def notes(x: int) -> tuple[Annotated[str, NOTED], int]:
    """
    Leaves decks, metadata and a checkpoint beside its values.
    """
    name = replica().name
    flytekit.Deck("replicas", f"<p>{name}</p>")
    if replica().is_coordinator:
        flytekit.current_context().checkpoint.write(b"%d" % x)
    return NOTED.create_from(name, of=name), x
