"""
``process_group()`` and ``device()``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from distrib import DistribError, ReplicaFailedError, distributed
from distrib.pytorch import device, process_group

ECHO = {"echo": False}


@distributed("pytorch", master=1, worker=1, local=ECHO)
def meet(ones: Any) -> tuple[int, int, str, int, bool, Any]:
    """
    Rank, world size, the device, the threads of one process, whether torch was there before, and the sum of everybody's ones.
    """
    inherited = "torch" in sys.modules
    import torch
    import torch.distributed as dist

    with process_group() as mine:
        dist.all_reduce(ones)
        seen = (dist.get_rank(), dist.get_world_size(), mine.type, torch.get_num_threads(), inherited, ones)
    assert not dist.is_initialized()
    return seen


@pytest.mark.parametrize("nproc", [1, 2])
def test_processes_meet(nproc: int) -> None:
    """
    A master and a worker, of one process each and of two; tensors are arguments and values like others, and each of the two says
    that it waits. PyTorch is imported once, not in each process.
    """
    import torch

    run = meet.options(nproc_per_node=nproc).submit(torch.ones(3))
    results = run.results(120)
    world = 2 * nproc
    assert [each[:3] for each in results] == [(rank, world, "cpu") for rank in range(world)]
    assert all(torch.equal(each[5], torch.full((3,), float(world))) for each in results)
    assert all(each[4] for each in results)
    said = {event.replica: event.message for event in run.events() if event.kind == "progress"}
    assert said == dict.fromkeys(run.status().replicas, f"waiting for the group of {world}")
    if nproc > 1:
        assert {each[3] for each in results} == {1}, "torch itself uses one thread"


@distributed("pytorch", worker=2, local=ECHO)
def leave_early() -> None:
    """
    Rank 1 raises within the group; rank 0 waits for it there.
    """
    import torch
    import torch.distributed as dist

    with process_group():
        if dist.get_rank() == 1:
            raise KeyError("left")
        dist.all_reduce(torch.ones(1))


@pytest.mark.parametrize(
    ("place", "who"), [({"worker": 2}, r"worker-1"), ({"worker": 1, "nproc_per_node": 2}, r"worker-0 \(rank 1\)")], ids=["nodes", "a node"]
)
def test_an_exception_leaves_the_group(place: dict[str, int], who: str) -> None:
    """
    The one that raised is the one that is reported, not its peer that lost the connection, on its own node or another.
    """
    with pytest.raises(ReplicaFailedError, match=f"{who} failed with KeyError: 'left'"):
        leave_early.options(**place)()


@distributed("pytorch", worker=2, local=ECHO)
def cut_off(missing: str) -> None:
    """
    Lose a variable before the group is made.
    """
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if missing == "all" else (missing,):
        del os.environ[name]
    with process_group():
        raise AssertionError("a group of one would train alone")


@pytest.mark.parametrize("missing", ["all", "MASTER_PORT"])
def test_no_replica_trains_alone(missing: str) -> None:
    """
    A replica of two that finds no environment, or half of it, says so.
    """
    with pytest.raises(ReplicaFailedError) as caught:
        cut_off(missing)
    assert "one of 2 replicas" in str(caught.value)
    assert "MASTER_PORT" in str(caught.value)


def alone(tmp_path: Path) -> None:
    """
    A training function, called as it is.
    """
    import torch
    import torch.distributed as dist

    ones = torch.ones(1)
    with process_group() as mine:
        dist.all_reduce(ones)
        (tmp_path / "seen").write_text(f"{dist.get_rank()} {dist.get_world_size()} {mine} {ones.item()}")
        with pytest.raises(Exception, match="already"), process_group():
            pass


def test_outside_of_any_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There it is a group of one; a second one within it is refused.
    """
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    alone(tmp_path)
    assert (tmp_path / "seen").read_text() == "0 1 cpu 1.0"


def test_device_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The GPU of the process's local rank, where there is one for it.
    """
    import torch

    if not torch.cuda.is_available():
        assert device() == torch.device("cpu")
        return
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    with pytest.raises(Exception, match="nproc_per_node"):
        device()


@pytest.mark.parametrize(("name", "value"), [("RANK", "2"), ("RANK", "-1"), ("RANK", "first"), ("WORLD_SIZE", "many")])
def test_a_rank_that_is_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """
    It is refused at once; PyTorch would wait for the others until its timeout.
    """
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", name: value}
    for each, of_it in place.items():
        monkeypatch.setenv(each, of_it)
    with pytest.raises(DistribError, match=f"{name}={value}"), process_group():
        pass


def test_the_group_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    PyTorch's own error is the cause of one that says who could not meet whom.
    """
    from datetime import timedelta

    place: dict[str, Any] = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(Exception, match=r"rank 1 of 2 cannot join the group at 127\.0\.0\.1:1") as caught,
        process_group(timeout=timedelta(seconds=1)),
    ):
        pass
    assert caught.value.__cause__ is not None
